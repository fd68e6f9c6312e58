//! The daemon and the machine as a whole.

use multus_contract::api::status::Status;
use schemars::JsonSchema;
use serde::Deserialize;

use super::super::problem::Problem;
use super::super::request::Method::{Delete, Get, Post};
use super::table::{Access, Call, Json, Table};
use crate::service::{Caller, Information, ReloadReport};

/// When.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Reboot {
    /// Seconds from now, a day at most.
    #[serde(default)]
    #[schemars(range(max = 86400))]
    seconds: u64,
}

pub(crate) fn routes(table: &mut Table) {
    let (user, admin) = (Access::Level(Caller::USER), Access::Level(Caller::ADMIN));
    table.add(Get, "/information", "information", "Versions, and the daemon", user, information);
    table.add(Get, "/status", "status", "What the daemon and every child are doing", user, status);
    table.add(Post, "/reload", "reload", "Let the daemon read its configuration again", admin, reload);
    table.add(Post, "/reboot", "reboot", "Stop all children in order and start the machine anew", admin, reboot);
    table.add(Delete, "/reboot", "cancel-reboot", "Call a reboot off", admin, cancel_reboot);
}

fn information(call: &Call<'_>, (): ()) -> Result<Json<Information>, Problem> {
    Ok(Json(call.web.service.information(call.caller()?)?))
}

fn status(call: &Call<'_>, (): ()) -> Result<Json<Status>, Problem> {
    Ok(Json(call.web.service.status(call.caller()?)?.status.clone()))
}

fn reload(call: &Call<'_>, (): ()) -> Result<Json<ReloadReport>, Problem> {
    Ok(Json(call.web.service.reload(call.caller()?)?))
}

fn reboot(call: &Call<'_>, Json(body): Json<Reboot>) -> Result<(), Problem> {
    Ok(call.web.service.reboot(call.caller()?, body.seconds)?)
}

fn cancel_reboot(call: &Call<'_>, (): ()) -> Result<(), Problem> {
    Ok(call.web.service.cancel_reboot(call.caller()?)?)
}
