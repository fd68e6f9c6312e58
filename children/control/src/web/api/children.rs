//! Children: what they do, and orders to them.

use multus_contract::api::status::ChildStatus;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::problem::Problem;
use super::super::request::Method::{Get, Post, Put};
use super::table::{Access, Call, Json, Table};
use crate::service::{Advice, Caller, Error, Lan, Order, ReloadReport};

/// Child instances.
#[derive(Serialize, JsonSchema)]
struct Children {
    /// Children by name, instances by number.
    children: Vec<ChildStatus>,
}

/// For how long.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Snooze {
    /// Seconds, a day at most; 0 ends it.
    #[schemars(range(max = 86400))]
    seconds: u64,
}

/// How many.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Instances {
    /// Processes that run the child, 1 to 256.
    #[schemars(range(min = 1, max = 256))]
    instances: u16,
}

/// Which deadline suits.
#[derive(Serialize, JsonSchema)]
struct Advices {
    /// One for each lane of each instance.
    lanes: Vec<Advice>,
}

pub(crate) fn routes(table: &mut Table) {
    let user = Access::Level(Caller::USER);
    let (operator, admin) = (Access::Level(Caller::OPERATOR), Access::Level(Caller::ADMIN));
    table.add(Get, "/children", "children", "Every child instance", user, |call, (): ()| {
        Ok(Json(Children { children: call.web.service.children(call.caller()?, None)? }))
    });
    table.add(Get, "/children/{name}", "child", "One instance, or all of a child", user, |call, (): ()| {
        Ok(Json(Children { children: call.web.service.children(call.caller()?, Some(call.part(0)))? }))
    });
    for (path, id, summary, access, order) in [
        ("/children/{name}/start", "start", "Start it; out of back-off at once", operator, Order::Start),
        ("/children/{name}/stop", "stop", "Stop it until it is started again or the daemon is", operator, Order::Stop),
        ("/children/{name}/restart", "restart", "Stop it in order and start it", operator, Order::Restart),
        ("/children/{name}/enable", "enable", "Let it run, now and for good", admin, Order::Enable),
        ("/children/{name}/disable", "disable", "Let it not run, now and for good", admin, Order::Disable),
    ] {
        table.add(Post, path, id, summary, access, move |call, (): ()| give(call, order));
    }
    table.add(
        Post,
        "/children/{name}/snooze",
        "snooze",
        "For some time faults are reported, but nobody is killed",
        operator,
        |call, Json(body): Json<Snooze>| give(call, Order::Snooze(body.seconds)),
    );
    table.add(
        Put,
        "/children/{name}/instances",
        "instances",
        "Change how many processes run a child",
        admin,
        instances,
    );
    table.add(Get, "/children/{name}/lan", "lan", "What a child that runs multus-lan tells of the LAN", user, lan);
    table.add(
        Post,
        "/children/{name}/lan/confirm",
        "confirmLan",
        "Let a change of the LAN that is on trial stand",
        operator,
        |call, (): ()| Ok(call.web.service.confirm_lan(call.caller()?, call.part(0))?),
    );
    table.add(Get, "/children/{name}/advice", "advice", "Which deadline suits a child", user, |call, (): ()| {
        Ok(Json(Advices { lanes: call.web.service.advise(call.caller()?, call.part(0))? }))
    });
}

fn lan(call: &Call<'_>, (): ()) -> Result<Json<Lan>, Problem> {
    let name = call.part(0);
    let lan = call.web.service.lan(call.caller()?, name)?;
    Ok(Json(lan.ok_or_else(|| Error::NotFound(format!("{name} does not set up a LAN, or listens to nobody")))?))
}

fn give(call: &Call<'_>, order: Order) -> Result<(), Problem> {
    Ok(call.web.service.order(call.caller()?, call.part(0), order)?)
}

fn instances(call: &Call<'_>, Json(body): Json<Instances>) -> Result<Json<ReloadReport>, Problem> {
    Ok(Json(call.web.service.set_instances(call.caller()?, call.part(0), body.instances)?))
}
