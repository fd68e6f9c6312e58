//! Logging in and out, and the first set-up.

use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::problem::Problem;
use super::super::request::Method::{Delete, Get, Post};
use super::table::{Access, Call, Json, Table, WithCookie};
use crate::auth::{Session, Visitor};

/// Who asks.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Whoami {
    /// Whether it is somebody who is known.
    authenticated: bool,
    /// How it is known.
    by: By,
    /// The name; empty for nobody.
    name: String,
    /// The right level, 0 (everything) to 100 (look); `null` for nobody.
    level: Option<u32>,
    /// May change nothing.
    read_only: bool,
    /// To be sent with every request of this session that changes something, as header `X-CSRF-Token`; empty without a
    /// session.
    csrf: String,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum By {
    Nothing,
    Session,
    Token,
}

/// Name and password.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LogIn {
    /// The name of the user.
    name: String,
    /// The password.
    password: String,
}

/// One's own new password.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewPassword {
    /// The password until now.
    old: String,
    /// The new one, at least 10 characters.
    new: String,
}

/// Whether the device waits for its first user.
#[derive(Serialize, JsonSchema)]
struct SetUpState {
    /// True: there is no user; the code in the log of multus-control lets one make the first.
    needed: bool,
}

/// The first user.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SetUp {
    /// The code that multus-control wrote to its log.
    code: String,
    /// The name of the first administrator.
    name: String,
    /// The password, at least 10 characters.
    password: String,
}

pub(crate) fn routes(table: &mut Table) {
    table.add(Get, "/session", "whoami", "Who asks, and the token against forged requests", Access::Open, whoami);
    table.add(Post, "/session", "log-in", "Log in: sets the cookie of a session", Access::Open, log_in);
    table.add(Delete, "/session", "log-out", "Log out: the session ends", Access::Own, log_out);
    table.add(Post, "/session/password", "own-password", "Change one's own password", Access::Own, password);
    table.add(Get, "/setup", "set-up-state", "Whether there is a user yet", Access::Open, set_up_state);
    table.add(Post, "/setup", "set-up", "Make the first user, an administrator", Access::Open, set_up);
}

fn whoami(call: &Call<'_>, (): ()) -> Result<Json<Whoami>, Problem> {
    Ok(Json(match call.visitor {
        Visitor::Session(session) => of_session(session),
        Visitor::Token(caller) => Whoami {
            authenticated: true,
            by: By::Token,
            name: caller.name.clone(),
            level: Some(caller.level),
            read_only: false,
            csrf: String::new(),
        },
        Visitor::Nobody => Whoami {
            authenticated: false,
            by: By::Nothing,
            name: String::new(),
            level: None,
            read_only: true,
            csrf: String::new(),
        },
    }))
}

fn of_session(session: &Session) -> Whoami {
    Whoami {
        authenticated: true,
        by: By::Session,
        name: session.caller.name.clone(),
        level: Some(session.caller.level),
        read_only: session.read_only,
        csrf: session.csrf.clone(),
    }
}

fn log_in(call: &Call<'_>, Json(body): Json<LogIn>) -> Result<WithCookie<Json<Whoami>>, Problem> {
    // The session there was, if any, is not used any more.
    let opened = call.web.auth.log_in(Instant::now(), call.request.peer, &body.name, &body.password)?;
    if let Some(old) = call.visitor.session() {
        call.web.auth.log_out(old);
    }
    Ok(WithCookie(Json(of_session(&opened.session)), call.web.cookie(&opened.id)))
}

fn log_out(call: &Call<'_>, (): ()) -> Result<WithCookie<()>, Problem> {
    call.web.auth.log_out(call.session()?);
    Ok(WithCookie((), call.web.no_cookie()))
}

fn password(call: &Call<'_>, Json(body): Json<NewPassword>) -> Result<(), Problem> {
    let session = call.session()?;
    Ok(call.web.auth.change_password(Instant::now(), call.request.peer, session, &body.old, &body.new)?)
}

fn set_up_state(call: &Call<'_>, (): ()) -> Result<Json<SetUpState>, Problem> {
    Ok(Json(SetUpState { needed: !call.web.auth.is_set_up() }))
}

fn set_up(call: &Call<'_>, Json(body): Json<SetUp>) -> Result<(), Problem> {
    Ok(call.web.auth.set_up(Instant::now(), call.request.peer, &body.code, &body.name, &body.password)?)
}
