//! Other programs that are run: found, limited in time, their complaint told.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use multus_child::Interval;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

/// Where a program is: in PATH, or where programs for the administration are, which PATH of a service may lack.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Runs a program to its end; what it printed.
///
/// # Errors
/// It is not there, fails (with its last words), or takes longer than [`PATIENCE`] and is killed.
pub(crate) async fn run(name: &str, arguments: &[&str]) -> Result<String, String> {
    run_with_input(name, arguments, "").await
}

/// As [`run`], with a text to read.
pub(crate) async fn run_with_input(name: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let file = find(name).ok_or_else(|| format!("{name} is not installed"))?;
    let mut command = Command::new(file);
    command.args(arguments).env("LC_ALL", "C").kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ran = async {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // Who ends without reading tells why by its exit code.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let called = || [&[name], arguments].concat().join(" ");
    let output = match timeout(PATIENCE, ran).await {
        Ok(output) => output.map_err(|error: io::Error| format!("{}: {error}", called()))?,
        Err(_) => return Err(format!("{}: no end within {}", called(), Interval::from(PATIENCE))),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    Err(format!("{}: {}: {}", called(), output.status, last.trim()))
}

/// None of them should take longer than a few seconds.
const PATIENCE: Duration = Duration::from_secs(30);
