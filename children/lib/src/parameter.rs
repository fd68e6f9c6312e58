//! Kinds of parameters that Rust's own types do not tell: a text in a file of its own, and a version that rises by itself.
//!
//! What a type cannot say stands as a mark in the schema: `#[schemars(extend("format" = "hex"))]` (or `"ipv4"`, `"password"`,
//! `"textarea"`), `extend("x-edit-level" = 0)`, `extend("x-display-level" = 10)`, `extend("x-unit" = "V")`,
//! `extend("x-section" = "Network")` for a heading before a field.

use std::borrow::Cow;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Context;

/// The path of a text file that is edited as a text, such as the configuration of a program that the child runs.
///
/// Written relative, it lies in the child instance's own folder: `files/<instance>/` in the configuration directory. An
/// absolute path may lie there or, for multus-control to edit it, in a folder that `configuration.text_folders` of its own
/// parameters names for this child. Empty: there is none.
///
/// With `#[schemars(extend("x-secret-file" = true))]` the file is readable by the user of the child only (mode 0600) and its
/// text never leaves the device: it can be replaced, not looked at.
///
/// ```
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// #[serde(deny_unknown_fields, default)]
/// struct Config {
///     /// The configuration of the tunnel.
///     #[schemars(extend("x-secret-file" = true, "x-display-level" = 10, "x-edit-level" = 10))]
///     tunnel: multus_child::TextFile,
/// }
/// # impl Default for Config { fn default() -> Self { Self { tunnel: "client.conf".parse().unwrap() } } }
/// # assert_eq!(Config::default().tunnel.to_string(), "client.conf");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TextFile(String);

/// How the schema marks the path of a text file.
pub const TEXT_FILE_FORMAT: &str = "multus-text-file";
/// How the schema marks that such a file is secret.
pub const SECRET_FILE_MARK: &str = "x-secret-file";
/// How the schema marks a version that rises by itself.
pub const VERSION_FORMAT: &str = "multus-version";
/// In the configuration directory: one folder for each child instance.
pub const FILES_FOLDER: &str = "files";

impl TextFile {
    /// Whether no file is named.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// As it is written.
    pub fn written(&self) -> &Path {
        Path::new(&self.0)
    }

    /// Where the file is for this process; `None` if none is named. By hand, with `--config FILE`, a relative path begins at the
    /// folder of that file.
    pub fn path(&self, context: &Context) -> Option<PathBuf> {
        (!self.is_none()).then(|| context.files_folder().join(&self.0))
    }
}

impl FromStr for TextFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::RootDir);
        if text.contains(['\0', '\n']) || text.len() > LONGEST_PATH {
            return Err(format!("no path of at most {LONGEST_PATH} bytes"));
        }
        if !text.is_empty() && (!Path::new(text).components().all(is_plain) || text.ends_with('/')) {
            return Err(format!("{text:?} is not the path of a file without . and .."));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for TextFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for TextFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TextFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for TextFile {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "TextFile".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": TEXT_FILE_FORMAT, "maxLength": LONGEST_PATH })
    }
}

/// The version of a configuration, `x.y.z`: multus-control raises `z` whenever another parameter was changed, and nobody has to
/// think of it. A device can tell it to others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConfigVersion(pub String);

impl Default for ConfigVersion {
    fn default() -> Self {
        Self("1.0.0".into())
    }
}

impl fmt::Display for ConfigVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl JsonSchema for ConfigVersion {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ConfigVersion".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": VERSION_FORMAT, "readOnly": true })
    }
}

/// Longer than any that is written by hand; the system itself takes 4095.
const LONGEST_PATH: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_a_file_and_nowhere_else() {
        for text in ["", "client.conf", "tunnels/client.conf", "/etc/openvpn/client/a.conf"] {
            assert_eq!(text.parse::<TextFile>().expect("a good path").to_string(), text);
        }
        for text in ["..", "../users.toml", "a/../../users.toml", "./a", "a/", "/", "a\nb", "a\0b", &"a".repeat(1001)] {
            assert!(text.parse::<TextFile>().is_err(), "{text:?}");
        }
    }
}
