//! `multusctl reboot`: starts the machine anew, once all children are stopped in order.

use std::time::Duration;

use multus_contract::api::command::Request;
use multus_contract::config::format_duration;

use super::Context;
use super::children::whole_seconds;
use super::output::{Failure, print};

/// In so long, or no longer.
pub(crate) fn reboot(context: &Context, ahead: Duration, cancel: bool) -> Result<(), Failure> {
    let seconds = whole_seconds(ahead);
    let (request, said) = match (cancel, seconds) {
        (true, _) => (Request::RebootCancel, "the machine is not started anew".to_owned()),
        (_, 0) => (Request::Reboot { seconds }, "stopping all children, then the machine is started anew".to_owned()),
        (_, seconds) => {
            let ahead = format_duration(Duration::from_secs(seconds));
            let said = format!("the machine is started anew in {ahead}; \"multusctl reboot --cancel\" takes it back");
            (Request::Reboot { seconds }, said)
        }
    };
    context.client()?.request(&request)?;
    print(|out| writeln!(out, "{said}"))
}
