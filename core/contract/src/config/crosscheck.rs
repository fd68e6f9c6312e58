//! What no single file can tell: names that collide, circles in `after`, outputs claimed twice, programs that are missing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::child::{ChildConfig, MOST_AFTER, Probe};
use super::diagnose::nearest;
use super::files::ReadChild;
use super::hardware::HARDWARE_FILE;
use super::program::find_program;
use super::source::Positions;
use super::units::quote;
use super::{Config, Diagnostic, Loaded, Severity, watchdog};

/// Looks for every program that a child names. A missing one does not break the child: it may be there later.
pub(crate) fn programs(children: &[ReadChild], loaded: &mut Loaded) {
    for ReadChild { config, positions } in children {
        let severity = if config.enabled { Severity::Unmet } else { Severity::Warning };
        let mut reported = BTreeSet::new();
        for (key, program) in commands(config) {
            if let Err(error) = find_program(program)
                && reported.insert(program)
            {
                let finding = positions.finding(severity, Some(&config.name), key, error.to_string());
                loaded.diagnostics.push(finding);
            }
        }
    }
}

/// Compares the children with each other; those with an error leave `children`.
pub(crate) fn relations(children: &mut Vec<ReadChild>, loaded: &mut Loaded) {
    let known: BTreeSet<String> =
        children.iter().map(|child| child.config.name.clone()).chain(loaded.broken.iter().cloned()).collect();
    let mut findings = Vec::new();
    findings.extend(colliding_names(children));
    findings.extend(unknown_in_after(children, &known));
    findings.extend(too_many_in_after(children));
    findings.extend(circles(children));
    findings.extend(outputs_claimed_twice(children));
    findings.extend(heartbeats_claimed_twice(children));
    findings.extend(priorities_above_the_watch_loop(children, loaded));
    for finding in findings {
        if let (Severity::Error, Some(child)) = (finding.severity, &finding.child) {
            loaded.broken.insert(child.clone());
        }
        loaded.diagnostics.push(finding);
    }
    children.retain(|child| !loaded.broken.contains(&child.config.name));
    // Findings of one file stand together; those about the daemon's own file come first.
    loaded.diagnostics.sort_by(|a, b| (&a.child, a.line, a.column).cmp(&(&b.child, b.line, b.column)));
}

/// Compares the daemon's own configuration with what the children need.
pub(crate) fn daemon(positions: &Positions, loaded: &mut Loaded) {
    let needed: usize = loaded.config.children.iter().map(|child| usize::from(child.instances)).sum();
    if let Some(room) = loaded.config.daemon.max_children
        && needed > usize::from(room)
    {
        let message = format!("room for {room} instances, but {needed} are configured");
        loaded.diagnostics.insert(0, positions.finding(Severity::Error, None, "max_children", message));
    }
}

/// Compares the lines of a watchdog chip with those of `hardware.toml`.
pub(crate) fn watchdogs(positions: &Positions, loaded: &mut Loaded) {
    if let Some(hardware) = &loaded.config.hardware {
        let findings = watchdog::compare(&loaded.config.daemon.watchdogs, hardware, positions);
        loaded.diagnostics.splice(0..0, findings);
    }
}

fn colliding_names(children: &[ReadChild]) -> Vec<Diagnostic> {
    let mut owners: BTreeMap<String, &str> = BTreeMap::new();
    let mut findings = Vec::new();
    // Children with one instance come first, so that the one that makes up names is told to choose another.
    let (single, several): (Vec<_>, Vec<_>) = children.iter().partition(|child| child.config.instances == 1);
    for child in single.into_iter().chain(several) {
        let clash =
            child.config.instance_names().find_map(|name| owners.get_key_value(&name).map(|(n, o)| (n.clone(), *o)));
        if let Some((name, owner)) = clash {
            let message = format!("instance {} has the same name as one of the child {}", quote(&name), quote(owner));
            findings.push(child.positions.finding(Severity::Error, Some(&child.config.name), "instances", message));
        } else {
            owners.extend(child.config.instance_names().map(|name| (name, child.config.name.as_str())));
        }
    }
    findings
}

fn unknown_in_after(children: &[ReadChild], known: &BTreeSet<String>) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    for child in children {
        for edge in child.config.after.iter().filter(|edge| !known.contains(&edge.name)) {
            let message = format!("no child {} is configured", quote(&edge.name));
            let mut finding = child.positions.finding(Severity::Error, Some(&child.config.name), "after", message);
            let others = known.iter().map(String::as_str).filter(|name| *name != child.config.name);
            finding.nearest = nearest(&edge.name, others).map(str::to_owned);
            findings.push(finding);
        }
    }
    findings
}

fn too_many_in_after(children: &[ReadChild]) -> Vec<Diagnostic> {
    let instances: BTreeMap<&str, usize> =
        children.iter().map(|child| (child.config.name.as_str(), usize::from(child.config.instances))).collect();
    let needed = |child: &ChildConfig| -> usize {
        child.after.iter().map(|edge| instances.get(edge.name.as_str()).copied().unwrap_or(1)).sum()
    };
    let too_many = children.iter().filter(|child| needed(&child.config) > MOST_AFTER);
    too_many
        .map(|child| {
            let message =
                format!("waits for {} instances in all, at most {MOST_AFTER} are possible", needed(&child.config));
            child.positions.finding(Severity::Error, Some(&child.config.name), "after", message)
        })
        .collect()
}

/// One finding for each child on a circle; the circle is named once, from its first child on.
fn circles(children: &[ReadChild]) -> Vec<Diagnostic> {
    let edges: BTreeMap<&str, Vec<&str>> = children
        .iter()
        .map(|child| {
            let name = child.config.name.as_str();
            (name, child.config.after.iter().map(|edge| edge.name.as_str()).filter(|after| *after != name).collect())
        })
        .collect();
    let mut on_circle = BTreeSet::new();
    let mut findings = Vec::new();
    for child in children {
        let name = child.config.name.as_str();
        let Some(circle) = path_back(name, &edges) else { continue };
        let message =
            if on_circle.insert(name) && circle.iter().skip(1).all(|other| *other == name || on_circle.insert(other)) {
                format!("a circle, so none of them could ever start: {}", circle.join(" after "))
            } else {
                format!("part of a circle: {}", circle.join(" after "))
            };
        findings.push(child.positions.finding(Severity::Error, Some(name), "after", message));
    }
    findings
}

/// The shortest way along `edges` from `start` back to it.
fn path_back<'a>(start: &'a str, edges: &BTreeMap<&'a str, Vec<&'a str>>) -> Option<Vec<&'a str>> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = std::collections::VecDeque::from([start]);
    while let Some(here) = queue.pop_front() {
        for &next in edges.get(here).into_iter().flatten() {
            if next == start {
                let mut path = vec![start, here];
                while let Some(&before) = came_from.get(path[path.len() - 1]) {
                    path.push(before);
                }
                if path[path.len() - 1] != start {
                    path.push(start);
                }
                path.reverse();
                return Some(path);
            }
            if !came_from.contains_key(next) {
                came_from.insert(next, here);
                queue.push_back(next);
            }
        }
    }
    None
}

fn outputs_claimed_twice(children: &[ReadChild]) -> Vec<Diagnostic> {
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    let mut findings = Vec::new();
    for child in children {
        for output in child.config.safe_state.outputs.keys() {
            let owner = *owners.entry(output).or_insert(&child.config.name);
            if owner != child.config.name {
                let message =
                    format!("the child {} already forces this output; one child only can own it", quote(owner));
                let key = format!("safe_state.outputs.{output}");
                findings.push(child.positions.finding(Severity::Error, Some(&child.config.name), &key, message));
            }
        }
    }
    findings
}

/// Lines that nobody drives.
pub(crate) fn no_scanner(config: &Config) -> Option<Diagnostic> {
    let (file, name) = (Path::new(HARDWARE_FILE), &config.daemon.io.child);
    if config.hardware.is_none() || config.scanner().is_some() {
        return None;
    }
    let known = config.children.iter().any(|child| child.name == *name);
    let message = if known {
        format!("the child {} drives the lines (io.child in multusd.toml), and may have one instance only", quote(name))
    } else {
        format!(
            "no child {} is configured: nobody drives the lines, multusd holds the outputs at their safe values; \
             configure one with command = [\"multus-io\"], or name it as io.child in multusd.toml",
            quote(name)
        )
    };
    Some(Diagnostic::of_file(Severity::Warning, None, file, message))
}

/// A control port, a file that is touched, a PID file tells of one instance only.
fn heartbeats_claimed_twice(children: &[ReadChild]) -> Vec<Diagnostic> {
    let mut ports: BTreeMap<u16, String> = BTreeMap::new();
    let mut files: BTreeMap<PathBuf, String> = BTreeMap::new();
    let mut pid_files: BTreeMap<PathBuf, String> = BTreeMap::new();
    let mut findings = Vec::new();
    for ReadChild { config, positions } in children {
        let mut clash = None;
        for n in 0..config.instances {
            let name = config.instance_name(n);
            if let Some(port) = config.control_port(n)
                && let Some(owner) = ports.insert(port, name.clone())
            {
                clash.get_or_insert(("heartbeat.port", format!("port {port} of {}", quote(&name)), owner));
            }
            if let Some(file) = config.beat_file(n)
                && let Some(owner) = files.insert(file, name.clone())
            {
                clash.get_or_insert(("heartbeat.path", format!("the file of {}", quote(&name)), owner));
            }
            if let Some(file) = config.pid_file(n)
                && let Some(owner) = pid_files.insert(file, name.clone())
            {
                clash.get_or_insert(("pid_file", format!("the PID file of {}", quote(&name)), owner));
            }
        }
        if let Some((key, what, owner)) = clash {
            let message = format!("{what} is that of {}, too; each needs its own", quote(&owner));
            findings.push(positions.finding(Severity::Error, Some(&config.name), key, message));
        }
    }
    findings
}

fn priorities_above_the_watch_loop(children: &[ReadChild], loaded: &Loaded) -> Vec<Diagnostic> {
    let realtime = &loaded.config.daemon.realtime;
    let above = |child: &&ReadChild| realtime.enabled && child.config.schedule.priority >= realtime.priority;
    children
        .iter()
        .filter(above)
        .map(|child| {
            let (own, watch) = (child.config.schedule.priority, realtime.priority);
            let message =
                format!("{own} is not below the watch loop's {watch}: a spinning child could hold up the watch");
            child.positions.finding(Severity::Warning, Some(&child.config.name), "schedule.priority", message)
        })
        .collect()
}

/// Every command of a child with the key it stands under.
fn commands(child: &ChildConfig) -> impl Iterator<Item = (&'static str, &str)> {
    let (hooks, service) = (&child.hooks, child.service.as_ref());
    let checked_by = child.check.as_ref().and_then(|check| match &check.probe {
        Probe::Command(command) => Some(command),
        Probe::Tcp(_) | Probe::Http { .. } | Probe::File { .. } => None,
    });
    let all = [
        ("command", Some(&child.command)),
        ("service.start", service.map(|service| &service.start)),
        ("service.stop", service.map(|service| &service.stop)),
        ("service.status", service.map(|service| &service.status)),
        ("safe_state.command", child.safe_state.command.as_ref()),
        ("check.command", checked_by),
        ("hooks.after_start", hooks.after_start.as_ref()),
        ("hooks.after_stop", hooks.after_stop.as_ref()),
        ("hooks.on_daemon_exit", hooks.on_daemon_exit.as_ref()),
        ("hooks.periodic.command", hooks.periodic.as_ref().map(|periodic| &periodic.command)),
    ];
    all.into_iter().filter_map(|(key, command)| Some((key, command?.first()?.as_str())))
}
