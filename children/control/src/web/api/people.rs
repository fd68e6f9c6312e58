//! Users and tokens.

use std::time::{Duration, UNIX_EPOCH};

use multus_contract::api::time::parse_rfc3339;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::problem::Problem;
use super::super::request::Method::{Delete, Get, Patch, Post};
use super::table::{Access, Call, Json, Table};
use crate::auth::{TokenInfo, UserChange, UserInfo};
use crate::service::{Caller, Error};

/// Users.
#[derive(Serialize, JsonSchema)]
struct UserList {
    /// By name.
    users: Vec<UserInfo>,
}

/// A new user.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewUser {
    /// Letters, digits and `. _ - @`, 1 to 64.
    #[schemars(length(min = 1, max = 64))]
    name: String,
    /// The right level, 0 (everything) to 100 (look); not below one's own.
    #[schemars(range(max = 100))]
    level: u32,
    /// May change nothing.
    #[serde(default)]
    read_only: bool,
    /// At least 10 characters.
    password: String,
}

/// What is to be another about a user; what is left out stays.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UserPatch {
    /// The right level.
    #[schemars(range(max = 100))]
    level: Option<u32>,
    /// May change nothing.
    read_only: Option<bool>,
    /// A new password; all sessions of the user end.
    password: Option<String>,
}

/// Tokens.
#[derive(Serialize, JsonSchema)]
struct TokenList {
    /// By name; the tokens themselves are not kept.
    tokens: Vec<TokenInfo>,
}

/// A new token.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewToken {
    /// Whose it is; one token for each name. Letters, digits and `. _ - @`, 1 to 64.
    #[schemars(length(min = 1, max = 64))]
    name: String,
    /// The right level, 0 (everything) to 100 (look); not below one's own.
    #[schemars(range(max = 100))]
    level: u32,
    /// From when on it no longer counts, such as `2027-08-05T00:00:00Z`; left out: never.
    expires: Option<String>,
}

/// A token.
#[derive(Serialize, JsonSchema)]
struct MadeToken {
    /// To be sent as `Authorization: Bearer TOKEN`. It is not kept and cannot be shown again.
    token: String,
}

pub(crate) fn routes(table: &mut Table) {
    let admin = Access::Level(Caller::ADMIN);
    table.add(Get, "/users", "users", "All users", admin, |call, (): ()| {
        Ok(Json(UserList { users: call.web.auth.list(call.caller()?)? }))
    });
    table.add(Post, "/users", "add-user", "Make a user", admin, add);
    table.add(Patch, "/users/{name}", "edit-user", "Change a user", admin, edit);
    table.add(Delete, "/users/{name}", "remove-user", "Take a user away", admin, |call, (): ()| {
        Ok(call.web.auth.remove(call.caller()?, call.part(0))?)
    });
    table.add(Get, "/tokens", "tokens", "All tokens", admin, |call, (): ()| {
        Ok(Json(TokenList { tokens: call.web.auth.list_tokens(call.caller()?)? }))
    });
    table.add(Post, "/tokens", "add-token", "Make a token", admin, add_token);
    table.add(Delete, "/tokens/{name}", "remove-token", "Take a token away", admin, |call, (): ()| {
        Ok(call.web.auth.remove_token(call.caller()?, call.part(0))?)
    });
}

fn add_token(call: &Call<'_>, Json(body): Json<NewToken>) -> Result<Json<MadeToken>, Problem> {
    let expires = body.expires.map(|text| {
        let end = parse_rfc3339(&text).and_then(|ns| UNIX_EPOCH.checked_add(Duration::from_nanos(ns)));
        end.ok_or_else(|| Error::field("expires", "expected a time such as 2027-08-05T00:00:00Z"))
    });
    let token = call.web.auth.add_token(call.caller()?, &body.name, body.level, expires.transpose()?)?;
    Ok(Json(MadeToken { token }))
}

fn add(call: &Call<'_>, Json(body): Json<NewUser>) -> Result<Json<UserInfo>, Problem> {
    let NewUser { name, level, read_only, password } = body;
    Ok(Json(call.web.auth.add(call.caller()?, &name, level, read_only, &password)?))
}

fn edit(call: &Call<'_>, Json(body): Json<UserPatch>) -> Result<Json<UserInfo>, Problem> {
    let UserPatch { level, read_only, password } = body;
    let change = UserChange { level, read_only, password };
    Ok(Json(call.web.auth.edit(call.caller()?, call.part(0), &change)?))
}
