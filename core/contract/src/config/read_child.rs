//! From the text of a child's file to a [`ChildConfig`], with every finding on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use multus_ipc::checkpoint::{MAX_CHECKPOINTS, MAX_DEADLINES, MAX_SECTIONS};

use super::child::*;
use super::source::{Field, Outcome, Section, Source};
use super::units::{quote, signal_name, signal_names, signal_number};

/// Reads the file of one child; `None` when there is no syntax tree or anything in it is an error.
pub(crate) fn read(
    name: &str,
    text: &str,
    file: &Path,
    shown: &Path,
    defaults: &Defaults,
) -> (Option<ChildConfig>, Outcome) {
    let source = Source::new(Some(name), shown, text);
    let child = source.document().map(|document| {
        let root = Section::root(&source, &document);
        let child = read_root(name, file, &root, defaults);
        root.finish();
        child
    });
    let outcome = source.finish();
    (child.filter(|_| !outcome.has_errors()), outcome)
}

fn read_root(name: &str, file: &Path, root: &Section<'_>, defaults: &Defaults) -> ChildConfig {
    let instances = root.integer("instances", 1..=i64::from(MOST_INSTANCES), 1);
    let (command, service, pid_file) =
        (root.field("command"), service(root.section("service")), root.field("pid_file"));
    match (&command, &service) {
        (None, None) => {
            root.error("command", "missing, expected a program and its arguments such as [\"multus-modbus\"]");
        }
        (Some(command), Some(_)) => command.error("a child has either a command or a [service], not both"),
        _ => {}
    }
    if let (Some(field), Some(_)) = (&pid_file, &service) {
        field.error("a [service] has its status script instead");
    }
    // Neither a program that leaves its start command behind nor a service is likely to know multusd.
    let is_foreign = service.is_some() || pid_file.is_some();
    let mut inherited = defaults.heartbeat.clone();
    if is_foreign {
        inherited.method = Method::None;
    }
    let child = ChildConfig {
        name: name.to_owned(),
        file: file.to_path_buf(),
        description: root.text("description").unwrap_or_default(),
        command: command.and_then(|field| field.command()).unwrap_or_default(),
        pid_file: pid_file.and_then(|field| file_of_instance(&field, instances)),
        service,
        enabled: root.boolean("enabled", true),
        critical: critical(root),
        instances,
        user: root.text("user"),
        group: root.text("group"),
        groups: root.field("groups").map_or_else(Vec::new, |field| list(&field, |f| f.line(64))),
        working_dir: root.field("working_dir").and_then(|field| absolute_path(&field)),
        environment: root.field("environment").map_or_else(BTreeMap::new, |field| environment(&field)),
        umask: root.field("umask").and_then(|field| field.octal(0o777)),
        no_new_privileges: root.boolean("no_new_privileges", true),
        after: root.field("after").map_or_else(Vec::new, |field| after(&field, name)),
        heartbeat: child_heartbeat(root.section("heartbeat"), &inherited, instances),
        supervision: supervision(root),
        restart: restart(root.section("restart"), &defaults.restart, defaults.degraded_after).0,
        stop: stop(root.section("stop"), defaults.stop),
        safe_state: safe_state(root.section("safe_state")),
        schedule: schedule(root.section("schedule")),
        limits: limits(root.section("limits")),
        check: check(root.section("check")),
        hooks: hooks(root.section("hooks")),
        log: log(root.section("log"), defaults.log),
    };
    if !child.supervision.is_empty() && child.heartbeat.method != Method::SharedMemory {
        root.error("supervision", "only a child that beats with the method \"shared-memory\" can pass checkpoints");
    }
    if child.service.is_some() {
        if matches!(child.heartbeat.method, Method::SharedMemory | Method::Notify) {
            root.error("heartbeat.method", "the processes of a [service] are not ours: none, control-port or file");
        }
        if child.hooks.after_stop.is_some() {
            root.error("hooks.after_stop", "a [service] has its stop script instead");
        }
    }
    let longest = child.instance_name(instances.saturating_sub(1));
    if let Some(fault) = name_fault(name).or_else(|| name_fault(&longest)) {
        root.error("", fault);
    }
    child
}

/// `critical` and `recovery`.
fn critical(root: &Section<'_>) -> Option<Duration> {
    let is_critical = root.boolean("critical", false);
    let field = root.field("recovery");
    if let Some(field) = field.as_ref().filter(|_| !is_critical) {
        field.error("only a child with critical = true has this");
    }
    let recovery = field.and_then(|field| field.duration(Duration::from_secs(1)..=DAY));
    is_critical.then(|| recovery.unwrap_or(DEFAULT_RECOVERY))
}

/// Longer than a start with all its delays usually takes.
const DEFAULT_RECOVERY: Duration = Duration::from_secs(60);

/// Bytes in the longest name of a checkpoint: two of them fit into the 64 bytes that a fault has for them.
const LONGEST_CHECKPOINT: usize = 28;

/// `[[supervision]]`: the checkpoints of each lane.
fn supervision(root: &Section<'_>) -> Vec<SupervisionConfig> {
    let Some(field) = root.field("supervision") else { return Vec::new() };
    let mut lanes = BTreeSet::new();
    let sections: Vec<SupervisionConfig> = field
        .elements()
        .unwrap_or_default()
        .iter()
        .filter_map(|element| {
            let lane = supervised_lane(table_of(element, "the checkpoints of a lane")?);
            if !lanes.insert(lane.lane.clone()) {
                element.error(format!("the lane {} has two of these sections, expected one", quote(&lane.lane)));
            }
            Some(lane)
        })
        .collect();
    let checkpoints: usize = sections.iter().map(|s| s.checkpoints.len()).sum();
    let deadlines: usize = sections.iter().map(|s| s.deadlines.len()).sum();
    for (found, most, what) in [
        (checkpoints, MAX_CHECKPOINTS, "checkpoints"),
        (deadlines, MAX_DEADLINES, "deadlines"),
        (sections.len(), MAX_SECTIONS, "lanes"),
    ] {
        if found > most {
            field.error(format!("{found} {what}, at most {most} fit into a heartbeat page"));
        }
    }
    sections
}

fn supervised_lane(section: Section<'_>) -> SupervisionConfig {
    let lane = section.field("lane").and_then(|field| field.line(32)).unwrap_or_default();
    let Some(all) = section.field("checkpoints") else {
        section.error("checkpoints", "missing, expected the names of its checkpoints such as [\"read\", \"write\"]");
        return SupervisionConfig::default();
    };
    let mut checkpoints: Vec<String> = Vec::new();
    for field in all.elements().unwrap_or_default() {
        let Some(name) = field.line(LONGEST_CHECKPOINT) else { continue };
        if name.is_empty() || checkpoints.contains(&name) {
            field.error(format!("the checkpoint {} is empty or there twice", quote(&name)));
        } else {
            checkpoints.push(name);
        }
    }
    let known = |field: &Field<'_>| {
        let name = field.text()?;
        if !checkpoints.contains(&name) {
            field.unknown_word(&name, "one of the checkpoints of this lane", checkpoints.iter().map(String::as_str));
            return None;
        }
        Some(name)
    };
    let start = section.field("start").map_or_else(Vec::new, |field| list(&field, known));
    let order = section.field("next");
    let mut next = BTreeMap::new();
    for (from, field) in order.as_ref().and_then(Field::entries).unwrap_or_default() {
        if !checkpoints.contains(&from) {
            field.unknown_word(&from, "one of the checkpoints of this lane", checkpoints.iter().map(String::as_str));
        }
        next.insert(from, list(&field, known));
    }
    if order.is_some() && start.is_empty() {
        section.error("start", "missing, expected the checkpoints that may be the first");
    }
    if let (None, Some(field)) = (&order, section.field("start")) {
        field.error("without next, which says what may follow what, this means nothing");
    }
    let deadlines = section.field("deadline").map_or_else(Vec::new, |field| {
        list(&field, |element| {
            let section = table_of(element, "from, to, min and max")?;
            let end = |key| match section.field(key) {
                Some(field) => known(&field),
                None => {
                    section.error(key, "missing, expected one of the checkpoints of this lane");
                    None
                }
            };
            let (from, to) = (end("from"), end("to"));
            let min = section.duration("min", Duration::ZERO..=DAY, Duration::ZERO);
            let written = section.field("max");
            let max = written.as_ref().and_then(|field| field.duration(MS..=DAY));
            if let (Some(field), Some(max)) = (&written, max)
                && max <= min
            {
                field.error("not longer than min: every time would be too short or too long");
            }
            if written.is_none() && min.is_zero() {
                section.error("max", "missing, expected min, max or both");
            }
            section.finish();
            Some(CheckpointDeadline { from: from?, to: to?, min, max })
        })
    });
    section.finish();
    SupervisionConfig { lane, checkpoints, start, next, deadlines }
}

fn table_of<'a>(field: &Field<'a>, what: &str) -> Option<Section<'a>> {
    let section = field.as_section();
    if section.is_none() {
        field.error(format!("expected a table with {what}"));
    }
    section
}

/// `[heartbeat]` of a child: what is inherited, and what only a child itself can say.
fn child_heartbeat(section: Section<'_>, default: &HeartbeatConfig, instances: u16) -> HeartbeatConfig {
    let (port, path, socket) = (section.field("port"), section.field("path"), section.field("notify_socket"));
    let config = read_heartbeat(&section, default);
    let missing = |key, what| section.error(key, format!("missing, expected {what}"));
    let useless =
        |field: &Field<'_>, method: Method| field.error(format!("only the method {:?} has it", method.as_str()));
    let port = match (config.method, port) {
        // Instance n uses port + n.
        (Method::ControlPort, Some(field)) => field.integer(1..=i64::from(u16::MAX) + 1 - i64::from(instances)),
        (Method::ControlPort, None) => {
            missing("port", "the port on localhost that it connects to");
            None
        }
        (_, field) => {
            field.inspect(|field| useless(field, Method::ControlPort));
            None
        }
    };
    let path = match (config.method, path) {
        (Method::File, Some(field)) => file_of_instance(&field, instances),
        (Method::File, None) => {
            missing("path", "the file that it touches");
            None
        }
        (_, field) => {
            field.inspect(|field| useless(field, Method::File));
            None
        }
    };
    if let Some(field) = socket.as_ref().filter(|_| config.method != Method::Notify) {
        useless(field, Method::Notify);
    }
    let words = [("path", NotifySocket::Path), ("abstract", NotifySocket::Abstract)];
    let notify_socket = socket.and_then(|field| field.word(&words)).unwrap_or_default();
    section.finish();
    HeartbeatConfig { port, path, notify_socket, ..config }
}

/// `[service]`: all three scripts.
fn service(section: Section<'_>) -> Option<ServiceConfig> {
    let script = |key| {
        let field = section.field(key);
        if section.is_present() && field.is_none() {
            section.error(key, "missing, expected a program and its arguments");
        }
        field.and_then(|field| field.command()).unwrap_or_default()
    };
    let service = ServiceConfig {
        start: script("start"),
        stop: script("stop"),
        status: script("status"),
        interval: section.duration("interval", Duration::from_secs(1)..=DAY, Duration::from_secs(10)),
        timeout: section.duration("timeout", MS..=HOUR, Duration::from_secs(10)),
    };
    let present = section.is_present();
    section.finish();
    present.then_some(service)
}

fn file_of_instance(field: &Field<'_>, instances: u16) -> Option<String> {
    let path = field.line(4095)?;
    if instances > 1 && !path.contains("{instance}") && !path.contains("{name}") {
        field.error("every instance needs a file of its own, expected {instance} or {name} somewhere in the path");
    }
    Some(path)
}

/// `[defaults.heartbeat]`.
pub(crate) fn heartbeat(section: Section<'_>, default: &HeartbeatConfig) -> HeartbeatConfig {
    let config = read_heartbeat(&section, default);
    section.finish();
    config
}

fn read_heartbeat(section: &Section<'_>, default: &HeartbeatConfig) -> HeartbeatConfig {
    let method = section.field("method").and_then(|field| method(&field)).unwrap_or(default.method);
    let deadline = match section.field("deadline") {
        None => default.deadline,
        // A foreign program may say that it is ready and nothing after that.
        Some(field) if method == Method::Notify && field.is_text("none") => NO_DEADLINE,
        Some(field) => field.duration(MS..=DAY).unwrap_or(default.deadline),
    };
    let startup = section.duration("startup", MS..=DAY, default.startup);
    let pace = section.field("min_interval");
    let min_interval = pace.as_ref().map_or(default.min_interval, |field| {
        field.duration(Duration::ZERO..=DAY).filter(|interval| !interval.is_zero())
    });
    if let (Some(field), Some(interval)) = (&pace, min_interval)
        && interval >= deadline
    {
        field.error("not shorter than the deadline: every beat would be too fast or too late");
    }
    let soft = section.field("warn_after");
    let warn_after = soft.as_ref().map_or(default.warn_after, |field| field.duration(MS..=DAY));
    if let (Some(field), Some(after)) = (&soft, warn_after)
        && after >= deadline
    {
        field.error("not shorter than the deadline: the fault would come first");
    }
    HeartbeatConfig { method, deadline, startup, min_interval, warn_after, ..HeartbeatConfig::default() }
}

fn method(field: &Field<'_>) -> Option<Method> {
    let all = [Method::SharedMemory, Method::Notify, Method::ControlPort, Method::File, Method::None];
    field.word(&all.map(|m| (m.as_str(), m)))
}

/// A short list of delays does not make a single failure a pattern.
const LEAST_DEGRADED: u16 = 3;

pub(crate) fn restart(
    section: Section<'_>,
    default: &RestartConfig,
    default_degraded: Option<u16>,
) -> (RestartConfig, Option<u16>) {
    let delays = section.field("delays").and_then(|field| delays(&field)).unwrap_or_else(|| default.delays.clone());
    let forget_after = section.duration("forget_after", Duration::from_secs(1)..=YEAR, default.forget_after);
    let written = section.field("degraded_after").and_then(|field| field.integer(1..=1000)).or(default_degraded);
    // At most 16 delays were accepted above.
    let degraded_after = written.unwrap_or_else(|| u16::try_from(delays.len()).unwrap_or(u16::MAX).max(LEAST_DEGRADED));
    let second = Duration::ZERO..=Duration::from_secs(1);
    let evidence_budget = section.duration("evidence_budget", second, default.evidence_budget);
    section.finish();
    (RestartConfig { delays, forget_after, degraded_after, evidence_budget }, written)
}

fn delays(field: &Field<'_>) -> Option<Vec<Duration>> {
    let elements = field.elements()?;
    if elements.is_empty() || elements.len() > MOST_DELAYS {
        field.error(format!("{} delays, expected 1 to {MOST_DELAYS}; the last one repeats for ever", elements.len()));
        return None;
    }
    Some(elements.iter().filter_map(|element| element.duration(Duration::ZERO..=DAY)).collect())
}

pub(crate) fn stop(section: Section<'_>, default: StopConfig) -> StopConfig {
    let signal = section.field("signal").and_then(|field| signal(&field)).unwrap_or(default.signal);
    let timeout = section.duration("timeout", Duration::ZERO..=HOUR, default.timeout);
    section.finish();
    StopConfig { signal, timeout }
}

fn signal(field: &Field<'_>) -> Option<i32> {
    let word = field.text()?;
    let number = signal_number(&word);
    if number.is_none() {
        let examples = [15, 2, 1].into_iter().filter_map(signal_name).collect::<Vec<_>>().join(", ");
        field.unknown_word(&word, &format!("the signals that ask a process to end: {examples}, ..."), signal_names());
    }
    number
}

pub(crate) fn log(section: Section<'_>, default: ChildLogConfig) -> ChildLogConfig {
    let log = ChildLogConfig {
        max_size: section.size("max_size", FILE_SIZES, default.max_size),
        files: section.integer("files", 1..=100, default.files),
        lines_per_second: section.integer("lines_per_second", 1..=1_000_000, default.lines_per_second),
    };
    section.finish();
    log
}

fn safe_state(section: Section<'_>) -> SafeStateConfig {
    let default = SafeStateConfig::default();
    let outputs = section.field("outputs").and_then(|field| field.entries()).unwrap_or_default();
    let safe_state = SafeStateConfig {
        outputs: outputs.into_iter().filter_map(|(name, field)| output(name, &field)).collect(),
        command: section.command("command"),
        timeout: section.duration("timeout", MS..=HOUR, default.timeout),
        while_snoozed: section.word(
            "while_snoozed",
            &[("force", SnoozeOutputs::Force), ("keep", SnoozeOutputs::Keep)],
            default.while_snoozed,
        ),
    };
    section.finish();
    safe_state
}

fn output(name: String, field: &Field<'_>) -> Option<(String, OutputValue)> {
    if let Some(fault) = name_fault(&name) {
        field.error(fault);
        return None;
    }
    Some((name, OutputValue(field.output()?)))
}

fn schedule(section: Section<'_>) -> ScheduleConfig {
    let words = [Policy::Other, Policy::Batch, Policy::Idle, Policy::Fifo, Policy::RoundRobin].map(|p| (p.as_str(), p));
    let policy = section.word("policy", &words, Policy::Other);
    let written = section.field("priority");
    let priority = written.as_ref().and_then(|field| field.integer(1..=97));
    if let (Some(field), false) = (&written, policy.is_realtime()) {
        field.error(format!(
            "only the policies \"fifo\" and \"rr\" have a priority, this one is {}",
            quote(policy.as_str())
        ));
    }
    let nice = section.field("nice");
    let schedule = ScheduleConfig {
        policy,
        priority: priority.unwrap_or(u8::from(policy.is_realtime())),
        nice: nice.as_ref().and_then(|field| field.integer(-20..=19)).unwrap_or(0),
        cpus: section.field("cpus").map_or_else(Vec::new, |field| cpus(&field)),
    };
    if let (Some(field), true) = (nice, policy.is_realtime()) {
        field.warn("has no effect with a real-time policy");
    }
    section.finish();
    schedule
}

/// A list of processor numbers, each once.
pub(crate) fn cpus(field: &Field<'_>) -> Vec<u16> {
    let mut seen = BTreeSet::new();
    let cpus = list(field, |element| {
        let cpu = element.integer::<u16>(0..=1023)?;
        if !seen.insert(cpu) {
            element.error(format!("processor {cpu} is in the list twice"));
        }
        Some(cpu)
    });
    if cpus.is_empty() && field.elements().is_some_and(|elements| elements.is_empty()) {
        field.error("an empty list, expected processor numbers such as [0, 1]; leave the key out for all");
    }
    cpus
}

fn limits(section: Section<'_>) -> LimitsConfig {
    let count = |key, from| section.field(key).and_then(|field| field.integer(from..=1_000_000_000));
    let limits = LimitsConfig {
        memory: section.field("memory").and_then(|field| field.size(1 << 20..=1 << 50)),
        open_files: count("open_files", 4),
        processes: count("processes", 1),
        core: section.field("core").and_then(|field| field.size(0..=1 << 50)),
    };
    section.finish();
    limits
}

fn check(section: Section<'_>) -> Option<CheckConfig> {
    let check = CheckConfig {
        probe: probe(&section).unwrap_or(Probe::Command(Vec::new())),
        interval: section.duration("interval", Duration::from_millis(100)..=DAY, Duration::from_secs(60)),
        timeout: section.duration("timeout", MS..=HOUR, Duration::from_secs(10)),
        failures: section.integer("failures", 1..=1000, 1),
        start_period: section.duration("start_period", Duration::ZERO..=DAY, Duration::ZERO),
    };
    let present = section.is_present();
    section.finish();
    present.then_some(check)
}

/// Exactly one of the ways to find out.
fn probe(section: &Section<'_>) -> Option<Probe> {
    let ways = ["command", "tcp", "http", "file"].map(|key| (key, section.field(key)));
    let (status, max_age) = (section.field("status"), section.field("max_age"));
    let mut written = ways.into_iter().filter_map(|(key, field)| Some((key, field?)));
    let Some((way, field)) = written.next() else {
        if section.is_present() {
            section.error("command", "missing, expected a command, or one of the keys tcp, http and file");
        }
        return None;
    };
    for (_, more) in written {
        more.error(format!("a second way to check beside {way}, expected one of command, tcp, http and file"));
    }
    if let Some(status) = status.as_ref().filter(|_| way != "http") {
        status.error("only a check by http has a status");
    }
    if let Some(max_age) = max_age.as_ref().filter(|_| way != "file") {
        max_age.error("only a check by file has an age");
    }
    match way {
        "command" => field.command().map(Probe::Command),
        "tcp" => endpoint(&field, &field.line(300)?, None).map(Probe::Tcp),
        "http" => {
            let (server, target) = url(&field)?;
            let status = status.and_then(|field| field.integer(100..=599));
            Some(Probe::Http { server, target, status })
        }
        _ => {
            if max_age.is_none() {
                section.error("max_age", "missing, expected how long ago the file may have changed, such as \"60s\"");
            }
            Some(Probe::File { path: absolute_path(&field)?, max_age: max_age?.duration(MS..=YEAR)? })
        }
    }
}

fn endpoint(field: &Field<'_>, text: &str, default_port: Option<u16>) -> Option<Endpoint> {
    let endpoint = Endpoint::parse(text, default_port);
    if let Err(fault) = &endpoint {
        field.error(format!("{}: {fault}, expected host and port such as \"127.0.0.1:1883\"", quote(text)));
    }
    endpoint.ok()
}

/// Server and target of an address such as `http://127.0.0.1:8080/health`.
fn url(field: &Field<'_>) -> Option<(Endpoint, String)> {
    let text = field.line(2000)?;
    let Some(rest) = text.strip_prefix("http://") else {
        let cure = "expected an address that begins with http://";
        let curl = if text.starts_with("https://") { "; for https use a command such as curl" } else { "" };
        field.error(format!("{}, {cure}{curl}", quote(&text)));
        return None;
    };
    let (server, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let target = target.split('#').next().unwrap_or_default();
    if !target.bytes().all(|b| b.is_ascii_graphic()) {
        field.error("blanks and letters beyond ASCII have to be written as %20 and the like");
        return None;
    }
    let slash = if target.starts_with('/') { "" } else { "/" };
    Some((endpoint(field, server, Some(80))?, format!("{slash}{target}")))
}

fn hooks(section: Section<'_>) -> HooksConfig {
    let hooks = HooksConfig {
        after_start: section.command("after_start"),
        after_stop: section.command("after_stop"),
        on_daemon_exit: section.command("on_daemon_exit"),
        periodic: periodic(section.section("periodic")),
        timeout: section.duration("timeout", MS..=HOUR, HooksConfig::default().timeout),
    };
    section.finish();
    hooks
}

fn periodic(section: Section<'_>) -> Option<PeriodicConfig> {
    let command = required_command(&section);
    let interval = section.field("interval");
    if section.is_present() && interval.is_none() {
        section.error("interval", "missing, expected how often the command runs, such as \"1h\"");
    }
    let interval = interval.and_then(|field| field.duration(Duration::from_millis(100)..=YEAR));
    let present = section.is_present();
    section.finish();
    present.then(|| PeriodicConfig { command: command.unwrap_or_default(), interval: interval.unwrap_or(HOUR) })
}

fn required_command(section: &Section<'_>) -> Option<Vec<String>> {
    let field = section.field("command");
    if section.is_present() && field.is_none() {
        section.error("command", "missing, expected a program and its arguments");
    }
    field?.command()
}

fn after(field: &Field<'_>, own_name: &str) -> Vec<After> {
    let mut seen = BTreeSet::new();
    let edges = list(field, |element| {
        let edge = after_edge(element)?;
        if edge.name == own_name {
            element.error("a child cannot wait for itself");
        }
        if !seen.insert(edge.name.clone()) {
            element.error(format!("{} is in the list twice", quote(&edge.name)));
        }
        Some(edge)
    });
    if edges.len() > MOST_AFTER {
        field.error(format!("{} children, expected at most {MOST_AFTER}", edges.len()));
    }
    edges
}

fn after_edge(element: &Field<'_>) -> Option<After> {
    let Some(section) = element.as_section() else {
        return Some(After { name: element.line(LONGEST_NAME)?, on_restart: EdgePolicy::default() });
    };
    let name = section.field("name");
    if name.is_none() {
        section.error("name", "missing, expected the name of a child");
    }
    let words = [("restart", EdgePolicy::Restart), ("wait", EdgePolicy::Wait), ("ignore", EdgePolicy::Ignore)];
    let on_restart = section.word("on_restart", &words, EdgePolicy::default());
    section.finish();
    Some(After { name: name?.line(LONGEST_NAME)?, on_restart })
}

fn environment(field: &Field<'_>) -> BTreeMap<String, String> {
    let entry = |(name, value): (String, Field<'_>)| {
        if name.is_empty() || name.contains(['=', '\0']) {
            value.error("no name for a variable: it is empty or contains '=' or a zero byte");
            return None;
        }
        if name.starts_with("MULTUS_") {
            value.error("names that start with MULTUS_ are set by multusd itself");
            return None;
        }
        Some((name, value.text()?))
    };
    field.entries().unwrap_or_default().into_iter().filter_map(entry).collect()
}

pub(crate) fn absolute_path(field: &Field<'_>) -> Option<PathBuf> {
    let path = PathBuf::from(field.line(4095)?);
    if !path.is_absolute() {
        field
            .error(format!("{} is a relative path, expected one that starts with '/'", quote(&path.to_string_lossy())));
        return None;
    }
    Some(path)
}

/// The elements of a list that are good; the others have become findings.
fn list<'a, T>(field: &Field<'a>, read: impl FnMut(&Field<'a>) -> Option<T>) -> Vec<T> {
    field.elements().unwrap_or_default().iter().filter_map(read).collect()
}

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);
pub(crate) const YEAR: Duration = Duration::from_secs(366 * 86_400);
pub(crate) const FILE_SIZES: std::ops::RangeInclusive<u64> = 4096..=1 << 30;
