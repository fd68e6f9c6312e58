//! `multusctl token`: what programs show to multus-control instead of a password.

use std::time::{Duration, SystemTime};

use multus_users::Tokens;

use super::Context;
use super::output::{Failure, complain, print, print_json};

/// Makes a token and shows it, once.
pub(crate) fn add(context: &Context, name: &str, level: u32, expires: Option<Duration>) -> Result<(), Failure> {
    let expires = match expires.map(|after| SystemTime::now().checked_add(after)) {
        Some(None) => return Err(Failure::Message("--expires: too far ahead".to_owned())),
        Some(Some(end)) => Some(end),
        None => None,
    };
    let file = Tokens::file(&context.config_dir());
    let token = Tokens::add(&file, name, level, expires).map_err(|error| Failure::Message(error.to_string()))?;
    complain(format!("the token of {name}, level {level}, follows; it is not kept and cannot be shown again"));
    print(|out| writeln!(out, "{token}"))
}

/// Shows whose tokens there are.
pub(crate) fn list(context: &Context, json: bool) -> Result<(), Failure> {
    let file = Tokens::file(&context.config_dir());
    let tokens = Tokens::load(&file).map_err(|error| Failure::Message(error.to_string()))?;
    if json {
        let shown = |token: &multus_users::Token| {
            serde_json::json!({
                "name": token.name,
                "level": token.level,
                "created": token.created,
                "expires": token.expires,
                "expired": !token.counts(SystemTime::now()),
            })
        };
        return print_json(&tokens.iter().map(shown).collect::<Vec<_>>());
    }
    let width = tokens.iter().map(|token| token.name.len()).max().unwrap_or(0);
    print(|out| {
        for token in tokens.iter() {
            let end = match &token.expires {
                None => "does not expire".to_owned(),
                Some(end) if token.counts(SystemTime::now()) => format!("expires {end}"),
                Some(end) => format!("expired {end}"),
            };
            writeln!(out, "{:width$}  level {:3}  made {}  {end}", token.name, token.level, token.created)?;
        }
        Ok(())
    })
}

/// Takes a token away; what shows it is refused within a second.
pub(crate) fn remove(context: &Context, name: &str) -> Result<(), Failure> {
    let file = Tokens::file(&context.config_dir());
    match Tokens::remove(&file, name).map_err(|error| Failure::Message(error.to_string()))? {
        true => Ok(()),
        false => Err(Failure::Message(format!("there is no token of {name:?} in {}", file.display()))),
    }
}
