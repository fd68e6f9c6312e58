//! From the configuration of a child to what the supervisor and the watch thread need: numbers of a fixed size.

use std::collections::BTreeMap;

use multus_contract::config::{ChildConfig, DaemonConfig, EdgePolicy, Method, SnoozeOutputs};
use multus_ipc::checkpoint::Plan;
use multus_ipc::text::Text;
use multus_ipc::time::duration_ns;
use multus_supervisor::checkpoint::{Checkpoints, Limits};
use multus_supervisor::policy::{MAX_DELAYS, MAX_EDGES};
use multus_supervisor::temperature::Range;
use multus_supervisor::{self as supervisor, Beats, Check, Edge, List, Policy, Settings};

use crate::watch::{MAX_OUTPUTS, Output};

/// The policy of a child's instances. `slots_of` names the slots of another child's instances.
///
/// # Errors
/// In words: more of something than fits.
pub fn policy(child: &ChildConfig, slots_of: impl Fn(&str) -> Vec<usize>) -> Result<Policy, String> {
    let mut after: List<Edge, MAX_EDGES> = List::new();
    for edge in &child.after {
        let on_restart = match edge.on_restart {
            EdgePolicy::Restart => supervisor::EdgePolicy::Restart,
            EdgePolicy::Wait => supervisor::EdgePolicy::Wait,
            EdgePolicy::Ignore => supervisor::EdgePolicy::Ignore,
        };
        for slot in slots_of(&edge.name) {
            let slot = u16::try_from(slot).map_err(|_| "slot numbers have 16 bits".to_owned())?;
            after
                .push(Edge { slot, on_restart })
                .map_err(|_| format!("after: more than {MAX_EDGES} instances, all children in it taken together"))?;
        }
    }
    if child.restart.delays.len() > MAX_DELAYS {
        return Err(format!("restart.delays: more than {MAX_DELAYS}"));
    }
    let time_of = |command: &Option<Vec<String>>, timeout| if command.is_some() { duration_ns(timeout) } else { 0 };
    Ok(Policy {
        enabled: child.enabled,
        beats: match child.heartbeat.method {
            Method::SharedMemory | Method::Notify | Method::ControlPort | Method::File => Some(Beats {
                deadline_ns: duration_ns(child.heartbeat.deadline),
                min_interval_ns: child.heartbeat.min_interval.map_or(0, duration_ns),
                warn_ns: child.heartbeat.warn_after.map_or(0, duration_ns),
            }),
            Method::None => None,
        },
        startup_ns: duration_ns(child.heartbeat.startup),
        delays: child.restart.delays.iter().map(|d| duration_ns(*d)).collect(),
        forget_after_ns: duration_ns(child.restart.forget_after),
        degraded_after: child.restart.degraded_after,
        evidence_budget_ns: duration_ns(child.restart.evidence_budget),
        stop_timeout_ns: duration_ns(child.stop.timeout),
        safe_command_ns: time_of(&child.safe_state.command, child.safe_state.timeout),
        // The stop script of a service: also where no time is left for it, it is begun.
        after_stop_ns: match child.service {
            Some(_) => duration_ns(child.stop.timeout).max(1),
            None => time_of(&child.hooks.after_stop, child.hooks.timeout),
        },
        after_start: child.hooks.after_start.is_some(),
        periodic_ns: child.hooks.periodic.as_ref().map_or(0, |p| duration_ns(p.interval)),
        checkpoints: Checkpoints {
            // The reader of the configuration allows no more than fit.
            sections: u8::try_from(child.supervision.len()).unwrap_or(u8::MAX),
            deadlines: child
                .supervision
                .iter()
                .flat_map(|lane| &lane.deadlines)
                .map(|d| Limits { min_ns: duration_ns(d.min), max_ns: d.max.map_or(0, duration_ns) })
                .collect(),
        },
        check: child.check.as_ref().map(|c| Check {
            interval_ns: duration_ns(c.interval),
            start_period_ns: duration_ns(c.start_period),
            failures: c.failures,
        }),
        keep_outputs_while_snoozed: child.safe_state.while_snoozed == SnoozeOutputs::Keep,
        after,
    })
}

/// The checkpoints of a child as they lie in its page. Deadlines come in the order in which [`policy`] has them.
pub fn checkpoints(child: &ChildConfig) -> Plan {
    let mut plan = Plan::default();
    for lane in &child.supervision {
        let Some(section) = plan.section(&lane.lane) else { break };
        let numbers: BTreeMap<&str, usize> =
            lane.checkpoints.iter().filter_map(|name| Some((name.as_str(), plan.checkpoint(section, name)?))).collect();
        let number = |name: &String| numbers.get(name.as_str()).copied();
        if !lane.start.is_empty() {
            for (name, checkpoint) in &numbers {
                let followers = lane.next.get(*name).into_iter().flatten().filter_map(number).collect::<Vec<_>>();
                plan.order(*checkpoint, &followers, lane.start.iter().any(|start| start == name));
            }
        }
        for deadline in &lane.deadlines {
            if let (Some(from), Some(to)) = (number(&deadline.from), number(&deadline.to)) {
                plan.deadline(from, to, duration_ns(deadline.min), deadline.max.map_or(0, duration_ns));
            }
        }
    }
    plan
}

/// The outputs of a child.
///
/// # Errors
/// In words: more than fit, or a name that is too long.
pub fn outputs(child: &ChildConfig) -> Result<List<Output, MAX_OUTPUTS>, String> {
    let mut list = List::new();
    for (name, value) in &child.safe_state.outputs {
        if name.len() > 32 {
            return Err(format!("safe_state.outputs: the name {name:?} has more than 32 bytes"));
        }
        list.push(Output { name: Text::new(name), value: value.0 })
            .map_err(|_| format!("safe_state.outputs: more than {MAX_OUTPUTS} outputs"))?;
    }
    Ok(list)
}

/// What holds for all children.
pub fn settings(config: &DaemonConfig) -> Settings {
    let milli = |c: f64| (c * 1000.0).clamp(f64::from(i32::MIN), f64::from(i32::MAX)) as i32;
    let t = &config.temperature;
    Settings {
        simultaneous: config.starts.simultaneous,
        jitter_percent: config.starts.jitter_percent,
        temperature: t.enabled.then(|| Range {
            min: milli(t.min_c),
            max: milli(t.max_c),
            hysteresis: milli(t.hysteresis_c),
        }),
        ..Settings::default()
    }
}
