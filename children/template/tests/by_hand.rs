//! Runs the program as somebody in a terminal would, without multusd.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

fn template() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_multus-template"));
    for variable in ["MULTUS_CONFIG", "MULTUS_NAME", "MULTUS_INSTANCE", "MULTUS_LOG_LEVEL", "MULTUS_HEARTBEAT_FD"] {
        command.env_remove(variable);
    }
    command
}

fn output_of(arguments: &[&str]) -> Output {
    template().args(arguments).output().expect("the program was built for this test")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the program writes UTF-8")
}

/// A configuration file of this test.
fn config(name: &str, content: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, content).expect("cargo made this directory");
    path
}

/// A running program; killed when a test fails.
struct Running {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program was built");
        let lines = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        Self { child, lines }
    }

    /// Reads lines until one holds `what`.
    fn wait_for(&mut self, what: &str) -> String {
        let mut seen = String::new();
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).expect("stdout can be read") == 0 {
                let mut errors = String::new();
                let _ = self.child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut errors));
                panic!("ended before it said {what:?}; stdout:\n{seen}stderr:\n{errors}");
            }
            if line.contains(what) {
                return line;
            }
            seen.push_str(&line);
        }
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill {signal}");
    }

    fn exit_code(&mut self) -> Option<i32> {
        let started = Instant::now();
        while started.elapsed() < LIMIT {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("still running after {LIMIT:?}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn help_names_options_and_keys() {
    let output = output_of(&["--help"]);
    assert!(output.status.success());
    let help = text(&output.stdout);
    for expected in
        ["--print-schema", "--check-config", "every = 100", "Say it in every n-th cycle.", "period = \"50ms\""]
    {
        assert!(help.contains(expected), "{expected} is missing in:\n{help}");
    }
}

#[test]
fn version_is_that_of_the_package() {
    let output = output_of(&["--version"]);
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), concat!("multus-template ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn the_schema_documents_every_key_in_order() {
    let output = output_of(&["--print-schema"]);
    assert!(output.status.success());
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("the schema is JSON");
    assert_eq!(schema["title"], "multus-template");
    assert_eq!(schema["additionalProperties"], false);
    let properties = schema["properties"].as_object().expect("the configuration is a table");
    assert_eq!(properties.len(), 3);
    for key in ["period", "message", "every"] {
        assert!(properties[key]["description"].is_string(), "{key} has no description");
        assert!(!properties[key]["default"].is_null(), "{key} has no default");
    }
    let printed = text(&output.stdout);
    let position = |key: &str| printed.find(key).expect("the key is printed");
    assert!(position("\"period\"") < position("\"message\"") && position("\"message\"") < position("\"every\""));
}

#[test]
fn a_good_configuration_is_accepted() {
    let file = config("good.toml", "# as I like it\nmessage = \"hi\"\nperiod = \"10ms\"\n");
    for arguments in [["--check-config", "FILE"], ["--config", "FILE"]] {
        let arguments =
            arguments.map(|argument| if argument == "FILE" { file.to_str().expect("UTF-8") } else { argument });
        let output = template().args(arguments).arg("--check-config").output().expect("the program was built");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
}

#[test]
fn every_mistake_of_a_bad_configuration_is_told() {
    let file = config("bad.toml", "# two mistakes\n\nmesage = \"hi\"\nevery = 0\nperiod = 5\n");
    let file = file.to_str().expect("UTF-8");
    let output = output_of(&["--check-config", file]);
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    for expected in [
        format!("{file}:3: mesage: unknown key; did you mean \"message\"?"),
        format!("{file}:4: every: found 0, expected an integer from 1 to 4294967295"),
        format!("{file}:5: period: found an integer, expected a duration such as"),
    ] {
        assert!(errors.contains(&expected), "{expected} is missing in:\n{errors}");
    }
    let output = output_of(&["--config", file]);
    assert_eq!(output.status.code(), Some(1), "it does not run with a bad configuration");
    assert!(text(&output.stderr).contains("did you mean"));
}

#[test]
fn a_wrong_command_line_is_refused() {
    for arguments in [&["--colour"][..], &["stray"], &["--config"]] {
        let output = output_of(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains("--help"));
    }
}

#[test]
fn runs_unsupervised_and_ends_in_good_order_when_asked() {
    for signal in ["-TERM", "-INT"] {
        let file = config(&format!("run{signal}.toml"), "message = \"hi there\"\nevery = 1\nperiod = \"10ms\"\n");
        let mut command = template();
        command.arg("--config").arg(file);
        let mut running = Running::start(command);
        running.wait_for("multus-template is ready");
        running.wait_for("hi there (3 cycles)");
        running.signal(signal);
        assert_eq!(running.exit_code(), Some(0));
    }
}

#[test]
fn a_long_pause_does_not_delay_the_end() {
    let file = config("slow.toml", "every = 1\nperiod = \"1h\"\n");
    let mut command = template();
    command.arg("--config").arg(file);
    let mut running = Running::start(command);
    running.wait_for("(1 cycles)");
    running.signal("-TERM");
    assert_eq!(running.exit_code(), Some(0));
}

#[test]
fn a_changed_configuration_is_read_again_and_a_bad_one_is_not_taken() {
    let file = config("reload.toml", "message = \"first\"\nevery = 1\nperiod = \"10ms\"\n");
    let mut command = template();
    command.env("MULTUS_CONFIG", &file).env("MULTUS_NAME", "greeter");
    let mut running = Running::start(command);
    let line = running.wait_for("first (1 cycles)");
    assert_eq!(line, "INFO  first (1 cycles)\n", "supervised, the daemon adds the time");
    std::fs::write(&file, "mesage = 1\n").expect("the file can be written");
    running.signal("-HUP");
    running.wait_for("first (");
    std::fs::write(&file, "message = \"second\"\nevery = 1\nperiod = \"10ms\"\n").expect("the file can be written");
    running.signal("-HUP");
    running.wait_for("greeter is ready");
    running.wait_for("second (1 cycles)");
    running.signal("-TERM");
    assert_eq!(running.exit_code(), Some(0));
}

#[test]
fn a_missing_file_means_defaults_only_when_supervised() {
    let missing = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("missing.toml");
    let output = template().arg("--config").arg(&missing).output().expect("the program was built");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no such file"));
    let mut command = template();
    command.env("MULTUS_CONFIG", &missing);
    let mut running = Running::start(command);
    running.wait_for("does not exist");
    running.wait_for("is ready");
    running.signal("-TERM");
    assert_eq!(running.exit_code(), Some(0));
}
