//! `tokens.toml`: what programs show instead of a password.
//!
//! ```toml
//! [[token]]
//! name = "scada"
//! level = 30
//! sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
//! created = "2026-08-05T14:03:07Z"
//! expires = "2027-08-05T00:00:00Z"     # may be left out
//! ```
//! A token is 256 random bits, so its plain SHA-256 tells nothing about it, and looking it up by the hash leaks nothing by its
//! time. The token itself is shown once, when it is made. Mode 0600; replaced as a whole, like `users.toml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use multus_contract::api::time::{format_rfc3339, parse_rfc3339};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::file::{self, UsersError, name_fault};

/// A token, but for what is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Whose it is.
    pub name: String,
    /// The right level: 0 (everything) to 100 (look); lower is mightier.
    pub level: u32,
    /// SHA-256 of the token, 64 hexadecimal digits.
    pub sha256: String,
    /// When it was made, RFC 3339 in UTC.
    pub created: String,
    /// From when on it no longer counts, RFC 3339 in UTC; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// All tokens by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens(BTreeMap<String, Token>);

impl Tokens {
    /// Where they stand in a configuration directory.
    pub fn file(config_dir: &Path) -> PathBuf {
        config_dir.join("tokens.toml")
    }

    /// Reads the file; none if there is no file.
    ///
    /// # Errors
    /// It cannot be read, or something in it is wrong: then no token at all may count.
    pub fn load(path: &Path) -> Result<Self, UsersError> {
        file::read(path, Self::parse)
    }

    /// Makes a token, which is returned and cannot be shown again. It must be the only one of its name.
    ///
    /// # Errors
    /// The name, the level or the number of tokens is not possible, or the file cannot be read or written.
    pub fn add(path: &Path, name: &str, level: u32, expires: Option<SystemTime>) -> Result<String, UsersError> {
        let fault = |why: String| UsersError::new(path, why);
        let mut random = [0u8; 32];
        getrandom::fill(&mut random).map_err(|error| fault(format!("no random numbers: {error}")))?;
        let token = format!("{PREFIX}{}", hex(&random));
        Self::change(path, |tokens| {
            if tokens.0.contains_key(name) {
                return Err(fault(format!("there is a token of {name:?} already; remove it first")));
            }
            tokens
                .put(Token {
                    name: name.to_owned(),
                    level,
                    sha256: hash(&token),
                    created: rfc3339(SystemTime::now()),
                    expires: expires.map(rfc3339),
                })
                .map_err(fault)
        })?;
        Ok(token)
    }

    /// Takes the token of `name` out. False: there was none.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn remove(path: &Path, name: &str) -> Result<bool, UsersError> {
        Self::change(path, |tokens| Ok(tokens.0.remove(name).is_some()))
    }

    /// Name and level of whoever shows `token`, if it counts at `now`.
    pub fn find(&self, token: &str, now: SystemTime) -> Option<(&str, u32)> {
        let wanted = hash(token);
        self.iter()
            .find(|token| token.sha256 == wanted && token.counts(now))
            .map(|token| (token.name.as_str(), token.level))
    }

    /// The level of a name, if its token counts at `now`: for whoever proves the name in another way.
    pub fn level_of(&self, name: &str, now: SystemTime) -> Option<u32> {
        self.0.get(name).filter(|token| token.counts(now)).map(|token| token.level)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Token> {
        self.0.values()
    }

    fn change<T>(path: &Path, change: impl FnOnce(&mut Self) -> Result<T, UsersError>) -> Result<T, UsersError> {
        file::rewrite(path, Self::parse, Self::to_toml, change).map(|(_, result)| result)
    }

    fn put(&mut self, token: Token) -> Result<(), String> {
        if let Some(fault) = name_fault(&token.name) {
            return Err(format!("name: {fault}"));
        }
        if token.level > WEAKEST {
            return Err(format!("level: 0 to {WEAKEST} are possible"));
        }
        if token.sha256.len() != 64 || !token.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err("sha256: 64 hexadecimal digits are needed".to_owned());
        }
        if token.expires.as_deref().is_some_and(|expires| parse_rfc3339(expires).is_none()) {
            return Err("expires: a time such as \"2027-08-05T00:00:00Z\" is needed".to_owned());
        }
        if self.0.len() >= MOST_TOKENS {
            return Err(format!("there are {MOST_TOKENS} tokens; more are not possible"));
        }
        match self.0.insert(token.name.clone(), token) {
            None => Ok(()),
            Some(_) => Err("two tokens have this name".to_owned()),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let written: Written = toml_edit::de::from_str(text).map_err(|error| match error.span() {
            Some(span) => format!("line {}: {}", 1 + text[..span.start].matches('\n').count(), error.message()),
            None => error.message().to_owned(),
        })?;
        let mut tokens = Self::default();
        for token in written.token {
            let name = token.name.clone();
            tokens.put(token).map_err(|why| format!("token {name:?}: {why}"))?;
        }
        Ok(tokens)
    }

    fn to_toml(&self) -> String {
        // Numbers and texts in tables can always be written.
        let text = toml_edit::ser::to_string_pretty(&Written { token: self.iter().cloned().collect() });
        format!("{HEADING}{}", text.unwrap_or_default())
    }
}

impl Token {
    /// Whether it has not expired.
    pub fn counts(&self, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        self.expires.as_deref().is_none_or(|expires| parse_rfc3339(expires).is_some_and(|end| now < u128::from(end)))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    token: Vec<Token>,
}

fn hash(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format_rfc3339(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// So that a token that turns up somewhere it should not can be told for what it is.
const PREFIX: &str = "multus_";
const HEADING: &str = "# Tokens of programs. \"multusctl token\" changes this file.\n\n";
const WEAKEST: u32 = 100;
const MOST_TOKENS: usize = 1000;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_token_is_found_until_it_expires_or_is_removed() {
        let temp = tempfile::tempdir().expect("a temporary directory can be made");
        let path = Tokens::file(temp.path());
        let now = SystemTime::now();
        let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(86_400));
        let scada = Tokens::add(&path, "scada", 30, None).expect("writable");
        let short = Tokens::add(&path, "short", 0, Some(now + hour)).expect("writable");
        assert!(scada.len() == 7 + 64 && scada != short);
        assert!(Tokens::add(&path, "scada", 30, None).is_err(), "one of a name");
        assert!(Tokens::add(&path, "a b", 30, None).is_err() && Tokens::add(&path, "c", 101, None).is_err());

        let text = fs::read_to_string(&path).expect("readable");
        assert!(!text.contains(&scada) && !text.contains(&scada[7..]), "the token itself is nowhere");
        assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o7777, 0o600);
        let tokens = Tokens::load(&path).expect("own file");
        assert_eq!(tokens.find(&scada, now), Some(("scada", 30)));
        assert_eq!(tokens.find(&short, now), Some(("short", 0)));
        assert_eq!((tokens.find(&short, now + day), tokens.level_of("short", now + day)), (None, None));
        assert_eq!(tokens.find(&scada[..70], now), None);
        assert_eq!((tokens.find("", now), tokens.level_of("nobody", now)), (None, None));

        assert_eq!((Tokens::remove(&path, "scada"), Tokens::remove(&path, "scada")), (Ok(true), Ok(false)));
        assert_eq!(Tokens::load(&path).expect("own file").find(&scada, now), None);
    }

    #[test]
    fn a_mistake_in_the_file_is_an_error() {
        let good = "name = \"a\"\nlevel = 1\ncreated = \"\"\n";
        let digits = "0".repeat(64);
        for (text, words) in [
            (format!("[[token]]\n{good}sha256 = \"12\"\n"), "64 hexadecimal"),
            (format!("[[token]]\n{good}sha256 = \"{digits}\"\nexpires = \"tomorrow\"\n"), "expires"),
            (format!("[[token]]\n{good}sha256 = \"{digits}\"\n[[token]]\n{good}sha256 = \"{digits}\"\n"), "two tokens"),
            (format!("[[token]]\n{good}"), "sha256"),
            ("token = 3".to_owned(), "line 1"),
        ] {
            let error = Tokens::parse(&text).expect_err(&text);
            assert!(error.contains(words), "{error}");
        }
    }
}
