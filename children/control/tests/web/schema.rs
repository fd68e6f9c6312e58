//! The OpenAPI document against the server: schemathesis makes up requests from the one and sends them to the other.

use std::net::SocketAddr;
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
    std::fs::write(world.path("protect_control.py"), HOOKS).expect("own file");
    // Most of what is made up reaches something with the first; the second may only look.
    for (name, level, examples, left_out) in [
        ("tester", 10, "25", &["stream", "stream-log", "reboot", "remove-token"][..]),
        ("looker", 100, "5", &["stream", "stream-log"]),
    ] {
        let token = world.token(name, level);
        let status = || Browser::with_token(address, &token).get("/api/v1/status").status;
        world.wait("the token counts", || (status() == 200).then_some(()));
        run(&program, &world, address, &token, examples, left_out);
        assert_eq!(status(), 200);
    }
    assert!(!world.was_rebooted());
}

/// Streams have no end, and others would end the test: they are left out.
fn run(program: &Path, world: &World, address: SocketAddr, token: &str, examples: &str, left_out: &[&str]) {
    let output = Command::new(program)
        .args([
            "run",
            "--checks",
            CHECKS,
            "--max-examples",
            examples,
            "--phases",
            "examples,coverage,fuzzing",
            "--seed",
            "1",
        ])
        .args(["--request-timeout", "20", "--suppress-health-check", "all", "--no-color"])
        .args(left_out.iter().flat_map(|id| ["--exclude-operation-id", id]))
        .env("SCHEMATHESIS_HOOKS", "protect_control")
        .env("PYTHONPATH", world.path(""))
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .arg(format!("http://{address}/api/v1/openapi.json"))
        .current_dir(world.path(""))
        .output()
        .expect("it was installed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
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

/// Orders to made-up children come to nothing: good ones go to "idle", and none to the one that answers.
const HOOKS: &str = r#"
import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    parameters = case.path_parameters or {}
    is_order = case.operation.path.startswith("/api/v1/children/{name}/") and case.operation.method.upper() != "GET"
    if not is_order or "name" not in parameters:
        return
    is_good = case.meta is not None and not case.meta.generation.mode.is_negative
    if is_good or parameters["name"] == "control":
        parameters["name"] = "idle"
    # A few processes are enough.
    if is_good and isinstance(case.body, dict) and isinstance(case.body.get("instances"), int):
        case.body["instances"] = min(case.body["instances"], 3)
"#;
const VERSION: &str = "schemathesis>=4,<5";
/// What a request does not fit (`negative_data_rejection`) is told by 422, 400, 404 alike.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,negative_data_rejection,use_after_free,ignored_auth,unsupported_method";
