//! Which child instance is in which slot, and what has to be told to whom when the configuration changes.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use multus_contract::api::command::ReloadReport;
use multus_contract::config::{self, ChildConfig, Config, Diagnostic, HardwareConfig, Loaded, Severity, hardware};
use multus_contract::dirs::Dirs;
use multus_hardware::gpio::{Pins, SharedOutputs};
use multus_ipc::io_child::{ENV_MOST_PRIORITY, ENV_OUTPUTS};
use multus_ipc::text::Name;
use multus_supervisor::Command;

use crate::adapters::Source;
use crate::launcher::plan::{Feed, IoRole};
use crate::launcher::{Group, Hierarchy, SlotSetup, plan};
use crate::policy;
use crate::watch::Ask;
use crate::{adapters, logroom};

/// Where the consequences go. The real one waits for room in the rings.
pub(super) trait Outlet {
    /// To the watch thread.
    fn ask(&mut self, ask: Ask);
    /// To the launcher.
    fn set_up(&mut self, setup: SlotSetup);
    /// To the adapters thread.
    fn feed(&mut self, setup: adapters::Setup);
    /// To the guard of the outputs.
    fn guard(&mut self, lines: Option<Box<HardwareConfig>>);
}

/// One child instance.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) slot: usize,
    pub(super) child: String,
    number: u16,
    pipes: Arc<[OwnedFd; 2]>,
    output: Arc<[OwnedFd; 2]>,
    groups: Arc<(Group, Group)>,
    /// Memory and process limits of the cgroup; `None` before it is made.
    limits: Option<(Option<u64>, Option<u64>)>,
    join: Vec<PathBuf>,
    parameters: u64,
    told: Option<(multus_supervisor::Policy, ChildConfig)>,
    /// What the program says of itself (`STATUS=`).
    pub(super) text: String,
    /// Where the adapters thread learns of its beats.
    feed: Option<Feed>,
    role: IoRole,
}

/// All child instances.
#[derive(Debug)]
pub(super) struct Roster {
    dirs: Dirs,
    hierarchy: Hierarchy,
    log: Arc<logroom::Shared>,
    pub(super) config: Config,
    pub(super) instances: BTreeMap<String, Instance>,
    free: BTreeSet<usize>,
    leaving: BTreeMap<usize, String>,
    /// A name came back before its old process was gone: the configuration is applied again then.
    deferred: bool,
    /// Children whose configuration could not be applied, and why.
    refused: Vec<(ChildConfig, String)>,
    /// Control ports that are open. One that passes from one instance to another stays open meanwhile.
    ports: BTreeMap<u16, TcpListener>,
}

impl Roster {
    pub(super) fn new(dirs: Dirs, hierarchy: Hierarchy, log: Arc<logroom::Shared>, slots: usize) -> Self {
        Self {
            dirs,
            hierarchy,
            log,
            config: Config::default(),
            instances: BTreeMap::new(),
            free: (0..slots).collect(),
            leaving: BTreeMap::new(),
            deferred: false,
            refused: Vec::new(),
            ports: BTreeMap::new(),
        }
    }

    /// Instances that a person means by `name`: one instance, or all of a child.
    pub(super) fn find(&self, name: &str) -> Vec<(&str, &Instance)> {
        let named = self.instances.iter().map(|(n, i)| (n.as_str(), i));
        match self.instances.get_key_value(name) {
            Some((n, i)) => vec![(n.as_str(), i)],
            None => named.filter(|(_, i)| i.child == name).collect(),
        }
    }

    /// What an instance has to do with inputs and outputs.
    fn role(&self, name: &str) -> IoRole {
        match &self.config.hardware {
            None => IoRole::None,
            Some(_) if self.config.scanner() == Some(name) => IoRole::Scans,
            Some(hardware) if hardware.owners().any(|owner| owner == name) => IoRole::Owns,
            Some(_) => IoRole::Reads,
        }
    }

    /// Tells who concerns himself with outputs of the lines, before anybody is told of children.
    fn tell_lines(&self, before: Option<&HardwareConfig>, out: &mut impl Outlet) {
        let hardware = self.config.hardware.as_ref();
        if hardware != before {
            out.guard(hardware.cloned().map(Box::new));
        }
        let scanner = self.config.scanner().and_then(|name| self.instances.get(name)).map(|instance| instance.slot);
        let ack_ns = multus_ipc::time::duration_ns(self.config.daemon.io.ack);
        out.ask(Ask::Lines(hardware.map(|_| (scanner, ack_ns))));
    }

    pub(super) fn child_of(&self, instance: &Instance) -> Option<&ChildConfig> {
        self.config.children.iter().find(|c| c.name == instance.child)
    }

    /// What a program says of itself.
    pub(super) fn say(&mut self, slot: usize, text: String) {
        if let Some(instance) = self.instances.values_mut().find(|i| i.slot == slot) {
            instance.text = text;
        }
    }

    /// A slot is free again. True when the configuration should be applied once more.
    pub(super) fn removed(&mut self, slot: usize) -> bool {
        self.leaving.remove(&slot);
        self.log.remove(slot);
        self.free.insert(slot);
        std::mem::take(&mut self.deferred)
    }

    /// Reads the configuration and applies what is good. Errors in `multusd.toml` leave everything as it is.
    pub(super) fn reload(&mut self, out: &mut impl Outlet) -> ReloadReport {
        let mut loaded = config::load(&self.dirs.config);
        if loaded.hardware_is_broken {
            loaded.config.hardware.clone_from(&self.config.hardware);
        }
        let mut report = ReloadReport {
            diagnostics: loaded.diagnostics.iter().map(Diagnostic::to_string).collect(),
            broken: loaded.broken.iter().cloned().collect(),
            ..ReloadReport::default()
        };
        if loaded.daemon_is_broken() {
            report.broken.insert(0, "multusd.toml".into());
            return report;
        }
        keep_lines(&loaded, &self.dirs);
        self.apply(loaded.config, &loaded.broken, &mut report, out);
        let count = |n: usize| n as u64;
        out.ask(Ask::Reloaded {
            changed: count(report.added.len() + report.changed.len()),
            removed: count(report.removed.len()),
            refused: count(report.broken.len()),
        });
        for finding in &loaded.diagnostics {
            match finding.severity {
                Severity::Error => log::error!("{finding}"),
                _ => log::warn!("{finding}"),
            }
        }
        report
    }

    /// Brings slots in line with `new`; children in `broken` stay as they are.
    pub(super) fn apply(
        &mut self,
        mut new: Config,
        broken: &BTreeSet<String>,
        report: &mut ReloadReport,
        out: &mut impl Outlet,
    ) {
        let kept = self.config.children.iter().filter(|c| broken.contains(&c.name)).cloned();
        new.children.extend(kept.collect::<Vec<_>>());
        let before = std::mem::replace(&mut self.config, new);
        let gone = self.retire(report, out);
        out.ask(Ask::Settings(policy::settings(&self.config.daemon)));
        // Every instance has its slot before the first edge is drawn.
        let children = dependencies_first(&self.config.children);
        for child in &children {
            for number in 0..child.instances {
                self.admit(child, number, report);
            }
        }
        self.tell_lines(before.hardware.as_ref(), out);
        self.refused.clear();
        for child in &children {
            let old = before.children.iter().find(|c| c.name == child.name);
            if let Err(reason) = self.tell(child, out) {
                log::error!("{}: {reason}", child.name);
                report.diagnostics.push(format!("{}: {reason}", child.file.display()));
                report.broken.push(child.name.clone());
                self.config.children.retain(|c| c.name != child.name);
                self.config.children.extend(old.cloned());
                self.refused.push((child.clone(), reason));
            } else if old.is_none() {
                report.added.push(child.name.clone());
            } else if old != Some(child) {
                report.changed.push(child.name.clone());
            }
        }
        // Last: whoever needed one of them knows by now what it needs instead.
        for slot in gone {
            out.ask(Ask::Command { slot, command: Command::Remove });
        }
        let used: BTreeSet<u16> = self.instances.values().filter_map(Instance::port).collect();
        self.ports.retain(|port, _| used.contains(port));
    }

    /// Tries again what could not be applied: a port that was in use may be free by now.
    pub(super) fn retry_refused(&mut self, out: &mut impl Outlet) {
        for (child, _) in std::mem::take(&mut self.refused) {
            match self.tell(&child, out) {
                Ok(()) => {
                    log::info!("{}: its configuration is applied now", child.name);
                    self.config.children.retain(|known| known.name != child.name);
                    self.config.children.push(child);
                }
                Err(reason) => self.refused.push((child, reason)),
            }
        }
    }

    /// What everybody should know who looks at the status.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> + '_ {
        self.refused.iter().map(|(child, reason)| format!("{} is not as configured: {reason}; tried again", child.name))
    }

    /// Takes out the instances that are no longer configured. Their slots, which are to be removed.
    fn retire(&mut self, report: &mut ReloadReport, out: &mut impl Outlet) -> Vec<usize> {
        let mut slots = Vec::new();
        let wanted: BTreeSet<String> = self.config.children.iter().flat_map(ChildConfig::instance_names).collect();
        let gone: Vec<String> = self.instances.keys().filter(|name| !wanted.contains(*name)).cloned().collect();
        for name in gone {
            if let Some(instance) = self.instances.remove(&name) {
                report.removed.push(name.clone());
                if instance.port().is_some() {
                    // The next one on this port may come before the last process of this one is gone.
                    out.feed(adapters::Setup::Drop { slot: instance.slot });
                }
                if instance.told.is_none() {
                    // Nobody has heard of it: its configuration could not be applied.
                    self.free.insert(instance.slot);
                    continue;
                }
                slots.push(instance.slot);
                self.leaving.insert(instance.slot, name);
            }
        }
        slots
    }

    /// Gives an instance its slot, pipes and cgroup.
    fn admit(&mut self, child: &ChildConfig, number: u16, report: &mut ReloadReport) {
        let name = child.instance_name(number);
        if self.instances.contains_key(&name) {
            return;
        }
        if self.leaving.values().any(|leaving| *leaving == name) {
            self.deferred = true;
            return;
        }
        let refuse = |report: &mut ReloadReport, reason: String| {
            log::error!("{name}: {reason}");
            report.diagnostics.push(format!("{}: {reason}", child.file.display()));
            report.broken.push(name.clone());
        };
        let Some(slot) = self.free.pop_first() else {
            refuse(report, "no room left in the table; raise max_children in multusd.toml and restart multusd".into());
            return;
        };
        match pipes() {
            Ok((pipes, output)) => {
                let groups = Arc::new((Group::default(), Group::default()));
                let child = child.name.clone();
                let instance = Instance {
                    slot,
                    child,
                    number,
                    pipes,
                    output,
                    groups,
                    limits: None,
                    join: Vec::new(),
                    parameters: 0,
                    told: None,
                    text: String::new(),
                    feed: None,
                    role: IoRole::None,
                };
                self.instances.insert(name, instance);
            }
            Err(error) => {
                self.free.insert(slot);
                refuse(report, format!("no pipes for its output: {error}; raise the limit of open files"));
            }
        }
    }

    /// Tells everybody about a child whose configuration, parameters or neighbours changed.
    fn tell(&mut self, child: &ChildConfig, out: &mut impl Outlet) -> Result<(), String> {
        let slots_of = |name: &str| -> Vec<usize> {
            self.instances.values().filter(|i| i.child == name).map(|i| i.slot).collect()
        };
        let policy = policy::policy(child, slots_of)?;
        let outputs = policy::outputs(child)?;
        // What can fail comes before anybody is told anything.
        let mut sources: BTreeMap<u16, Source> = BTreeMap::new();
        for number in 0..child.instances {
            let name = child.instance_name(number);
            let wanted = plan::feed(child, number, &self.dirs);
            let is_fed = self.instances.get(&name).is_none_or(|i| i.feed == wanted);
            if let Some(feed) = wanted.filter(|_| !is_fed) {
                sources.insert(number, self.source(&feed)?);
            }
        }
        for number in 0..child.instances {
            let name = child.instance_name(number);
            let role = self.role(&name);
            // A file with an error is no reason to start multus-io anew: what is meant by it is, as far as it is good.
            let hardware = self.config.hardware.as_ref().filter(|_| role == IoRole::Scans);
            let parameters = fingerprint(&self.dirs, &name, hardware);
            let Some(instance) = self.instances.get_mut(&name) else { continue };
            // Who may look at lines now and could not before learns of it at the next start.
            let is_same_role = instance.role == role
                || ![instance.role, role].iter().any(|role| matches!(role, IoRole::Owns | IoRole::Scans));
            let same_parameters = instance.parameters == parameters && is_same_role;
            let same_plan = same_parameters && instance.role == role;
            (instance.parameters, instance.role) = (parameters, role);
            if instance.told.as_ref().is_some_and(|(p, c)| *p == policy && c == child) && same_plan {
                continue;
            }
            let restart = instance.told.as_ref().is_some_and(|(_, old)| needs_restart(old, child)) || !same_parameters;
            let new = instance.told.is_none();
            instance.number = number;
            instance.told = Some((policy, child.clone()));
            let mut slot_plan = plan::plan(child, number, &self.dirs, self.hierarchy.limits(), role);
            if instance.limits != Some(slot_plan.cgroup_limits) {
                instance.limits = Some(slot_plan.cgroup_limits);
                let (main, join) = self.hierarchy.group(&name, slot_plan.cgroup_limits);
                let (jobs, _) = self.hierarchy.group(&format!("{name}:job"), (None, None));
                instance.groups = Arc::new((main, jobs));
                instance.join = join;
            }
            plan::with_joins(&mut slot_plan, instance.join.clone());
            if let Some(hardware) = self.config.hardware.as_ref().filter(|_| role == IoRole::Scans) {
                plan::with_variable(&mut slot_plan, ENV_OUTPUTS, &SharedOutputs::text_of(&Pins::of(hardware)));
                let most = self.config.daemon.realtime.priority.saturating_sub(1);
                plan::with_variable(&mut slot_plan, ENV_MOST_PRIORITY, &most.to_string());
            }
            if instance.feed != slot_plan.feed {
                instance.feed.clone_from(&slot_plan.feed);
                out.feed(match sources.remove(&number) {
                    Some(source) => adapters::Setup::Feed { slot: instance.slot, name: name.clone(), source },
                    None => adapters::Setup::Drop { slot: instance.slot },
                });
            }
            self.log.add(instance.slot, &name, child.log, Arc::clone(&instance.pipes));
            out.set_up(SlotSetup {
                slot: instance.slot,
                plan: slot_plan,
                groups: Arc::clone(&instance.groups),
                output: Arc::clone(&instance.output),
            });
            out.ask(Ask::Configure {
                slot: instance.slot,
                name: Name::new(&name),
                instance: u32::from(number),
                policy,
                outputs,
                restart: restart && !new,
            });
            let recovery_ns = child.critical.map_or(0, multus_ipc::time::duration_ns);
            out.ask(Ask::Critical { slot: instance.slot, recovery_ns });
        }
        Ok(())
    }
}

impl Roster {
    /// Opens what tells of a child's beats.
    fn source(&mut self, feed: &Feed) -> Result<Source, String> {
        match feed {
            Feed::Notify(address) => {
                let socket = adapters::notify::socket(address).map_err(|e| format!("notify socket {address}: {e}"))?;
                Ok(Source::Notify(socket))
            }
            Feed::ControlPort(port) => {
                let refused = |error: io::Error| match error.kind() {
                    io::ErrorKind::AddrInUse => {
                        format!("heartbeat.port: port {port} of localhost is in use by another program")
                    }
                    _ => format!("heartbeat.port: port {port} of localhost cannot be opened: {error}"),
                };
                let listener = match self.ports.entry(*port) {
                    Entry::Occupied(open) => open.into_mut(),
                    Entry::Vacant(place) => place.insert(adapters::control_port::listen(*port).map_err(refused)?),
                };
                Ok(Source::ControlPort(listener.try_clone().map_err(refused)?))
            }
            Feed::File(path, often) => Ok(Source::File(path.clone(), *often)),
        }
    }
}

impl Instance {
    /// Its control port.
    fn port(&self) -> Option<u16> {
        match self.feed {
            Some(Feed::ControlPort(port)) => Some(port),
            _ => None,
        }
    }
}

/// Whether a running process has to be started anew for a change to hold. What only concerns the supervision holds at
/// once.
fn needs_restart(old: &ChildConfig, new: &ChildConfig) -> bool {
    let mut same = old.clone();
    same.description.clone_from(&new.description);
    same.enabled = new.enabled;
    same.instances = new.instances;
    same.restart = new.restart.clone();
    same.stop = new.stop;
    same.check.clone_from(&new.check);
    same.hooks = new.hooks.clone();
    same.safe_state = new.safe_state.clone();
    same.log = new.log;
    same.critical = new.critical;
    same.after.clone_from(&new.after);
    same.file.clone_from(&new.file);
    same != *new
}

/// What the child's own parameter file holds now, and for multus-io the lines, in one number; 0 without either.
fn fingerprint(dirs: &Dirs, name: &str, hardware: Option<&HardwareConfig>) -> u64 {
    let file = std::fs::read(dirs.parameter_file(name)).ok();
    if file.is_none() && hardware.is_none() {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    file.hash(&mut hasher);
    format!("{hardware:?}").hash(&mut hasher);
    hasher.finish().max(1)
}

type Pipes = (Arc<[OwnedFd; 2]>, Arc<[OwnedFd; 2]>);

/// Read ends and write ends for standard output and standard error. Only the read ends do not block.
/// Every child after those that it needs: the watch thread starts whom it knows, and waits for nobody that it does not know yet.
fn dependencies_first(children: &[ChildConfig]) -> Vec<ChildConfig> {
    let mut left: Vec<&ChildConfig> = children.iter().collect();
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let is_left = |name: &str| left.iter().any(|child| child.name == name);
        let is_free = |child: &&ChildConfig| !child.after.iter().any(|edge| is_left(&edge.name));
        // Circles were refused when they were read.
        let next = left.iter().position(is_free).unwrap_or(0);
        ordered.push(left.remove(next).clone());
    }
    ordered
}

/// What is taken over of the lines is kept, for a start with a file that is broken by then.
pub(crate) fn keep_lines(loaded: &Loaded, dirs: &Dirs) {
    if !loaded.hardware_is_broken
        && let Err(error) = hardware::keep(&dirs.state, loaded.hardware_text.as_deref())
    {
        log::error!("the lines are not kept for the next start: {error}");
    }
}

fn pipes() -> io::Result<Pipes> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let make = || -> io::Result<(OwnedFd, OwnedFd)> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok((read, write))
    };
    let (out, err) = (make()?, make()?);
    Ok((Arc::new([out.0, err.0]), Arc::new([out.1, err.1])))
}
