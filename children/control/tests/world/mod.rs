//! A world for end-to-end tests of multus-control: directories of its own, a real `multusd` that runs a real
//! `multus-control`, and patience. When a test fails, logs are printed; when it ends, the daemon is stopped by its process id.

#![allow(dead_code)] // Each test program uses a part.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use multus_contract::api::command::{Client, Request};
use multus_contract::api::status::{ChildStatus, Status};
use multus_contract::dirs::Dirs;
use multus_users::Tokens;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long a test waits for anything. Only a failed test waits that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// From look to look.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// One daemon and everything around it.
#[derive(Debug)]
pub(crate) struct World {
    dirs: Dirs,
    temp: TempDir,
    daemon: Option<Child>,
}

impl World {
    /// Directories, and a daemon that is not started yet.
    pub(crate) fn new() -> Self {
        let temp =
            tempfile::Builder::new().prefix("multus-control-").tempdir().expect("a temporary directory can be made");
        let at = |name: &str| temp.path().join(name);
        let dirs = Dirs { config: at("etc"), runtime: at("run"), logs: at("log"), state: at("state") };
        for dir in [&dirs.children_dir(), &dirs.config.join("config"), &dirs.runtime, &dirs.logs, &dirs.state] {
            fs::create_dir_all(dir).expect("own directory");
        }
        Self { dirs, temp, daemon: None }
    }

    pub(crate) fn dirs(&self) -> &Dirs {
        &self.dirs
    }

    /// A path in the world's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Writes the file of a child.
    pub(crate) fn child(&self, name: &str, text: &str) {
        fs::write(self.dirs.child_file(name), text).expect("own file");
    }

    /// Writes the parameters of a child.
    pub(crate) fn parameters(&self, instance: &str, text: &str) {
        fs::write(self.dirs.parameter_file(instance), text).expect("own file");
    }

    /// Writes a program.
    pub(crate) fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("own file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("own file");
        path
    }

    /// Has multus-control among the children, with these parameters.
    pub(crate) fn control(&self, parameters: &str) {
        let program = env!("CARGO_BIN_EXE_multus-control");
        let text = format!(
            "command = [{program:?}]\n[heartbeat]\ndeadline = \"5s\"\n[restart]\ndelays = [\"0s\"]\n[stop]\ntimeout = \"5s\"\n"
        );
        self.child("control", &text);
        self.parameters("control", parameters);
    }

    /// A plant on a simulated board: multus-io with the lines of [`LINES`], and a pump that asks for nothing.
    pub(crate) fn plant(&self) {
        build("multus-io");
        fs::write(self.dirs.config.join("hardware.toml"), LINES).expect("own file");
        self.child("pump", "command = [\"/bin/sleep\", \"100000\"]\n[heartbeat]\nmethod = \"none\"\n");
        self.child("io", "command = [\"multus-io\"]\n[heartbeat]\ndeadline = \"2s\"\n[restart]\ndelays = [\"0s\"]\n");
    }

    /// Starts the daemon and waits until it answers.
    pub(crate) fn start(&mut self) {
        self.start_by(self.command("multusd"));
    }

    /// The same by another command, such as one that enters a network namespace first.
    pub(crate) fn start_by(&mut self, mut command: Command) {
        let out = File::options().create(true).append(true).open(self.path("multusd.out")).expect("own file");
        let err = out.try_clone().expect("a descriptor is left");
        self.daemon = Some(command.stdout(out).stderr(err).spawn().expect("multusd can be started"));
        self.wait("the daemon answers", || self.try_status());
    }

    /// `multusd` or `multusctl` with this world's directories.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(programs().join(program));
        for (variable, dir) in self.dirs.variables() {
            command.env(variable, dir);
        }
        command.stdin(Stdio::null()).current_dir("/");
        command
    }

    /// Runs `multusctl`, which must succeed; what it printed.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } =
            self.command("multusctl").args(arguments).output().expect("it was built");
        assert!(status.success(), "multusctl {arguments:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).expect("text")
    }

    /// A token of this level; multus-control knows it soon.
    pub(crate) fn token(&self, name: &str, level: u32) -> String {
        self.ctl(&["token", "add", name, "--level", &level.to_string()]).trim().to_owned()
    }

    /// Puts the end of a token into the past.
    pub(crate) fn expire(&self, name: &str) {
        let file = Tokens::file(&self.dirs.config);
        let text = fs::read_to_string(&file).expect("there are tokens");
        let mut document: toml_edit::DocumentMut = text.parse().expect("TOML");
        let tokens = document["token"].as_array_of_tables_mut().expect("a list");
        let token = tokens.iter_mut().find(|token| token["name"].as_str() == Some(name)).expect("it is there");
        token["expires"] = toml_edit::value("2001-02-03T04:05:06Z");
        fs::write(&file, document.to_string()).expect("own file");
    }

    fn try_status(&self) -> Option<Status> {
        let mut client = Client::connect(&self.dirs.control_socket()).ok()?;
        client.request_as(&Request::Status { name: None }).ok()
    }

    /// Sends a request to the daemon that must be granted.
    pub(crate) fn tell(&self, request: &Request) {
        let mut client = Client::connect(&self.dirs.control_socket()).expect("the daemon answers");
        client.request(request).unwrap_or_else(|error| panic!("{request:?}: {error}"));
    }

    /// The status of one instance.
    pub(crate) fn of(&self, name: &str) -> ChildStatus {
        self.wait(name, || self.try_status()?.children.into_iter().find(|child| child.name == name))
    }

    /// Waits until an instance is in this state.
    pub(crate) fn wait_state(&self, name: &str, state: &str) -> ChildStatus {
        self.wait(&format!("{name} is {state}"), || Some(self.of(name)).filter(|child| child.state == state))
    }

    /// The log of a child as far as it is written.
    pub(crate) fn log(&self, name: &str) -> String {
        fs::read(self.dirs.child_log(name))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Waits until the log of a child holds a line with `words`; the rest of the latest such line.
    pub(crate) fn wait_log(&self, name: &str, words: &str) -> String {
        self.wait(&format!("{words:?} in the log of {name}"), || {
            let log = self.log(name);
            let (_, rest) = log.rsplit_once(words)?;
            rest.split_once('\n').map(|(line, _)| line.trim().to_owned())
        })
    }

    /// Looks again and again until there is something to see.
    pub(crate) fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(seen) = look() {
                return seen;
            }
            assert!(Instant::now() < end, "not seen within {PATIENCE:?}: {what}");
            std::thread::sleep(PAUSE);
        }
    }

    /// Waits until the daemon has ended by itself; how.
    pub(crate) fn wait_end(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            let daemon = self.daemon.as_mut().expect("it was started");
            if let Some(status) = daemon.try_wait().expect("own child") {
                self.daemon = None;
                return status;
            }
            assert!(Instant::now() < end, "the daemon did not end");
            std::thread::sleep(PAUSE);
        }
    }

    /// For `multusd.toml`: in place of a reboot of this machine a file is made.
    pub(crate) fn reboot(&self) -> String {
        format!("[reboot]\ncommand = [\"/usr/bin/touch\", {:?}]\n", self.path("rebooted"))
    }

    /// Whether the machine would have been started anew.
    pub(crate) fn was_rebooted(&self) -> bool {
        self.path("rebooted").exists()
    }

    fn print_everything(&self) {
        let mut files = vec![self.path("multusd.out")];
        files.extend(fs::read_dir(&self.dirs.logs).into_iter().flatten().flatten().map(|entry| entry.path()));
        for file in files {
            let text = fs::read(&file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("---- {}", file.display());
            lines[lines.len().saturating_sub(60)..].iter().for_each(|line| eprintln!("{line}"));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_everything();
        }
        let Some(mut daemon) = self.daemon.take() else { return };
        let pid = Pid::from_raw(daemon.id().cast_signed());
        let _ = kill(pid, Signal::SIGTERM);
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if daemon.try_wait().is_ok_and(|ended| ended.is_some()) {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        let _ = kill(pid, Signal::SIGKILL);
        let _ = daemon.wait();
    }
}

/// A file system of its own, unmounted at the end.
pub(crate) struct Small(PathBuf);

impl Small {
    /// Of this size, such as "256k"; the error says why it is not possible.
    pub(crate) fn mount(at: &Path, size: &str) -> Result<Self, String> {
        let output =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at).output();
        match output {
            Ok(output) if output.status.success() => Ok(Self(at.to_path_buf())),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Takes all the room that is left, with a file.
    pub(crate) fn fill(&self) -> PathBuf {
        let filler = self.0.join("filler");
        let mut file = File::create(&filler).expect("room");
        while file.write_all(&[0; 512]).is_ok() {}
        filler
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// The lines of [`World::plant`].
pub(crate) const LINES: &str = r#"
board = "sim"
[lines]
DI1 = { kind = "digital-input", gpio = 4, active_low = true, bias = "pull-up" }
DI2 = { kind = "digital-input", gpio = 5 }
T1 = { kind = "analogue-input", lm75 = { address = 0x48 } }
DO1 = { kind = "digital-output", gpio = 25, safe = "off", owner = "pump" }
DO2 = { kind = "digital-output", gpio = 24, safe = "on", owner = "pump" }
DO3 = { kind = "digital-output", gpio = 23, safe = "off" }
AO1 = { kind = "analogue-output", mcp4922 = { channel = 0 }, safe = 2.5 }
VALVE = { kind = "analogue-output", mcp4922 = { channel = 1 }, scale = 10.0, unit = "%", safe = 100.0, highest = 100.0, owner = "pump" }
"#;

/// Builds a program of another package, because cargo builds only those of the package under test.
pub(crate) fn build(package: &str) {
    let target = programs().parent().expect("the profile has a directory of its own");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "-p", package, "--target-dir"]).arg(target);
    if cfg!(not(debug_assertions)) {
        build.arg("--release");
    }
    let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo runs this test");
    assert!(built.status.success(), "{package}: {}", String::from_utf8_lossy(&built.stderr));
}

/// Where a program is that was built here.
pub(crate) fn built(program: &str) -> PathBuf {
    programs().join(program)
}

/// Where `multusd` and `multusctl` are: built from the same tree, beside the program under test.
fn programs() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let control = Path::new(env!("CARGO_BIN_EXE_multus-control"));
        let dir = control.parent().expect("a program lies in a directory");
        let target = dir.parent().expect("the profile has a directory of its own");
        // Built here, because cargo builds only the programs of the package under test, and an old one would mislead.
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "-p", "multusd", "--bins", "--target-dir"]).arg(target);
        if dir.ends_with("release") {
            build.arg("--release");
        }
        let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo runs this test");
        assert!(built.status.success(), "multusd: {}", String::from_utf8_lossy(&built.stderr));
        dir.to_path_buf()
    })
}

/// Says why a test does nothing: on stderr, and in the file that the test script counts.
pub(crate) fn skip(test: &str, reason: &str) {
    eprintln!("skipped: {test}: {reason}");
    if let Some(path) = std::env::var_os("MULTUS_SKIP_LOG")
        && let Ok(mut file) = File::options().create(true).append(true).open(path)
    {
        let _ = file.write_all(format!("skipped: {test}: {reason}\n").as_bytes());
    }
}
