//! Runs the program as somebody in a terminal would, without multusd.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_multus-read-dido"));
    for variable in ["MULTUS_CONFIG", "MULTUS_NAME", "MULTUS_INSTANCE", "MULTUS_LOG_LEVEL", "MULTUS_HEARTBEAT_FD"] {
        command.env_remove(variable);
    }
    command
}

fn said(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = program().args(arguments).output().expect("it was built");
    (status.code(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

/// A configuration file of this test.
fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).expect("cargo made this directory");
    path
}

#[test]
fn it_tells_what_it_is_and_what_it_takes() {
    let (code, text) = said(&["--version"]);
    assert_eq!((code, text.trim()), (Some(0), concat!("multus-read-dido ", env!("CARGO_PKG_VERSION"))));
    let (code, text) = said(&["--help"]);
    assert!(code == Some(0) && text.contains("--check-config") && text.contains("receiver"), "{text}");
    let (code, text) = said(&["--print-schema"]);
    let schema: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(code, Some(0));
    assert_eq!(schema["title"], "multus-read-dido");
    // Who sets outputs is for administrators, and secrets are marked as such.
    assert_eq!(schema["properties"]["bind"]["x-edit-level"], 10);
    assert_eq!(schema["$defs"]["Receiver"]["properties"]["senders"]["x-edit-level"], 10);
    for (table, key) in [("Receiver", "key"), ("Remote", "token"), ("Remote", "key"), ("Known", "token")] {
        assert_eq!(schema["$defs"][table]["properties"][key]["x-secret-file"], true, "{table}.{key}");
    }
}

#[test]
fn mistakes_are_told_with_their_lines() {
    let wrong =
        file("mirror-wrong.toml", "port = 9091\n[sender]\nsourc = 1\n[[receiver.senders]]\nname = 5\nout = []\n");
    let (code, text) = said(&["--check-config", &wrong.to_string_lossy()]);
    assert_ne!(code, Some(0));
    for expected in [":3:", ":5:", ":6:", "did you mean \"source\"?"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let twice = file(
        "mirror-twice.toml",
        "[[receiver.senders]]\nname = \"a\"\noutputs = [\"DO1\"]\n[[receiver.senders]]\nname = \"b\"\noutputs = [\"DO1\"]\n",
    );
    let (code, text) = said(&["--check-config", &twice.to_string_lossy()]);
    assert!(code != Some(0) && text.contains("DO1 is set by sender a already; one output has one sender"), "{text}");
    let (code, text) = said(&["--check-config", &file("mirror-good.toml", "").to_string_lossy()]);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn it_runs_without_multusd_and_ends_when_it_is_told() {
    let good = file("mirror-alone.toml", "port = 0\n");
    let mut command = program();
    let mut child =
        command.arg("--config").arg(good).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it was built");
    let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let nothing = lines.map_while(Result::ok).find(|line| line.contains("nothing to do"));
    assert!(nothing.is_some(), "it says that it has nothing to do");
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill is there");
    assert!(status.success() && child.wait().expect("own child").success());
}
