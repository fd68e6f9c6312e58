//! Retained values on the disk: `io-retained.toml` in the state directory.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use multus_contract::config::replace_file;
use multus_ipc::io::Definition;

/// Name of the file in the state directory.
pub const FILE: &str = "io-retained.toml";

/// The values of lines that are retained, one for each definition. What is not there, is not retained or does not fit is
/// left out, and told in words.
pub fn load(path: &Path, lines: &[(Definition, bool)]) -> (Vec<Option<f64>>, Vec<String>) {
    let mut values = vec![None; lines.len()];
    let mut notes = Vec::new();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return (values, notes),
        Err(error) => return (values, vec![format!("{}: {error}; no value is retained", path.display())]),
    };
    let found: BTreeMap<String, f64> = match toml::from_str(&text) {
        Ok(found) => found,
        Err(error) => {
            let first = error.message().lines().next().unwrap_or_default().to_owned();
            return (values, vec![format!("{}: {first}; no value is retained", path.display())]);
        }
    };
    for (name, value) in found {
        let line = lines.iter().position(|(line, is_retained)| *is_retained && line.name.to_string() == name);
        match line {
            Some(line) if lines[line].0.accepts(value) => values[line] = Some(value),
            Some(_) => {
                notes.push(format!("{}: {name} cannot be {value}; it begins with its safe value", path.display()))
            }
            // The line is gone, or is no longer retained: the next writing leaves it out.
            None => {}
        }
    }
    (values, notes)
}

/// Writes the values in one step: a power cut leaves the old file or the new one.
///
/// # Errors
/// What the system refuses, in words.
pub fn store<'a>(path: &Path, values: impl Iterator<Item = (&'a str, f64)>) -> Result<(), String> {
    let mut text = "# The last values of retained outputs, written by multus-io.\n".to_owned();
    for (name, value) in values {
        // Names are letters, digits, '-', '_' and '.'. The debug form of a number is one of TOML: 1.0.
        let _ = writeln!(text, "\"{name}\" = {value:?}");
    }
    replace_file(path, &text, 0o644).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use multus_ipc::io::LineKind;
    use multus_ipc::text::Text;

    use super::*;

    #[test]
    fn what_is_stored_comes_back_and_what_does_not_fit_does_not() {
        let line = |name: &str, kind| {
            let (name, unit, owner) = (Text::new(name), Text::EMPTY, Text::EMPTY);
            Definition { name, unit, owner, kind, safe: 0.0, lowest: 0.0, highest: 10.0 }
        };
        let (digital, analogue) = (LineKind::DigitalOutput, LineKind::AnalogueOutput);
        let lines = [
            (line("DO.1", digital), true),
            (line("AO1", analogue), true),
            (line("DO2", digital), false),
            (line("AO2", analogue), true),
        ];
        let temp = tempfile::tempdir().expect("a temporary directory can be made");
        let path = temp.path().join(FILE);
        assert_eq!(load(&path, &lines), (vec![None; 4], vec![]), "no file is no mistake");
        store(&path, [("DO.1", 1.0), ("AO1", 1e-7), ("DO2", 1.0), ("AO2", 11.0), ("X", 1.0)].into_iter())
            .expect("writable");
        let (values, notes) = load(&path, &lines);
        assert_eq!(values, [Some(1.0), Some(1e-7), None, None]);
        assert!(notes.len() == 1 && notes[0].contains("AO2 cannot be 11"), "{notes:?}");
        std::fs::write(&path, "\"DO.1\" = \n").expect("writable");
        let (values, notes) = load(&path, &lines);
        assert!(values == [None; 4] && notes.len() == 1, "{notes:?}");
    }
}
