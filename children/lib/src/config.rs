//! From a file to a valid configuration, or to everything that is wrong with the file.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use crate::parameter::FILES_FOLDER;
use crate::schema::Schema;
use crate::{Config, Error};

/// A configuration of a child is a page of text; what is larger is a mistake.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// From 1; `None` when it concerns the file as a whole.
    pub line: Option<usize>,
    /// The key with its tables, such as `sensor.address`; empty when it concerns no key.
    pub key: String,
    /// What was found and what was expected.
    pub message: String,
    /// The known key or word that was probably meant.
    pub nearest: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(nearest) = &self.nearest {
            write!(f, "; did you mean \"{nearest}\"?")?;
        }
        Ok(())
    }
}

/// All that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// In the order of the file; never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Where the configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nobody named a file.
    Defaults,
    /// `MULTUS_CONFIG`: the file may be missing, then the defaults are meant.
    Supervised(PathBuf),
    /// `--config`: the file must be there.
    Named(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Defaults => f.write_str("defaults"),
            Self::Supervised(path) if !path.exists() => write!(f, "defaults ({} does not exist)", path.display()),
            Self::Supervised(path) | Self::Named(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Source {
    /// Where files lie that parameters name by a relative path: `files/<instance>` beside the folder of the configuration
    /// file; by hand, beside that file.
    pub(crate) fn files_folder(&self) -> PathBuf {
        let parent = |path: &Path| path.parent().unwrap_or(Path::new("")).to_path_buf();
        match self {
            Self::Defaults => PathBuf::new(),
            Self::Named(path) => parent(path),
            Self::Supervised(path) => {
                parent(&parent(path)).join(FILES_FOLDER).join(path.file_stem().unwrap_or_default())
            }
        }
    }

    pub(crate) fn load<C: Config>(&self) -> Result<C, ConfigError> {
        let (path, may_be_missing) = match self {
            Self::Defaults => return Ok(C::default()),
            Self::Supervised(path) => (path, true),
            Self::Named(path) => (path, false),
        };
        match read(path) {
            Ok(text) => parse(&text, path),
            Err(ReadError::Missing) if may_be_missing => Ok(C::default()),
            Err(error) => Err(of_file(path, error.to_string())),
        }
    }

    pub(crate) fn load_checked<C: Config>(&self, check: &dyn Fn(&C) -> Result<(), Error>) -> Result<C, ConfigError> {
        let config = self.load()?;
        match (check(&config), self) {
            (Ok(()), _) => Ok(config),
            (Err(error), Self::Supervised(path) | Self::Named(path)) => Err(of_file(path, error.to_string())),
            (Err(error), Self::Defaults) => Err(of_file(Path::new("defaults"), error.to_string())),
        }
    }
}

fn of_file(path: &Path, message: String) -> ConfigError {
    ConfigError {
        problems: vec![Problem { file: path.into(), line: None, key: String::new(), message, nearest: None }],
    }
}

enum ReadError {
    Missing,
    Other(String),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("no such file"),
            Self::Other(reason) => f.write_str(reason),
        }
    }
}

fn read(path: &Path) -> Result<String, ReadError> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => ReadError::Missing,
        _ => ReadError::Other(format!("cannot be read: {error}")),
    };
    let found = std::fs::metadata(path).map_err(failed)?;
    if !found.is_file() {
        return Err(ReadError::Other("is not a regular file".into()));
    }
    if found.len() > MAX_FILE_BYTES {
        return Err(ReadError::Other(format!("is larger than {MAX_FILE_BYTES} bytes")));
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    String::from_utf8(bytes).map_err(|error| {
        let line = line_of(error.as_bytes(), error.utf8_error().valid_up_to());
        ReadError::Other(format!("is not UTF-8 text (line {line})"))
    })
}

/// First the grammar, then the schema (all findings at once), then the types, whose word is final.
fn parse<C: Config>(text: &str, path: &Path) -> Result<C, ConfigError> {
    let problem = |span: Option<Range<usize>>, key: String, message: String, nearest: Option<String>| Problem {
        file: path.into(),
        line: span.map(|span| line_of(text.as_bytes(), span.start)),
        key,
        message,
        nearest,
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut problems: Vec<Problem> = errors
        .iter()
        .map(|error| problem(error.span(), String::new(), error.message().replace('\n', " "), None))
        .collect();
    if problems.is_empty() {
        let findings = Schema::of::<C>().check(table.get_ref());
        problems.extend(findings.into_iter().map(|f| problem(Some(f.span), f.key, f.message, f.nearest)));
    }
    if !problems.is_empty() {
        problems.sort_by_key(|problem| problem.line);
        return Err(ConfigError { problems });
    }
    let keys = table.clone();
    C::deserialize(toml::Deserializer::from(table)).map_err(|error| {
        let key = error.span().and_then(|span| key_at(keys.get_ref(), &span)).unwrap_or_default();
        ConfigError { problems: vec![problem(error.span(), key, error.message().replace('\n', " "), None)] }
    })
}

/// The innermost key whose name or value holds `span`.
fn key_at(table: &DeTable<'_>, span: &Range<usize>) -> Option<String> {
    let holds = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    for (key, value) in table {
        let inner = match value.get_ref() {
            DeValue::Table(inner) => key_at(inner, span),
            DeValue::Array(items) => {
                items.iter().filter_map(|item| item.get_ref().as_table()).find_map(|t| key_at(t, span))
            }
            _ => None,
        };
        let name = key.get_ref();
        match inner {
            Some(inner) => return Some(format!("{name}.{inner}")),
            None if holds(key.span()) || holds(value.span()) => return Some(name.to_string()),
            None => {}
        }
    }
    None
}

fn line_of(text: &[u8], offset: usize) -> usize {
    text[..offset.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde::Deserialize;

    use super::*;
    use crate::Interval;

    #[derive(Debug, Default, Deserialize, JsonSchema, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Sample {
        /// How often.
        #[schemars(range(min = 1, max = 100))]
        rate: u16,
        label: String,
        offset: f64,
        pause: Interval,
        mode: Mode,
        sensor: Option<Sensor>,
        more: Vec<Sensor>,
    }

    #[derive(Debug, Default, Deserialize, JsonSchema, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        /// Does things at once.
        #[default]
        Eager,
        /// Does them later.
        Lazy,
    }

    #[derive(Debug, Default, Deserialize, JsonSchema, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Sensor {
        address: u8,
        pins: [u8; 2],
    }

    fn problems(text: &str) -> Vec<String> {
        match parse::<Sample>(text, Path::new("c.toml")) {
            Ok(config) => panic!("accepted: {config:?}"),
            Err(error) => error.problems.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_good_file_is_read() {
        let text = "rate = 5\noffset = 1\npause = \"1.5s\"\nmode = \"lazy\"\n[sensor]\naddress = 0x20\n[[more]]\npins = [1, 2]\n";
        let config: Sample = parse(text, Path::new("c.toml")).unwrap();
        assert_eq!(config.rate, 5);
        assert_eq!(config.offset, 1.0);
        assert_eq!(config.pause, Interval::from_millis(1500));
        assert_eq!(config.mode, Mode::Lazy);
        assert_eq!(config.sensor, Some(Sensor { address: 32, pins: [0, 0] }));
        assert_eq!(config.more, [Sensor { address: 0, pins: [1, 2] }]);
        assert_eq!(parse::<Sample>("", Path::new("c.toml")), Ok(Sample::default()));
    }

    #[test]
    fn every_mistake_is_told_with_line_key_and_what_was_expected() {
        let text = "rat = 5\nlabel = 3\npause = \"5\"\nmode = \"lasy\"\n\n[sensor]\nadress = 1\naddress = 300\n[[more]]\npins = [1, \"x\"]\n";
        assert_eq!(
            problems(text),
            [
                "c.toml:1: rat: unknown key; did you mean \"rate\"?",
                "c.toml:2: label: found an integer, expected a string",
                "c.toml:3: pause: \"5\" has no unit, expected a duration such as \"200ms\", \"1.5s\" or \"1h30min\"",
                "c.toml:4: mode: found \"lasy\", expected \"eager\" or \"lazy\"; did you mean \"lazy\"?",
                "c.toml:7: sensor.adress: unknown key; did you mean \"address\"?",
                "c.toml:8: sensor.address: found 300, expected an integer from 0 to 255",
                "c.toml:10: more[0].pins[1]: found a string, expected an integer from 0 to 255",
            ]
        );
        assert_eq!(problems("rate = 0"), ["c.toml:1: rate: found 0, expected an integer from 1 to 100"]);
        assert_eq!(problems("sensor = { pins = [1] }"), ["c.toml:1: sensor.pins: found 1 values, expected at least 2"]);
    }

    #[test]
    fn errors_of_the_grammar_are_all_told() {
        let problems = problems("rate = \nlabel = \"x\nmode = \"lazy\"\n");
        assert!(problems.len() >= 2, "{problems:?}");
        assert!(problems[0].starts_with("c.toml:1: "), "{problems:?}");
    }

    #[test]
    fn files_of_parameters_lie_in_the_folder_of_the_instance() {
        let folder = |source: Source| source.files_folder();
        let supervised = Source::Supervised("/etc/multusd/config/vpn_1.toml".into());
        assert_eq!(folder(supervised), Path::new("/etc/multusd/files/vpn_1"));
        assert_eq!(folder(Source::Named("here/vpn.toml".into())), Path::new("here"));
        assert_eq!(folder(Source::Defaults), Path::new(""));
    }

    #[test]
    fn a_strange_file_is_refused_with_a_reason() {
        let dir = tempfile::tempdir().unwrap();
        let load = |path: &Path| Source::Named(path.into()).load::<Sample>().map_err(|error| error.to_string());
        assert!(load(dir.path()).unwrap_err().ends_with("is not a regular file"));
        let binary = dir.path().join("binary.toml");
        std::fs::write(&binary, b"rate = 5\n\xff\xfe").unwrap();
        assert!(load(&binary).unwrap_err().ends_with("is not UTF-8 text (line 2)"));
        let missing = dir.path().join("missing.toml");
        assert!(load(&missing).unwrap_err().ends_with("no such file"));
        assert_eq!(Source::Supervised(missing).load(), Ok(Sample::default()));
    }
}
