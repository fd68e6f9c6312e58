//! Inputs and outputs: what they hold, and orders to them.

use multus_contract::api::io::{IoLine, IoStatus};
use schemars::JsonSchema;
use serde::Deserialize;

use super::super::problem::Problem;
use super::super::request::Method::{Get, Post};
use super::table::{Access, Call, Json, Table};
use crate::service::{Caller, LineOrder};

/// Which value.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// 0 or 1, or a number within the range of the output, in its unit.
    value: f64,
}

pub(crate) fn routes(table: &mut Table) {
    let user = Access::Level(Caller::USER);
    let of = |order: LineOrder| Access::Level(order.level());
    table.add(Get, "/io", "io", "All inputs and outputs, and how multus-io does", user, status);
    table.add(Get, "/io/{name}", "line", "One input or output", user, line);
    let summary = "Ask for a value of an output that no child owns; drive an input of a simulated board";
    table.add(
        Post,
        "/io/{name}/set",
        "set-line",
        summary,
        of(LineOrder::Set(0.0)),
        |call, Json(body): Json<Wanted>| give(call, LineOrder::Set(body.value)),
    );
    let summary = "Hold an output at a value, whatever its owner asks for, until it is released";
    let access = of(LineOrder::Force(0.0));
    table.add(Post, "/io/{name}/force", "force-line", summary, access, |call, Json(body): Json<Wanted>| {
        give(call, LineOrder::Force(body.value))
    });
    let summary = "Hold an output no longer";
    table.add(Post, "/io/{name}/release", "release-line", summary, of(LineOrder::Release), |call, (): ()| {
        give(call, LineOrder::Release)
    });
}

fn status(call: &Call<'_>, (): ()) -> Result<Json<IoStatus>, Problem> {
    Ok(Json(call.web.service.lines(call.caller()?)?))
}

fn line(call: &Call<'_>, (): ()) -> Result<Json<IoLine>, Problem> {
    Ok(Json(call.web.service.line(call.caller()?, call.part(0))?))
}

fn give(call: &Call<'_>, order: LineOrder) -> Result<(), Problem> {
    Ok(call.web.service.line_order(call.caller()?, call.part(0), order)?)
}
