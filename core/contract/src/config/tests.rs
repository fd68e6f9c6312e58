//! Whole files and whole directories: what is good, and every kind of bad input.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::*;

/// A configuration directory that a test fills.
struct Dir(tempfile::TempDir);

impl Dir {
    fn with(files: &[(&str, &[u8])]) -> Self {
        let dir = Self(tempfile::tempdir().expect("a temporary directory can be made"));
        fs::create_dir(dir.0.path().join("children")).expect("writable");
        for (name, content) in files {
            fs::write(dir.0.path().join(name), content).expect("writable");
        }
        dir
    }

    fn load(&self) -> Loaded {
        load(self.0.path())
    }

    fn findings(&self) -> Vec<String> {
        self.load().diagnostics.iter().map(Diagnostic::to_string).collect()
    }
}

fn child(text: &str) -> (Option<ChildConfig>, Vec<String>) {
    let text = format!("command = [\"/bin/true\"]\n{text}");
    let (child, findings) = parse_child("c", &text, Path::new("children/c.toml"), &Defaults::default());
    (child, findings.iter().map(Diagnostic::to_string).collect())
}

const GOOD: &[u8] = b"command = [\"/bin/true\"]\n";

#[test]
fn the_commented_examples_are_good() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let text = |name: &str| fs::read_to_string(docs.join(name)).expect("the examples belong to the source");
    let (daemon, findings) = parse_daemon(&text("example-multusd.toml"), Path::new("multusd.toml"));
    assert_eq!(findings, []);
    let described = DaemonConfig {
        site: Some("pump-house 3".into()),
        control_group: Some("multus".into()),
        max_children: Some(64),
        defaults: Defaults { degraded_after: Some(5), ..Defaults::default() },
        ..DaemonConfig::default()
    };
    assert_eq!(daemon, described, "the example shows the defaults");

    let (child, findings) =
        parse_child("modbus", &text("example-child.toml"), Path::new("modbus.toml"), &Defaults::default());
    assert_eq!(findings, []);
    let child = child.expect("no errors, so there is a child");
    assert_eq!(child.heartbeat.deadline, Duration::from_millis(200));
    assert_eq!(child.safe_state.outputs["DO2"], OutputValue(1.0));
    assert_eq!(child.umask, Some(0o027));
    assert_eq!(child.restart, RestartConfig::default());

    // What is commented out is a good key as well.
    let optional = text("example-child.toml")
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ') && key != "nice") => rest,
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n");
    let (child, findings) = parse_child("modbus", &optional, Path::new("modbus.toml"), &Defaults::default());
    assert_eq!(findings, []);
    let child = child.expect("no errors, so there is a child");
    assert_eq!(child.after[1], After { name: "lan".into(), on_restart: EdgePolicy::Restart });
    assert_eq!(child.groups, ["dialout", "gpio"]);
}

#[test]
fn checks_and_heartbeats_of_foreign_programs() {
    let good = |text: &str| match child(text) {
        (Some(child), findings) if findings.is_empty() => child,
        (_, findings) => panic!("{text}: {findings:?}"),
    };
    let probe = |text: &str| good(text).check.expect("there is a check").probe;
    let server = |host: &str, port| Endpoint { host: host.into(), port };
    assert_eq!(probe("check.tcp = \"[::1]:1883\""), Probe::Tcp(server("::1", 1883)));
    for (url, port, target) in
        [("http://box", 80, "/"), ("http://box:8080/health?x=1", 8080, "/health?x=1"), ("http://box?x#y", 80, "/?x")]
    {
        let http = Probe::Http { server: server("box", port), target: target.into(), status: None };
        assert_eq!(probe(&format!("check.http = \"{url}\"")), http);
    }
    let file = Probe::File { path: "/run/x".into(), max_age: Duration::from_secs(60) };
    assert_eq!(probe("check = { file = \"/run/x\", max_age = \"60s\" }"), file);

    let ports = good("instances = 2\nheartbeat = { method = \"control-port\", port = 5000 }");
    assert_eq!((ports.control_port(0), ports.control_port(1)), (Some(5000), Some(5001)));
    let files =
        good("instances = 2\nworking_dir = \"/run\"\nheartbeat = { method = \"file\", path = \"{name}-{instance}\" }");
    assert_eq!(files.beat_file(1), Some("/run/c_1-1".into()));
}

#[test]
fn checkpoints_are_read_and_checked() {
    let table = |rest: &str| format!("[[supervision]]\ncheckpoints = [\"a\", \"b\"]\n{rest}");
    let good = table(
        "start = [\"a\"]\nnext = { a = [\"b\"], b = [\"a\"] }\ndeadline = [{ from = \"a\", to = \"a\", max = \"5ms\" }]",
    );
    let (read, findings) = child(&good);
    assert_eq!(findings, [""; 0]);
    let lane = &read.expect("no errors").supervision[0];
    assert_eq!((lane.lane.as_str(), &lane.next["b"]), ("", &vec!["a".to_owned()]));
    let whole_round = CheckpointDeadline {
        from: "a".into(),
        to: "a".into(),
        min: Duration::ZERO,
        max: Some(Duration::from_millis(5)),
    };
    assert_eq!(lane.deadlines, [whole_round]);
    let many: Vec<String> = (0..17).map(|n| format!("\"c{n}\"")).collect();
    for (text, word) in [
        (table("start = [\"x\"]\nnext = { a = [\"b\"] }"), "one of the checkpoints"),
        (table("start = [\"a\"]\nnext = { x = [\"b\"] }"), "one of the checkpoints"),
        (table("start = [\"a\"]"), "without next"),
        (table("next = { a = [\"b\"] }"), "start: missing"),
        (table("deadline = [{ from = \"a\", to = \"b\" }]"), "expected min, max or both"),
        (table("deadline = [{ from = \"a\", max = \"5ms\" }]"), "to: missing"),
        (table("deadline = [{ from = \"a\", to = \"b\", min = \"5ms\", max = \"5ms\" }]"), "not longer than min"),
        (table("deadline = [{ from = \"a\", to = \"c\", max = \"5ms\" }]"), "one of the checkpoints"),
        (table("deadlines = []"), "unknown key"),
        (table("[[supervision]]\ncheckpoints = [\"c\"]"), "two of these"),
        ("[[supervision]]\ncheckpoints = [\"a\", \"a\"]".into(), "there twice"),
        ("[[supervision]]\nlane = \"x\"".into(), "checkpoints: missing"),
        (format!("[[supervision]]\ncheckpoints = [{}]", many.join(", ")), "17 checkpoints"),
        ("supervision = 3".into(), "a list"),
        ("supervision = [3]".into(), "a table"),
        (table("[heartbeat]\nmethod = \"notify\""), "shared-memory"),
    ] {
        let (read, findings) = child(&text);
        assert!(read.is_none() && findings.iter().any(|f| f.contains(word)), "{text}: {findings:?}");
    }
}

#[test]
fn services_and_programs_in_the_background_are_read_and_checked() {
    let read = |text: &str| {
        let (child, findings) = parse_child("c", text, Path::new("c.toml"), &Defaults::default());
        (child, findings.iter().map(Diagnostic::to_string).collect::<Vec<_>>())
    };
    let service = |rest: &str| format!("[service]\nstart = [\"a\"]\nstop = [\"b\"]\nstatus = [\"c\"]\n{rest}");
    let (child, findings) = read(&service(""));
    assert_eq!(findings, [""; 0]);
    let child = child.expect("no errors");
    let ten = Duration::from_secs(10);
    let scripts = child.service.expect("it is there");
    assert_eq!((scripts.start, scripts.interval, scripts.timeout), (vec!["a".to_owned()], ten, ten));
    assert_eq!((child.command.len(), child.heartbeat.method), (0, Method::None));
    let (child, _) = read("command = [\"x\"]\npid_file = \"{name}-{instance}.pid\"\nworking_dir = \"/run\"");
    let child = child.expect("no errors");
    assert_eq!((child.pid_file(0), child.heartbeat.method), (Some("/run/c-0.pid".into()), Method::None));
    for (text, word) in [
        (service("interval = \"999ms\""), "too short"),
        (service("[heartbeat]\nmethod = \"notify\""), "are not ours"),
        (service("[hooks]\nafter_stop = [\"x\"]"), "stop script instead"),
        (format!("pid_file = \"/x\"\n{}", service("")), "status script instead"),
        ("[service]\nstart = [\"a\"]\nstop = [\"b\"]".into(), "service.status: missing"),
    ] {
        let (child, findings) = read(&text);
        assert!(child.is_none() && findings.len() == 1 && findings[0].contains(word), "{text}: {findings:?}");
    }
    let shared = b"command = [\"/bin/true\"]\npid_file = \"/run/x.pid\"\n";
    let dir = Dir::with(&[("children/a.toml", shared), ("children/b.toml", shared)]);
    let findings = dir.findings();
    assert!(findings.len() == 1 && findings[0].contains("the PID file of \"b\" is that of \"a\""), "{findings:?}");
}

#[test]
fn a_bare_command_is_enough_and_gets_all_defaults() {
    let (child, findings) = child("");
    assert_eq!(findings, [""; 0]);
    let child = child.expect("no errors");
    assert!(child.enabled && child.no_new_privileges && child.check.is_none());
    assert_eq!(child.instances, 1);
    assert_eq!(child.instance_name(0), "c");
    assert_eq!(child.restart.degraded_after, 5);
}

#[test]
fn defaults_are_inherited_key_by_key() {
    let dir = Dir::with(&[
        ("multusd.toml", b"[defaults.heartbeat]\ndeadline = \"50ms\"\n[defaults.restart]\ndelays = [\"2s\"]\n"),
        ("children/a.toml", b"command = [\"/bin/true\"]\n[heartbeat]\nstartup = \"5s\"\n"),
        ("children/b.toml", b"command = [\"/bin/true\"]\n[restart]\ndelays = [\"0s\", \"1s\"]\n"),
    ]);
    let loaded = dir.load();
    assert!(loaded.is_clean(), "{:?}", loaded.diagnostics);
    let [a, b] = &loaded.config.children[..] else { panic!("two children") };
    assert_eq!((a.heartbeat.deadline, a.heartbeat.startup), (Duration::from_millis(50), Duration::from_secs(5)));
    assert_eq!((a.restart.delays.len(), a.restart.degraded_after), (1, 3));
    assert_eq!((b.restart.delays.len(), b.restart.degraded_after), (2, 3));
    assert_eq!(b.heartbeat.deadline, Duration::from_millis(50));
}

/// What is written after a good command, and what must stand in the one finding it leads to.
#[test]
fn every_mistake_names_its_line_key_and_cure() {
    for (text, expected) in [
        ("[heartbeat]\ndedline = \"1s\"", ":3: heartbeat.dedline: unknown key; did you mean \"deadline\"?"),
        ("[hartbeat]\ndeadline = \"1s\"", ":2: hartbeat: unknown key; did you mean \"heartbeat\"?"),
        ("deadline = \"1s\"", ":2: deadline: unknown key; did you mean \"heartbeat.deadline\"?"),
        ("zzz = 1", ":2: zzz: unknown key"),
        ("heartbeat.deadline = \"999us\"", "\"999us\" is too short, expected 1ms to 24h"),
        ("heartbeat.deadline = \"0s\"", "\"0s\" is too short"),
        ("heartbeat.deadline = \"2d\"", "\"2d\" is too long"),
        ("heartbeat.deadline = \"99999999999999d\"", "is too long"),
        ("heartbeat.deadline = 200", "found the integer 200, expected a duration in quotes"),
        ("heartbeat.deadline = \"200\"", "\"200\" has no unit"),
        ("heartbeat.deadline = \"fast\"", "\"fast\" is no duration, expected"),
        ("heartbeat.method = \"shared_memory\"", "unknown word \"shared_memory\", expected one of"),
        ("heartbeat.method = \"control-port\"", ":2: heartbeat.port: missing, expected the port on localhost"),
        ("heartbeat = { method = \"control-port\", port = 0 }", "expected an integer from 1 to 65535"),
        (
            "instances = 3\nheartbeat = { method = \"control-port\", port = 65534 }",
            "expected an integer from 1 to 65533",
        ),
        ("heartbeat.port = 4000", "only the method \"control-port\" has it"),
        ("heartbeat.method = \"file\"", ":2: heartbeat.path: missing, expected the file that it touches"),
        ("heartbeat.path = \"/x\"", "only the method \"file\" has it"),
        ("instances = 2\nheartbeat = { method = \"file\", path = \"x\" }", "every instance needs a file of its own"),
        ("heartbeat.notify_socket = \"abstract\"", "only the method \"notify\" has it"),
        ("heartbeat = { method = \"notify\", notify_socket = \"abstrakt\" }", "did you mean \"abstract\"?"),
        ("instances = 2\npid_file = \"/run/x.pid\"", "every instance needs a file of its own"),
        ("pid_file = \"\"", "pid_file: empty"),
        (
            "service = { start = [\"/bin/true\"], stop = [\"/bin/true\"], status = [\"/bin/true\"] }",
            "command: a child has either a command or a [service]",
        ),
        ("heartbeat.min_interval = \"1s\"", "not shorter than the deadline"),
        ("heartbeat = 5", "heartbeat: found the integer 5, expected a table"),
        ("enabled = \"yes\"", "enabled: found the text \"yes\", expected true or false"),
        ("enabled = 1979-05-27", "found a date, expected true or false"),
        ("instances = 0", "found the integer 0, expected an integer from 1 to 256"),
        ("instances = 257", "expected an integer from 1 to 256"),
        ("instances = 1.5", "found the number 1.5, expected an integer"),
        ("user = \"\"", "empty, expected a text"),
        ("user = \"a\\u0000b\"", "zero byte"),
        ("description = \"two\\nlines\"", "control character"),
        ("groups = \"dialout\"", "found the text \"dialout\", expected a list"),
        ("groups = [1]", ":2: groups[0]: found the integer 1"),
        ("working_dir = \"data\"", "relative path"),
        ("umask = \"0999\"", "octal"),
        ("umask = 27", "expected an octal number in quotes"),
        ("umask = \"7777\"", "at most 777"),
        ("environment = { MULTUS_NAME = \"x\" }", "set by multusd itself"),
        ("environment = { \"a=b\" = \"x\" }", "no name for a variable"),
        ("environment = { A = 1 }", "environment.A: found the integer 1, expected a text"),
        ("after = [\"c\"]", "cannot wait for itself"),
        ("after = [\"x\", \"x\"]", "twice"),
        ("after = [{ on_restart = \"wait\" }]", "after[0].name: missing"),
        ("after = [{ name = \"x\", on_restart = \"restat\" }]", "did you mean \"restart\"?"),
        ("after = [{ name = \"x\", restart = true }]", "after[0].restart: unknown key"),
        ("restart.delays = []", "0 delays, expected 1 to 16"),
        ("restart.delays = [\"0s\", 1]", ":2: restart.delays[1]: found the integer 1"),
        ("restart.evidence_budget = \"2s\"", "expected 0s to 1s"),
        ("stop.signal = \"SIGTREM\"", "did you mean \"SIGTERM\"?"),
        ("stop.signal = 15", "expected a text in quotes"),
        ("safe_state.outputs = { DO1 = \"of\" }", "safe_state.outputs.DO1: unknown word \"of\""),
        ("safe_state.outputs = { DO1 = nan }", "expected a number"),
        ("safe_state.outputs = { DO1 = [] }", "expected \"on\", \"off\", true, false or a number"),
        ("safe_state.outputs = { \"D O\" = 1 }", "contains \" \""),
        ("safe_state.command = []", "empty, expected a program"),
        ("safe_state.command = \"rm -rf /\"", "no shell reads it; write [\"rm\", \"-rf\", \"/\"]"),
        ("schedule.policy = \"fiffo\"", "did you mean \"fifo\"?"),
        ("schedule.priority = 10", "only the policies \"fifo\" and \"rr\""),
        ("schedule = { policy = \"fifo\", priority = 98 }", "expected an integer from 1 to 97"),
        ("schedule.cpus = [0, 0]", "in the list twice"),
        ("schedule.cpus = []", "an empty list"),
        ("limits.memory = \"1Q\"", "unknown unit"),
        ("limits.memory = 100", "too small"),
        ("limits.memory = -1", "negative"),
        ("check.interval = \"1s\"", "check.command: missing"),
        ("check = { command = [\"/bin/true\"], tcp = \"a:1\" }", "check.tcp: a second way to check beside command"),
        ("check.tcp = \"localhost\"", "the port is missing, expected host and port"),
        ("check.tcp = \"localhost:70000\"", "the port is no number from 1 to 65535"),
        ("check = { tcp = \"a:1\", status = 200 }", "only a check by http has a status"),
        ("check.http = \"https://a/\"", "for https use a command"),
        ("check.http = \"http://a/b c\"", "have to be written as %20"),
        ("check = { http = \"http://a\", status = 99 }", "expected an integer from 100 to 599"),
        ("check.file = \"/x\"", "check.max_age: missing"),
        ("check = { file = \"x\", max_age = \"1s\" }", "is a relative path"),
        ("check = { tcp = \"a:1\", max_age = \"1s\" }", "only a check by file has an age"),
        ("hooks.periodic = { command = [\"/bin/true\"] }", "hooks.periodic.interval: missing"),
        ("log.max_size = \"4GiB\"", "too large"),
        ("log.lines_per_second = -1", "expected an integer from 1"),
        ("a = 1\na = 2", ":3: not valid TOML"),
        ("x = ", ":2: not valid TOML"),
        ("[[stop]]", "stop: found a list, expected a table"),
        ("\"k\\ney\" = 1", "k\\ney: unknown key"),
    ] {
        let (child, findings) = child(text);
        assert!(child.is_none(), "{text}: accepted");
        let found = findings.iter().filter(|finding| finding.contains(expected)).count();
        assert_eq!(found, 1, "{text}: expected {expected}, found {findings:#?}");
        assert_eq!(findings.len(), 1, "{text}: {findings:#?}");
        assert!(findings.iter().all(|f| f.starts_with("children/c.toml") && !f.contains('\n')), "{findings:?}");
    }
}

#[test]
fn too_many_edges_and_delays_are_refused() {
    let names = (0..17).map(|n| format!("\"x{n}\"")).collect::<Vec<_>>().join(", ");
    assert!(child(&format!("after = [{names}]")).1[0].contains("17 children, expected at most 16"));
    let delays = vec!["\"1s\""; 17].join(", ");
    assert!(child(&format!("restart.delays = [{delays}]")).1[0].contains("17 delays, expected 1 to 16"));
}

#[test]
fn all_mistakes_of_a_file_are_found_in_its_order() {
    let text = "comand = []\nenabled = 3\n[heartbeat]\nmethod = \"x\"\n[stop]\nsigal = 1\n";
    let (child, findings) = parse_child("c", text, Path::new("c.toml"), &Defaults::default());
    assert!(child.is_none());
    let keys: Vec<_> = findings.iter().map(|f| (f.line, f.key.as_str())).collect();
    assert_eq!(keys, [(0, "command"), (1, "comand"), (2, "enabled"), (4, "heartbeat.method"), (6, "stop.sigal")]);
    assert_eq!(findings[3].column, 1);
}

#[test]
fn mistakes_of_the_daemons_file_are_found() {
    for (text, expected) in [
        ("sit = \"x\"", "did you mean \"site\"?"),
        ("[realtime]\npriority = 99", "expected an integer from 2 to 98"),
        ("[realtime]\ncpus = [5000]", "expected an integer from 0 to 1023"),
        ("[temperature]\nmin_c = 90", "is not above min_c"),
        ("[temperature]\nhysteresis_c = 40", "leaves no room"),
        ("[temperature]\nmax_c = inf", "expected a number"),
        ("[log]\nlevel = \"warning\"", "did you mean \"warn\"?"),
        ("[defaults.heartbeat]\ndeadline = \"1us\"", "defaults.heartbeat.deadline: \"1us\" is too short"),
        ("[defaults.check]", "defaults.check: unknown key"),
        ("max_children = 0", "expected an integer from 1"),
        ("[reboot]\ncommand = []", "empty, expected a program"),
        ("[legacy]\nrequest_dir = \"tmp\"", "is a relative path"),
    ] {
        let (_, findings) = parse_daemon(text, Path::new("multusd.toml"));
        let lines: Vec<_> = findings.iter().map(Diagnostic::to_string).collect();
        assert!(lines.len() == 1 && lines[0].contains(expected), "{text}: {lines:?}");
    }
}

#[test]
fn bad_files_are_refused_one_by_one_and_the_others_stay() {
    let dir = Dir::with(&[
        ("children/binary.toml", b"command = [\"\xff\xfe\"]"),
        ("children/empty.toml", b" \n"),
        ("children/good.toml", GOOD),
        ("children/has space.toml", GOOD),
        ("children/ignored.toml~", b"]["),
        ("children/.hidden.toml", b"]["),
        ("children/secret.toml", GOOD),
        ("children/syntax.toml", b"command = [\"/bin/true\"]\n[stop\n"),
    ]);
    let children = dir.0.path().join("children");
    fs::create_dir(children.join("directory.toml")).expect("writable");
    fs::write(children.join("large.toml"), vec![b'#'; (1 << 20) + 1]).expect("writable");
    std::os::unix::fs::symlink("nowhere", children.join("dangling.toml")).expect("links work here");
    fs::set_permissions(children.join("secret.toml"), fs::Permissions::from_mode(0o000)).expect("own file");
    // Root may read everything.
    let is_secret = fs::read(children.join("secret.toml")).is_err();

    let loaded = dir.load();
    assert!(!loaded.daemon_is_broken() && !loaded.is_clean());
    let mut good = vec!["good"];
    good.extend((!is_secret).then_some("secret"));
    assert_eq!(loaded.config.children.iter().map(|child| child.name.as_str()).collect::<Vec<_>>(), good);
    let text = loaded.report(dir.0.path());
    for expected in [
        "children/binary.toml: not a text file: byte 12 in line 1 is not UTF-8",
        "children/dangling.toml: a symbolic link to nothing",
        "children/directory.toml: not a regular file",
        "children/empty.toml: empty, expected at least command",
        "children/has space.toml: the name \"has space\" contains \" \"",
        "children/large.toml: larger than 1024 KiB",
        "children/syntax.toml:2: not valid TOML",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    assert_eq!(text.contains("children/secret.toml: no permission to read it"), is_secret, "{text}");
    assert!(!text.contains("ignored") && !text.contains("hidden"));
}

#[test]
fn relations_between_children_are_checked() {
    for (files, expected, left) in [
        (
            vec![("a", "instances = 2"), ("a_0", "")],
            vec!["children/a.toml:2: instances: instance \"a_0\" has the same name as one of the child \"a_0\""],
            vec!["a_0"],
        ),
        (
            vec![("io", ""), ("x", "after = [\"oi\"]")],
            vec!["children/x.toml:2: after: no child \"oi\" is configured; did you mean \"io\"?"],
            vec!["io"],
        ),
        (
            vec![
                ("a", "after = [\"b\"]"),
                ("b", "after = [\"c\"]"),
                ("c", "after = [\"a\"]"),
                ("d", "after = [\"a\"]"),
            ],
            vec!["a circle, so none of them could ever start: a after b after c after a"],
            vec!["d"],
        ),
        (
            vec![("a", "safe_state.outputs = { DO1 = 0 }"), ("b", "safe_state.outputs = { DO1 = 1 }")],
            vec!["children/b.toml:2: safe_state.outputs.DO1: the child \"a\" already forces this output"],
            vec!["a"],
        ),
        (
            vec![
                ("a", "instances = 3\nheartbeat = { method = \"control-port\", port = 5000 }"),
                ("b", "heartbeat = { method = \"control-port\", port = 5002 }"),
            ],
            vec!["children/b.toml:2: heartbeat.port: port 5002 of \"b\" is that of \"a_2\", too"],
            vec!["a"],
        ),
        (
            vec![
                ("a", "heartbeat = { method = \"file\", path = \"run/x\" }"),
                ("b", "heartbeat = { method = \"file\", path = \"/run/x\" }"),
            ],
            vec!["children/b.toml:2: heartbeat.path: the file of \"b\" is that of \"a\", too"],
            vec!["a"],
        ),
        (
            vec![("many", "instances = 17"), ("x", "after = [\"many\"]")],
            vec!["children/x.toml:2: after: waits for 17 instances in all, at most 16 are possible"],
            vec!["many"],
        ),
        (
            // A broken neighbour does not break those that wait for it.
            vec![("bad", "nonsense = 1"), ("x", "after = [\"bad\"]")],
            vec!["children/bad.toml:2: nonsense: unknown key"],
            vec!["x"],
        ),
        (
            vec![("rt", "schedule = { policy = \"rr\", priority = 60 }")],
            vec!["children/rt.toml:2: warning: schedule.priority: 60 is not below the watch loop's 50"],
            vec!["rt"],
        ),
    ] {
        let files: Vec<_> = files
            .iter()
            .map(|(name, text)| (format!("children/{name}.toml"), format!("command = [\"/bin/true\"]\n{text}\n")))
            .collect();
        let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_bytes())).collect();
        let dir = Dir::with(&files);
        let (loaded, findings) = (dir.load(), dir.findings());
        for line in expected {
            assert!(findings.iter().any(|finding| finding.contains(line)), "{line} in {findings:#?}");
        }
        assert_eq!(loaded.config.children.iter().map(|child| child.name.as_str()).collect::<Vec<_>>(), left);
    }
}

#[test]
fn a_missing_program_fails_the_check_but_keeps_the_child() {
    let dir = Dir::with(&[
        ("children/gone.toml", b"command = [\"/nowhere/program\"]\n"),
        ("children/off.toml", b"command = [\"no-such-program-at-all\"]\nenabled = false\n"),
        ("children/hook.toml", b"command = [\"sh\"]\nhooks.after_stop = [\"./x\"]\n"),
    ]);
    let loaded = dir.load();
    assert_eq!(loaded.config.children.len(), 3);
    assert!(!loaded.is_clean() && loaded.broken.is_empty());
    let lines: Vec<_> = loaded.diagnostics.iter().map(Diagnostic::to_string).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(lines[0], "children/gone.toml:1: command: /nowhere/program: no such file");
    assert!(lines[1].starts_with("children/hook.toml:2: hooks.after_stop: ./x: a relative path"), "{lines:?}");
    assert!(lines[2].starts_with("children/off.toml:1: warning: command: no-such-program"), "{lines:?}");
}

#[test]
fn the_daemons_part_is_judged_by_itself() {
    let nothing = tempfile::tempdir().expect("a temporary directory can be made");
    let missing = load(&nothing.path().join("missing"));
    assert!(missing.daemon_is_broken());
    assert!(missing.diagnostics[0].to_string().contains("no such directory; name another one with --config-dir"));

    let empty = load(nothing.path());
    assert!(empty.is_clean(), "an empty directory is all defaults: {:?}", empty.diagnostics);
    assert_eq!(empty.config, Config::default());

    let dir = Dir::with(&[
        ("multusd.toml", b"priority = 3\nmax_children = 1\n"),
        ("children/a.toml", b"command=[\"sh\"]\ninstances=2\n"),
    ]);
    let loaded = dir.load();
    let lines: Vec<_> = loaded.daemon_errors().map(Diagnostic::to_string).collect();
    assert_eq!(
        lines,
        [
            "multusd.toml:2: max_children: room for 1 instances, but 2 are configured",
            "multusd.toml:1: priority: unknown key; did you mean \"realtime.priority\"?",
        ]
    );
    assert_eq!(loaded.config.children.len(), 1, "children are read all the same");
}

/// xorshift64*, so that a failing round can be repeated from its number.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 33).expect("31 bits fit") % limit.max(1)
    }
}

fn daemon(text: &str) -> (DaemonConfig, Vec<String>) {
    let (config, findings) = parse_daemon(text, Path::new("multusd.toml"));
    (config, findings.iter().map(Diagnostic::to_string).collect())
}

#[test]
fn watchdogs_and_escalation_are_read() {
    let (config, findings) = daemon(
        "[[watchdog]]\ndevice = \"/dev/watchdog0\"\ntimeout = \"15s\"\npretimeout = \"5s\"\n\
         [[watchdog]]\nchip = { enable = 5, pulse = 6 }\n[[watchdog]]\ndevice = \"sim\"\ntimeout = \"2s\"\n\
         [escalation]\nrestart_all_after = \"2min\"\nreboot_after = \"5min\"\n",
    );
    assert_eq!(findings, [""; 0]);
    let (s, ms) = (Duration::from_secs, Duration::from_millis);
    assert_eq!(
        config.watchdogs,
        [
            WatchdogConfig::Device { path: "/dev/watchdog0".into(), timeout: s(15), pretimeout: Some(s(5)) },
            WatchdogConfig::Chip { enable: 5, pulse: 6, period: ms(80), width: ms(10) },
            WatchdogConfig::Sim { timeout: s(2) },
        ]
    );
    let escalation =
        EscalationConfig { restart_all_after: Some(s(120)), reboot_after: Some(s(300)), reboots_per_hour: 3 };
    assert_eq!(config.escalation, escalation);

    assert_eq!(child("").0.expect("good").critical, None);
    assert_eq!(child("critical = true").0.expect("good").critical, Some(s(60)));
    assert_eq!(child("critical = true\nrecovery = \"5s\"").0.expect("good").critical, Some(s(5)));
    let (none, findings) = child("recovery = \"5s\"");
    assert!(none.is_none() && findings[0].contains("only a child with critical = true has this"), "{findings:?}");
}

#[test]
fn bad_watchdogs_are_told_with_what_to_do() {
    let device = "device = \"/dev/watchdog0\"\ntimeout = \"15s\"";
    for (text, expected) in [
        ("device = \"/dev/watchdog0\"".to_owned(), "watchdog[0].timeout: missing"),
        ("timeout = \"15s\"".to_owned(), "expected either device"),
        (format!("{device}\nchip = {{ enable = 5, pulse = 6 }}"), "expected either device"),
        ("device = \"watchdog0\"\ntimeout = \"15s\"".to_owned(), "relative path"),
        ("device = \"/dev/watchdog0\"\ntimeout = \"1500ms\"".to_owned(), "whole seconds"),
        (format!("{device}\npretimeout = \"15s\""), "not shorter than timeout"),
        (format!("{device}\nwidth = \"10ms\""), "only a chip has this"),
        (format!("{device}\ntimout = \"1s\""), "unknown key"),
        ("chip = { enable = 5 }".to_owned(), "chip.pulse: missing"),
        ("chip = { enable = 5, pulse = 5 }".to_owned(), "both gpio 5"),
        ("chip = { enable = 5, pulse = 6 }\nwidth = \"80ms\"".to_owned(), "not shorter than period"),
        ("chip = 5".to_owned(), "two native lines"),
        (format!("{device}\n[[watchdog]]\n{device}"), "in another [[watchdog]], too"),
        (format!("{device}\n[escalation]\nrestart_all_after = \"5s\"\nreboot_after = \"5s\""), "not longer than"),
        (format!("{device}\n[escalation]\nreboots_per_hour = 0"), "an integer from 1 to 60"),
    ] {
        let (_, findings) = daemon(&format!("[[watchdog]]\n{text}\n"));
        assert!(findings.iter().any(|f| f.contains(expected)), "{text}: {findings:?}");
    }
}

#[test]
fn a_line_of_the_watchdog_chip_that_is_also_in_hardware_toml_is_an_error() {
    let hardware = b"[lines]\nDO1 = { kind = \"digital-output\", gpio = 6, safe = \"off\" }\n";
    let own = b"[[watchdog]]\nchip = { enable = 5, pulse = 6 }\n";
    let dir = Dir::with(&[
        ("children/a.toml", GOOD),
        ("multusd.toml", own.as_slice()),
        ("hardware.toml", hardware.as_slice()),
    ]);
    let findings = dir.findings();
    assert!(dir.load().daemon_is_broken());
    assert!(
        findings.iter().any(|f| f.starts_with("multusd.toml:2:") && f.contains("gpio 6 is the line \"DO1\"")),
        "{findings:?}"
    );
}

#[test]
fn no_bytes_whatever_make_it_panic() {
    let samples =
        [include_str!("../../../../docs/example-child.toml"), include_str!("../../../../docs/example-multusd.toml")];
    let pieces = [
        "[",
        "]",
        "=",
        "\"",
        "'''",
        "{",
        "}",
        "\n",
        "#",
        ".",
        ",",
        "-1",
        "1e9",
        "\u{0}",
        "\\",
        "nan",
        "ä",
        "[[",
        "9999999999999999999",
    ];
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for round in 0..3000 {
        let mut bytes: Vec<u8> = samples[round % 2].into();
        if round % 5 == 0 {
            bytes = (0..random.below(300)).map(|_| random.next().to_le_bytes()[7]).collect();
        }
        for _ in 0..random.below(8) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes.truncate(at),
                1 if at < bytes.len() => bytes[at] = random.next().to_le_bytes()[7],
                2 if at < bytes.len() => drop(bytes.drain(at..bytes.len().min(at + 5))),
                _ => drop(bytes.splice(at..at, pieces[random.below(pieces.len())].bytes())),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        let (child, findings) = parse_child("c", &text, Path::new("c.toml"), &Defaults::default());
        let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
        assert_eq!(child.is_none(), errors > 0, "round {round}: {findings:?}");
        let (_, more) = parse_daemon(&text, Path::new("multusd.toml"));
        for finding in findings.iter().chain(&more) {
            assert!(!finding.to_string().contains('\n'), "round {round}");
            assert!(finding.to_string().len() < 2000, "round {round}: {finding}");
        }
    }
    let deep = format!("a = {}", "[".repeat(100_000));
    assert_eq!(parse_child("c", &deep, Path::new("c.toml"), &Defaults::default()).0, None);
}
