//! Users, and tokens for programs.

use std::time::{Duration, SystemTime};

use super::render::context;

use super::{Answer, View, status_of};
use crate::auth::UserChange;
use crate::service::{Caller, Error};

impl View<'_> {
    /// All users; a form adds, changes or removes one.
    pub(super) fn users(&self) -> Answer {
        if !self.visit.request.method.changes() {
            self.caller().needs(Caller::ADMIN)?;
            return self.users_page(200, None);
        }
        match self.change_user() {
            Ok(what) => Ok(self.done("/users", &what)),
            Err(error @ (Error::Forbidden(_) | Error::NotFound(_))) => Err(error),
            Err(error) => self.users_page(status_of(&error), Some(&error)),
        }
    }

    fn change_user(&self) -> Result<String, Error> {
        let auth = &self.visit.web.auth;
        let name = self.field("name").trim();
        let level =
            || self.field("level").trim().parse().map_err(|_| Error::field("level", "expected a number from 0 to 100"));
        let read_only = self.field("read_only") == "true";
        match self.field("action") {
            "add" => {
                auth.add(self.caller(), name, level()?, read_only, self.field("password"))?;
                Ok(format!("{name} is a user now."))
            }
            "change" => {
                let password = Some(self.field("password")).filter(|password| !password.is_empty()).map(str::to_owned);
                let change = UserChange { level: Some(level()?), read_only: Some(read_only), password };
                auth.edit(self.caller(), name, &change)?;
                Ok(format!("{name} is changed."))
            }
            "remove" => {
                auth.remove(self.caller(), name)?;
                Ok(format!("{name} is no user any more."))
            }
            other => Err(Error::field("action", format!("unknown: {other:?}"))),
        }
    }

    fn users_page(&self, status: u16, error: Option<&Error>) -> Answer {
        let users = self.visit.web.auth.list(self.caller())?;
        let own = self.caller().level;
        let users: Vec<_> = users
            .into_iter()
            .map(|user| {
                let may = self.may(Caller::ADMIN) && own <= user.level;
                context! { level => user.level, word => level_word(user.level), read_only => user.read_only, may, name => user.name }
            })
            .collect();
        let context = context! {
            users, levels => levels(own), may => self.may(Caller::ADMIN), error => error.map(Error::to_string),
            sent => context! {
                action => self.field("action"), name => self.field("name"), level => self.field("level"),
                read_only => self.field("read_only") == "true",
            },
        };
        Ok(self.page_with(status, "users.html", "Users", context))
    }
}

impl View<'_> {
    /// All tokens; a form makes or removes one.
    pub(super) fn tokens(&self) -> Answer {
        if !self.visit.request.method.changes() {
            self.caller().needs(Caller::ADMIN)?;
            return self.tokens_page(200, None, None);
        }
        let auth = &self.visit.web.auth;
        let name = self.field("name").trim();
        match self.field("action") {
            "remove" => {
                auth.remove_token(self.caller(), name)?;
                Ok(self.done("/tokens", &format!("{name} is no token any more.")))
            }
            "add" => match self.add_token(name) {
                // Not by way of a redirect: a token does not belong into an address.
                Ok(token) => self.tokens_page(200, None, Some((name, &token))),
                Err(error) => self.tokens_page(status_of(&error), Some(&error), None),
            },
            other => Err(Error::field("action", format!("unknown: {other:?}"))),
        }
    }

    fn add_token(&self, name: &str) -> Result<String, Error> {
        let number = |field: &'static str, text: &str| {
            text.parse::<u32>().map_err(|_| Error::field(field, "expected a whole number"))
        };
        let level = number("level", self.field("level").trim())?;
        let expires = match self.field("days").trim() {
            "" => None,
            days => {
                let days = Duration::from_secs(u64::from(number("days", days)?) * 86_400);
                let end = SystemTime::now().checked_add(days);
                Some(end.ok_or_else(|| Error::field("days", "that is too far ahead"))?)
            }
        };
        self.visit.web.auth.add_token(self.caller(), name, level, expires)
    }

    fn tokens_page(&self, status: u16, error: Option<&Error>, made: Option<(&str, &str)>) -> Answer {
        let own = self.caller().level;
        let tokens: Vec<_> = self
            .visit
            .web
            .auth
            .list_tokens(self.caller())?
            .into_iter()
            .map(|token| context! { word => level_word(token.level), may => self.may(Caller::ADMIN) && own <= token.level, token })
            .collect();
        let sent = |name| if made.is_some() { "" } else { self.field(name) };
        let context = context! {
            tokens, levels => levels(own), may => self.may(Caller::ADMIN), error => error.map(Error::to_string),
            made => made.map(|(name, token)| context! { name, token }),
            sent => context! { name => sent("name"), level => sent("level"), days => sent("days") },
        };
        Ok(self.page_with(status, "tokens.html", "Tokens", context))
    }
}

/// The usual levels that somebody of this level can give.
fn levels(own: u32) -> Vec<minijinja::Value> {
    let usual = [Caller::ROOT, Caller::ADMIN, Caller::OPERATOR, Caller::USER];
    usual.into_iter().filter(|level| *level >= own).map(|level| context! { level, word => level_word(level) }).collect()
}

/// What somebody of a level may do.
fn level_word(level: u32) -> &'static str {
    match level {
        Caller::ROOT => "everything",
        1..=Caller::ADMIN => "change configurations and users, reboot",
        11..=Caller::OPERATOR => "start, stop, restart and snooze children",
        _ => "look",
    }
}
