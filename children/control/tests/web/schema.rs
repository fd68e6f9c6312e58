//! The OpenAPI document against the server: schemathesis makes up requests from the one and sends them to the other.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::http::Browser;
use super::up;
use super::world::{World, skip};

#[test]
fn schemathesis_finds_no_difference() {
    let Some(program) = schemathesis() else { return };
    let mut world = World::new();
    let address = up(&mut world);
    let token = world.token("tester", 10);
    assert_eq!(Browser::with_token(address, &token).get("/api/v1/status").status, 200);
    let output = Command::new(program)
        .args([
            "run",
            "--checks",
            CHECKS,
            "--max-examples",
            "25",
            "--phases",
            "examples,coverage,fuzzing",
            "--seed",
            "1",
        ])
        .args(["--request-timeout", "20", "--suppress-health-check", "all", "--no-color"])
        // Streams have no end, and the others would end the test.
        .args([
            "--exclude-operation-id",
            "stream",
            "--exclude-operation-id",
            "stream-log",
            "--exclude-operation-id",
            "reboot",
        ])
        .args(
            ["remove-token", "restart", "stop", "disable", "instances"]
                .map(|id| ["--exclude-operation-id", id])
                .as_flattened(),
        )
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .arg(format!("http://{address}/api/v1/openapi.json"))
        .current_dir(world.path(""))
        .output()
        .expect("it was installed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(Browser::with_token(address, &token).get("/api/v1/status").status, 200);
}

/// The program, installed once into the directory for build results.
fn schemathesis() -> Option<PathBuf> {
    let test = "schemathesis_finds_no_difference";
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("schemathesis");
    let program = dir.join("bin/schemathesis");
    if program.exists() {
        return Some(program);
    }
    let run = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
    let made = run(Command::new("python3").args(["-m", "venv"]).arg(&dir))
        && run(Command::new(dir.join("bin/pip")).args(["install", "--quiet", "--disable-pip-version-check", VERSION]));
    if !made {
        skip(test, "schemathesis cannot be installed (python3 with venv, pip and its registry are needed)");
        let _ = std::fs::remove_dir_all(&dir);
        return None;
    }
    Some(program)
}

const VERSION: &str = "schemathesis>=4,<5";
/// What a request does not fit (`negative_data_rejection`) is told by 422, 400, 404 alike.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,negative_data_rejection,use_after_free,ignored_auth,unsupported_method";
