//! Asking the program of a child about its own parameters: `--print-schema`, `--check-config FILE`.
//!
//! A program that does not know these words would start to work instead. So only one whose own file holds the words is asked,
//! without what multusd gave to this process, for a bounded time, and with a bounded answer.

use std::fs::File;
use std::io::{Read, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

/// Tells one state of a program's files from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp(Vec<(u64, u64, u64, i64, i64)>);

impl Stamp {
    /// Of the program and of the scripts among its arguments; `None` if it cannot be looked at.
    pub(super) fn of(program: &Path, arguments: &[String]) -> Option<Self> {
        let mut files = Vec::new();
        for path in std::iter::once(program.to_path_buf()).chain(scripts(arguments)) {
            let data = path.metadata().ok()?;
            files.push((data.dev(), data.ino(), data.size(), data.mtime(), data.mtime_nsec()));
        }
        Some(Self(files))
    }
}

/// The schema that the program prints; `None` if it does not know how.
///
/// # Errors
/// It failed, took too long, or what it printed is no schema.
pub(super) fn print_schema(program: &Path, arguments: &[String]) -> Result<Option<Value>, String> {
    if !knows(program, arguments, "--print-schema") {
        return Ok(None);
    }
    let answer = run(program, arguments, &["--print-schema"])?;
    if !answer.success {
        return Err(format!("--print-schema failed: {}", first_line(&answer.errors)));
    }
    let schema: Value =
        serde_json::from_slice(&answer.output).map_err(|error| format!("--print-schema: no JSON: {error}"))?;
    if schema.is_object() { Ok(Some(schema)) } else { Err("--print-schema: no schema".to_owned()) }
}

/// What the program finds wrong with the configuration in `file`, as it says it; `None`: nothing, or it cannot be asked.
///
/// # Errors
/// It could not be run, or took too long.
pub(super) fn check_config(program: &Path, arguments: &[String], file: &Path) -> Result<Option<String>, String> {
    let file = file.to_str().ok_or("a path that is no text")?;
    if !knows(program, arguments, "--check-config") {
        return Ok(None);
    }
    let answer = run(program, arguments, &["--check-config", file])?;
    let errors = String::from_utf8_lossy(&answer.errors).into_owned();
    Ok((!answer.success).then_some(errors))
}

/// Whether the file of the program, or a script among its arguments, holds `word`.
fn knows(program: &Path, arguments: &[String], word: &str) -> bool {
    std::iter::once(program.to_path_buf()).chain(scripts(arguments)).any(|path| holds(&path, word).unwrap_or(false))
}

/// Arguments that are files: for `python3 /opt/pump.py`, the script is what counts.
fn scripts(arguments: &[String]) -> impl Iterator<Item = PathBuf> + '_ {
    arguments.iter().map(PathBuf::from).filter(|path| path.is_absolute() && path.is_file())
}

fn holds(path: &Path, word: &str) -> std::io::Result<bool> {
    let mut file = File::open(path)?.take(LARGEST_PROGRAM);
    let (mut window, mut block) = (Vec::new(), vec![0u8; 256 * 1024]);
    loop {
        let read = file.read(&mut block)?;
        if read == 0 {
            return Ok(false);
        }
        window.extend_from_slice(&block[..read]);
        if find(&window, word.as_bytes()) {
            return Ok(true);
        }
        // The word may lie across two blocks.
        window.drain(..window.len().saturating_sub(word.len()));
    }
}

fn find(text: &[u8], word: &[u8]) -> bool {
    // Words begin with two dashes, which are rare in programs: looking for the first byte skips nearly everything.
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&byte| byte == word[0]) {
        if rest[at..].starts_with(word) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

struct Answer {
    success: bool,
    output: Vec<u8>,
    errors: Vec<u8>,
}

fn run(program: &Path, arguments: &[String], question: &[&str]) -> Result<Answer, String> {
    let mut command = Command::new(program);
    command.args(arguments).args(question);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let is_ours = name.starts_with("MULTUS_") || name == "NOTIFY_SOCKET" || name.starts_with("WATCHDOG_");
        if is_ours {
            command.env_remove(name.as_ref());
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).current_dir("/").process_group(0);
    let mut child = command.spawn().map_err(|error| format!("cannot be started: {error}"))?;
    let group = Pid::from_raw(child.id().cast_signed());
    let (output, errors) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let end = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Ok(status),
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
            Ok(None) => break Err(format!("{question:?}: no answer within {PATIENCE:?}")),
            Err(error) => break Err(error.to_string()),
        }
    };
    // Whatever it started goes with it, and lets go of the pipes. Not there any more is as good.
    let _ = killpg(group, Signal::SIGKILL);
    if status.is_err() {
        let _ = child.wait();
    }
    let read = |thread: Option<Collector>| thread.and_then(|thread| thread.join().ok()).unwrap_or_default();
    let (output, errors) = (read(output), read(errors));
    Ok(Answer { success: status?.success(), output, errors })
}

type Collector = std::thread::JoinHandle<Vec<u8>>;

/// Reads all of a pipe, keeps a bounded part.
fn collect(pipe: Option<impl Read + Send + 'static>) -> Option<Collector> {
    let mut pipe = pipe?;
    let collect = move || {
        let mut kept = Vec::new();
        let _ = (&mut pipe).take(LARGEST_ANSWER).read_to_end(&mut kept);
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        kept
    };
    std::thread::Builder::new().name("answer".into()).spawn(collect).ok()
}

fn first_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).lines().next().unwrap_or("it says nothing").chars().take(200).collect()
}

/// A file with `text` that only this user can read, for a program to look at; gone when dropped.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
}

impl Draft {
    pub(super) fn new(dir: &Path, text: &str) -> std::io::Result<Self> {
        use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
        use std::sync::atomic::{AtomicU64, Ordering};
        static NUMBER: AtomicU64 = AtomicU64::new(0);

        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let draft = Self { path: dir.join(format!(".draft-{}-{number}.toml", std::process::id())) };
        let mut options = File::options();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft.path)?;
        file.write_all(text.as_bytes())?;
        Ok(draft)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A program answers in milliseconds; one on a cold SD card in a second or two.
const PATIENCE: Duration = Duration::from_secs(5);
const LARGEST_ANSWER: u64 = 1 << 20;
const LARGEST_PROGRAM: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn script(dir: &Path, text: &str) -> PathBuf {
        let path = dir.join("program");
        std::fs::write(&path, text).expect("writable");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("own file");
        path
    }

    #[test]
    fn only_a_program_that_knows_the_word_is_run() {
        let temp = tempfile::tempdir().expect("a temporary directory can be made");
        let marker = temp.path().join("it ran");
        let program = script(temp.path(), &format!("#!/bin/sh\ntouch '{}'\n", marker.display()));
        assert_eq!(print_schema(&program, &[]), Ok(None));
        assert_eq!(
            print_schema(Path::new("/bin/sh"), &["-c".into(), format!("touch '{}'", marker.display())]),
            Ok(None)
        );
        assert!(!marker.exists());

        let program = script(temp.path(), "#!/bin/sh\n[ \"$1\" = --print-schema ] && echo '{\"title\": \"x\"}'\n");
        assert_eq!(print_schema(&program, &[]), Ok(Some(serde_json::json!({ "title": "x" }))));
        let by_shell = print_schema(Path::new("/bin/sh"), &[program.to_string_lossy().into_owned()]);
        assert_eq!(by_shell, Ok(Some(serde_json::json!({ "title": "x" }))));
    }

    #[test]
    fn a_program_that_fails_or_babbles_does_no_harm() {
        let temp = tempfile::tempdir().expect("a temporary directory can be made");
        let program = script(temp.path(), "#!/bin/sh\n# --print-schema\necho bad >&2\nexit 1\n");
        assert!(print_schema(&program, &[]).expect_err("it failed").contains("bad"));
        let program = script(temp.path(), "#!/bin/sh\n# --print-schema\nhead -c 9000000 /dev/zero\n");
        assert!(print_schema(&program, &[]).expect_err("no JSON").contains("JSON"));
        let program = script(temp.path(), "#!/bin/sh\n# --check-config\ncat \"$2\" >&2\nexit 1\n");
        let draft = Draft::new(&temp.path().join("new"), "x = 1\n").expect("writable");
        assert_eq!(check_config(&program, &[], draft.path()), Ok(Some("x = 1\n".into())));
        let path = draft.path().to_path_buf();
        drop(draft);
        assert!(!path.exists());
    }
}
