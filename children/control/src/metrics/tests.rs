//! The text, as Prometheus itself reads it.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use multus_contract::api::event::Event;
use multus_contract::api::io::IoLine;
use multus_contract::api::reset::{LastReset, WatchdogStatus};
use multus_contract::api::status::{DaemonStatus, LastFault, LoopStatus};

use super::*;
use crate::testing::{Server, dirs, event, free_port, program, skip, until};

fn status() -> Status {
    let child = |name: &str, state: &str| ChildStatus {
        name: name.into(),
        state: state.into(),
        restarts: 3,
        deadline_us: Some(200_000),
        last_beat_age_us: Some(1_500),
        beat_interval_us: Some(Spread { p50: Some(5000.0), p99: Some(5100.0), max: 6000.0 }),
        last_fault: Some(LastFault { kind: "hang".into(), count: 4, ..LastFault::default() }),
        enabled: true,
        ..ChildStatus::default()
    };
    let lateness_us = Spread { p50: Some(12.5), p99: Some(33.0), max: 99.0 };
    let daemon = DaemonStatus {
        version: "0.1.0".into(),
        site: Some("pump \"house\"\\\n3".into()),
        realtime: true,
        uptime_s: 77,
        temperature_c: Some(-4.5),
        last_reset: Some(LastReset { counts: [("power-loss".to_owned(), 2)].into(), ..LastReset::default() }),
        watchdogs: vec![WatchdogStatus { name: "sim".into(), state: "petted".into(), ..WatchdogStatus::default() }],
        watch_loop: LoopStatus { wakeups: 1000, page_faults: 0, lateness_us },
        ..DaemonStatus::default()
    };
    Status { daemon, children: vec![child("io", "running"), child("pump_0", "backoff")] }
}

fn counted() -> Counted {
    let mut counted = Counted::default();
    let fault = |kind: &str, late_ns: u64| Event {
        fault: Some(kind.into()),
        deadline_ns: Some(1_000_000),
        detected_ns: Some(1_000_000 + late_ns),
        ..event(1, 1, "fault")
    };
    counted.add(&fault("crash", 0));
    counted.add(&event(1, 0, ""));
    counted.add(&fault("hang", 24_000));
    counted.add(&fault("hang", 700_000_000));
    counted.add(&Event { deadline_ns: None, ..fault("crash", 0) });
    counted.add(&Event { detected_ns: Some(5), ready_ns: Some(30_000_005), ..event(1, 3, "recovered") });
    counted.missed(2);
    counted
}

fn io() -> IoStatus {
    let line = |name: &str, kind: &str, value| IoLine {
        name: name.into(),
        kind: kind.into(),
        value,
        good: true,
        changes: 7,
        ..IoLine::default()
    };
    let output =
        IoLine { safe: Some(0.0), source: "forced".into(), held: Some(1.0), ..line("DO1", "digital-output", 1.0) };
    IoStatus {
        fresh: true,
        driven_by: "multus-io".into(),
        unsafe_outputs: vec!["DO2: no such chip".into()],
        scans: 5000,
        period_us: 1000.0,
        scan_us: Spread { p50: Some(30.0), p99: Some(210.0), max: 800.0 },
        forced_us: Spread { p50: Some(90.0), p99: Some(380.0), max: 400.0 },
        refused: 3,
        lines: vec![IoLine { good: false, unit: "°C \"K\"".into(), ..line("T1", "analogue-input", -2.5) }, output],
        ..IoStatus::default()
    }
}

fn text(format: Format) -> String {
    let (status, counted) = (status(), counted());
    let intervals = [Intervals {
        child: "io".into(),
        lane: String::new(),
        max_ns: 6_000_000,
        buckets: vec![((1 << 17) - 1, 2), ((1 << 22) - 1, 10), (6_291_455, 30), (u64::MAX, 1)],
    }];
    let io = io();
    let inputs = Inputs {
        io: Some(&io),
        status: Some(&status),
        intervals: &intervals,
        counted: Some(&counted),
        history: Some(Stats { up: true, stored: 9, ..Stats::default() }),
        mqtt: Some(Traffic { up: true, sent: 5, ..Traffic::default() }),
        notifications: Some(Traffic::default()),
        resident_bytes: resident_bytes(),
    };
    render(&inputs, format)
}

#[test]
fn everything_is_in_the_text_with_its_type() {
    let open = text(Format::OpenMetrics);
    for line in [
        "multus_up 1",
        r#"multus_daemon_info{version="0.1.0",site="pump \"house\"\\\n3"} 1"#,
        "# UNIT multus_temperature_celsius celsius",
        "multus_temperature_celsius -4.5",
        r#"multus_children{state="running"} 1"#,
        r#"multus_child_state{child="pump_0",state="backoff"} 1"#,
        r#"multus_child_state{child="pump_0",state="running"} 0"#,
        "# TYPE multus_child_restarts counter",
        r#"multus_child_restarts_total{child="io"} 3"#,
        r#"multus_child_faults_total{child="io"} 4"#,
        r#"multus_child_faults_by_kind_total{child="io",kind="hang"} 2"#,
        r#"multus_child_deadline_seconds{child="io"} 0.2"#,
        r#"multus_loop_lateness_seconds{quantile="0.99"} 0.000033"#,
        r#"multus_fault_overshoot_seconds_bucket{le="0.00001"} 0"#,
        r#"multus_fault_overshoot_seconds_bucket{le="0.000025"} 1"#,
        r#"multus_fault_overshoot_seconds_bucket{le="+Inf"} 2"#,
        r#"multus_child_recovery_seconds_bucket{child="io",le="0.05"} 1"#,
        r#"multus_child_recovery_seconds_bucket{child="io",le="1.0"} 1"#,
        r#"multus_child_beat_interval_seconds_bucket{child="io",lane="",le="0.000131072"} 2"#,
        r#"multus_child_beat_interval_seconds_bucket{child="io",lane="",le="0.004194304"} 12"#,
        r#"multus_child_beat_interval_seconds_bucket{child="io",lane="",le="0.008388608"} 42"#,
        r#"multus_child_beat_interval_seconds_bucket{child="io",lane="",le="+Inf"} 43"#,
        "multus_history_stored_total 9",
        r#"multus_io_value{name="T1",kind="analogue-input",unit="°C \"K\""} -2.5"#,
        r#"multus_io_bad{name="T1"} 1"#,
        r#"multus_io_output_held{name="DO1"} 1"#,
        r#"multus_io_changes_total{name="DO1"} 7"#,
        r#"multus_io_driven_by{by="multus-io"} 1"#,
        r#"multus_io_driven_by{by="multusd"} 0"#,
        r#"multus_io_scan_seconds{quantile="0.99"} 0.00021"#,
        "multus_io_forced_max_seconds 0.0004",
        "multus_io_outputs_unsafe 1",
        "multus_io_outputs_held 1",
        "multus_io_lines_bad 1",
        "multus_io_refused_total 3",
        r#"multus_machine_resets_total{cause="power-loss"} 2"#,
        r#"multus_watchdog_petted{name="sim"} 1"#,
        "multus_mqtt_sent_total 5",
        "multus_control_events_missed_total 2",
    ] {
        assert!(open.lines().any(|l| l == line), "{line}\n{open}");
    }
    assert!(open.ends_with("# EOF\n") && open.matches("# EOF").count() == 1);
    assert!(!open.contains(r#"kind="crash"} 2"#), "the crash before the start of multusd does not count");
    let older = text(Format::Prometheus);
    assert!(older.contains("# TYPE multus_child_restarts_total counter") && !older.contains("# UNIT"), "{older}");
    let down = render(&Inputs::default(), Format::OpenMetrics);
    assert!(down.starts_with("# TYPE multus_up gauge\n") && down.contains("\nmultus_up 0\n"), "{down}");
    assert_eq!(
        Format::of_accept(Some("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")),
        Format::OpenMetrics
    );
    assert_eq!(Format::of_accept(None), Format::Prometheus);
}

#[test]
fn promtool_finds_nothing_wrong() {
    let Some(promtool) = program("promtool") else {
        return skip("promtool_finds_nothing_wrong", "no promtool; install prometheus");
    };
    let mut checker = Command::new(&promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let text = text(Format::Prometheus);
    checker.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    let said = checker.wait_with_output().expect("it ends");
    let words = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.status.success() && words.is_empty(), "{words}\n{text}");

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let rules = root.join("docs/prometheus/alerts.yml");
    let said = Command::new(&promtool).arg("check").arg("rules").arg(&rules).output().expect("it runs");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

/// Every name that the alerts and the dashboard use must be in the text.
#[test]
fn alerts_and_dashboard_ask_for_what_there_is() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let text = text(Format::Prometheus);
    let dashboard = std::fs::read_to_string(docs.join("grafana/multusd.json")).expect("readable");
    let parsed: serde_json::Value = serde_json::from_str(&dashboard).expect("JSON");
    assert!(parsed["panels"].as_array().is_some_and(|panels| panels.len() >= 6));
    let alerts = std::fs::read_to_string(docs.join("prometheus/alerts.yml")).expect("readable");
    let metrics = std::fs::read_to_string(docs.join("metrics.md")).expect("readable");
    let is_letter = |c: char| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit();
    let names = |text: &str| -> Vec<String> {
        text.split(|c| !is_letter(c)).filter(|word| word.starts_with("multus_")).map(str::to_owned).collect()
    };
    let known = names(&text);
    for name in names(&dashboard).iter().chain(&names(&alerts)).chain(&names(&metrics)) {
        assert!(known.contains(name), "{name}");
    }
    // And the other way round: what there is, is explained.
    for family in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        assert!(metrics.contains(family), "{family} is not explained in metrics.md");
    }
}

#[test]
fn a_real_prometheus_scrapes_it() {
    const NAME: &str = "a_real_prometheus_scrapes_it";
    let Some(prometheus) = program("prometheus") else { return skip(NAME, "no prometheus; install it") };
    let target = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = target.local_addr().expect("its address");
    std::thread::spawn(move || {
        for mut stream in target.incoming().flatten() {
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
            let format = Format::of_accept(request.lines().find_map(|line| line.strip_prefix("accept: ")));
            let body = text(format);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                format.content_type(),
                body.len()
            );
            let _ = stream.write_all((head + &body).as_bytes());
        }
    });
    let root = tempfile::tempdir().expect("a directory");
    let config = format!(
        "global: {{ scrape_interval: 1s, scrape_timeout: 1s }}\nscrape_configs:\n- job_name: multus\n  static_configs: [{{ targets: [\"{address}\"] }}]\n"
    );
    std::fs::write(root.path().join("p.yml"), config).expect("written");
    let port = free_port();
    let mut command = Command::new(prometheus);
    command
        .arg(format!("--config.file={}", root.path().join("p.yml").display()))
        .arg(format!("--storage.tsdb.path={}", root.path().join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stderr(Stdio::null());
    let _running = Server::start(&mut command);
    let ask = |query: &str| -> Option<String> {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
        let head = format!("GET /api/v1/query?query={query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let answer: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1.trim()).ok()?;
        answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned)
    };
    until("it was scraped", || ask("up%7Bjob=%22multus%22%7D").filter(|up| up == "1"));
    let found = until("the value is there", || ask("multus_child_restarts_total%7Bchild=%22io%22%7D"));
    assert_eq!(found, "3");
    assert_eq!(ask("multus_daemon_info%7Brealtime!=%22x%22%7D").as_deref(), Some("1"));
    let quantile = ask("histogram_quantile(0.5,multus_child_beat_interval_seconds_bucket)").expect("a histogram");
    let quantile: f64 = quantile.parse().expect("a number");
    assert!((0.004..0.0084).contains(&quantile), "{quantile}");
}

#[test]
fn the_service_counts_what_the_daemon_tells_and_answers_without_it() {
    use crate::service::Settings;
    use crate::testing::FakeDaemon;
    let root = tempfile::tempdir().expect("a directory");
    let dirs = dirs(root.path());
    let service = Service::new(dirs.clone(), Settings::default());
    let caller = Caller::new("somebody", Caller::USER);
    assert!(service.metrics(&caller, None).expect("it works").1.contains("\nmultus_up 0\n"));
    let fault = Event { fault: Some("hang".into()), ..event(1, 1, "fault") };
    let daemon = FakeDaemon::start(&dirs.control_socket(), 7, vec![event(1, 0, ""), fault]);
    daemon.0.lock().expect("whole").status.children = status().children;
    service.start(None, None).expect("threads");
    let (stopper, stop) = crate::run::stop();
    let own = service.clone();
    let counting = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(serve(own, stop)).is_ok()
    });
    until("the fault is counted", || {
        let (_, text) = service.metrics(&caller, None).ok()?;
        let there = text.contains(r#"multus_child_faults_by_kind_total{child="io",kind="hang"} 1"#);
        (there && text.contains("\nmultus_up 1\n")).then_some(())
    });
    stopper.stop();
    assert!(counting.join().expect("no panic"));
}
