//! A world for end-to-end tests: directories of its own, a real `multusd`, real children, and eyes to see what became of
//! them.
//!
//! A test waits for what it expects to see and is patient; nothing is assumed to be fast. When a test fails, the daemon's
//! log, the logs of the children and the last events are printed. When it ends, the daemon is stopped by its process id, and
//! nothing that belongs to this world may be left.

pub(crate) mod child;
pub(crate) mod spec;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use multus_contract::api::command::{Client, ClientError, Request};
use multus_contract::api::event::Event;
use multus_contract::api::status::{ChildStatus, Status};
use multus_contract::dirs::Dirs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use tempfile::TempDir;

pub(crate) use spec::{Spec, program, shell};

/// How long a test waits for anything. Only a failed test waits that long.
const PATIENCE: Duration = Duration::from_secs(60);
/// From look to look.
const PAUSE: Duration = Duration::from_millis(10);
/// The ordinary user that root's tests use: nobody.
pub(crate) const NOBODY: u32 = 65_534;

/// One daemon and everything around it.
pub(crate) struct World {
    dirs: Dirs,
    temp: TempDir,
    /// Run as this user instead of the one who tests.
    user: Option<u32>,
    daemon: RefCell<Option<Child>>,
    client: RefCell<Option<Client>>,
}

/// How a command line ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl World {
    /// Directories, and a daemon that is not started yet.
    pub(crate) fn new() -> Self {
        let temp = tempfile::Builder::new().prefix("multus-e2e-").tempdir().expect("a temporary directory can be made");
        let root = temp.path();
        // Children of other users must get through.
        fs::set_permissions(root, fs::Permissions::from_mode(0o755)).expect("own directory");
        let dirs = Dirs {
            config: root.join("etc"),
            runtime: root.join("run"),
            logs: root.join("log"),
            state: root.join("state"),
        };
        fs::create_dir_all(dirs.children_dir()).expect("own directory");
        fs::create_dir_all(dirs.config.join("config")).expect("own directory");
        Self { dirs, temp, user: None, daemon: RefCell::new(None), client: RefCell::new(None) }
    }

    /// A world whose daemon is an ordinary user's: no cgroups, no real-time priority, no locked memory.
    pub(crate) fn ordinary() -> Self {
        let mut world = Self::new();
        if Uid::effective().is_root() {
            world.user = Some(NOBODY);
            for dir in [world.temp.path(), &world.dirs.config] {
                chown(dir, Some(NOBODY), Some(NOBODY)).expect("root may");
            }
        }
        world
    }

    /// A world with these children, started.
    pub(crate) fn with(children: &[(&str, Spec)]) -> Self {
        let world = Self::new();
        for (name, spec) in children {
            world.child(name, spec);
        }
        world.start();
        world
    }

    /// Other directories than those of the world.
    pub(crate) fn use_dirs(&mut self, change: impl FnOnce(&mut Dirs)) {
        change(&mut self.dirs);
    }

    pub(crate) fn dirs(&self) -> &Dirs {
        &self.dirs
    }

    /// A path in the world's directory, writable for everybody.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Writes `multusd.toml`.
    pub(crate) fn daemon_config(&self, text: &str) {
        fs::write(self.dirs.daemon_file(), text).expect("own file");
    }

    /// Writes the file of a child.
    pub(crate) fn child(&self, name: &str, spec: &Spec) {
        self.child_text(name, &spec.to_string());
    }

    /// Writes the file of a child as it is.
    pub(crate) fn child_text(&self, name: &str, text: &str) {
        fs::write(self.dirs.child_file(name), text).expect("own file");
    }

    // ---- the daemon -------------------------------------------------------------------------------------------------

    /// A program of this package as this world's daemon user would run it. An ordinary user may not get to where it was
    /// built, so it is copied.
    pub(crate) fn command(&self, program: &str) -> Command {
        let path = match self.user {
            None => PathBuf::from(program),
            Some(_) => self.copy_of(Path::new(program)),
        };
        let mut command = Command::new(path);
        for (variable, dir) in self.dirs.variables() {
            command.env(variable, dir);
        }
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command.stdin(Stdio::null()).current_dir("/");
        command
    }

    /// A copy of a program at a place that every user can get to.
    pub(crate) fn copy_of(&self, program: &Path) -> PathBuf {
        let copy = self.path("bin").join(program.file_name().expect("a program has a name"));
        if !copy.exists() {
            fs::create_dir_all(self.path("bin")).expect("own directory");
            fs::copy(program, &copy).expect("readable");
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("own file");
        }
        copy
    }

    /// `multusd` with this world's directories, not started.
    pub(crate) fn multusd(&self) -> Command {
        self.command(env!("CARGO_BIN_EXE_multusd"))
    }

    /// Starts the daemon and waits until it answers.
    pub(crate) fn start(&self) {
        self.launch();
        self.wait("the daemon answers", |world| {
            if let Some(status) = world.ended() {
                panic!("multusd ended at its start: {status}");
            }
            world.try_status().map(|_| ())
        });
    }

    /// Starts the daemon.
    pub(crate) fn launch(&self) {
        let out = File::options().create(true).append(true).open(self.path("multusd.out")).expect("own file");
        let err = out.try_clone().expect("a descriptor is left");
        let daemon = start(self.multusd().stdout(out).stderr(err));
        *self.daemon.borrow_mut() = Some(daemon);
    }

    /// The daemon's process.
    pub(crate) fn pid(&self) -> i32 {
        self.daemon.borrow().as_ref().map(|d| d.id().cast_signed()).expect("the daemon was started")
    }

    /// How the daemon ended, if it did.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        self.daemon.borrow_mut().as_mut()?.try_wait().expect("own child")
    }

    /// Sends the daemon a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("the daemon runs");
    }

    /// Waits until the daemon has ended.
    pub(crate) fn wait_end(&self) -> ExitStatus {
        let status = self.wait("the daemon ends", Self::ended);
        *self.daemon.borrow_mut() = None;
        *self.client.borrow_mut() = None;
        status
    }

    /// Asks the daemon to end in order and waits until it has.
    pub(crate) fn stop(&self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait_end()
    }

    // ---- asking -----------------------------------------------------------------------------------------------------

    pub(crate) fn client(&self) -> Result<Client, ClientError> {
        Client::connect_within(&self.dirs.control_socket(), PATIENCE)
    }

    /// Sends a request; the answer's data.
    pub(crate) fn ask(&self, request: &Request) -> Result<Option<serde_json::Value>, ClientError> {
        let mut place = self.client.borrow_mut();
        let mut client = match place.take() {
            Some(client) => client,
            None => self.client()?,
        };
        let answer = client.request(request);
        if matches!(answer, Ok(_) | Err(ClientError::Refused(_))) {
            *place = Some(client);
        }
        answer
    }

    /// Sends a request that must be granted.
    pub(crate) fn tell(&self, request: &Request) {
        self.ask(request).unwrap_or_else(|error| panic!("{request:?}: {error}"));
    }

    fn try_status(&self) -> Option<Status> {
        let data = self.ask(&Request::Status { name: None }).ok()??;
        Some(serde_json::from_value(data).expect("a status"))
    }

    pub(crate) fn status(&self) -> Status {
        self.wait("a status", Self::try_status)
    }

    /// The status of one instance, which may have to be taken in yet.
    pub(crate) fn of(&self, name: &str) -> ChildStatus {
        self.wait(&format!("child {name:?}"), |world| world.status().children.into_iter().find(|c| c.name == name))
    }

    /// The process of an instance that has one.
    pub(crate) fn pid_of(&self, name: &str) -> i32 {
        self.of(name).pid.unwrap_or_else(|| panic!("{name} has no process")).cast_signed()
    }

    /// All events that are kept, from number `since` on.
    pub(crate) fn events_since(&self, since: u64) -> Vec<Event> {
        let mut client = self.client().expect("the daemon answers");
        client.request(&Request::Events { since: Some(since), follow: false }).expect("events are given");
        let mut events = Vec::new();
        while let Some(event) = client.next_event().expect("an event") {
            events.push(event);
        }
        events
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.events_since(0)
    }

    /// The number of the next event.
    pub(crate) fn next_seq(&self) -> u64 {
        self.events().last().map_or(0, |e| e.seq + 1)
    }

    /// Events of one kind of one child, so far.
    pub(crate) fn all(&self, child: &str, kind: &str) -> Vec<Event> {
        let fits = |e: &Event| e.kind == kind && e.child.as_deref() == Some(child);
        self.events().into_iter().filter(fits).collect()
    }

    // ---- waiting ----------------------------------------------------------------------------------------------------

    /// Looks again and again until there is something.
    pub(crate) fn wait<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
            thread::sleep(PAUSE);
        }
    }

    /// Waits until the condition holds.
    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        self.wait(what, |world| holds(world).then_some(()));
    }

    /// Waits for the first event that fits, from number `since` on.
    pub(crate) fn event_since(&self, since: u64, what: &str, fits: impl Fn(&Event) -> bool) -> Event {
        self.wait(what, |world| world.events_since(since).into_iter().find(|e| fits(e)))
    }

    /// Waits for the first event of this kind of this child.
    pub(crate) fn event(&self, child: &str, kind: &str) -> Event {
        self.event_after(0, child, kind)
    }

    /// Waits for the first event of this kind of this child from number `since` on.
    pub(crate) fn event_after(&self, since: u64, child: &str, kind: &str) -> Event {
        let what = format!("event {kind} of {child}");
        self.event_since(since, &what, |e| e.kind == kind && e.child.as_deref() == Some(child))
    }

    /// Waits until an instance is in this state.
    pub(crate) fn until_state(&self, name: &str, state: &str) -> ChildStatus {
        self.wait(&format!("{name} is {state}"), |world| Some(world.of(name)).filter(|c| c.state == state))
    }

    /// Waits until an instance runs with another process than `pid`.
    pub(crate) fn until_replaced(&self, name: &str, pid: i32) -> ChildStatus {
        self.wait(&format!("{name} runs with another process than {pid}"), |world| {
            Some(world.of(name)).filter(|c| c.state == "running" && c.pid != Some(pid.cast_unsigned()))
        })
    }

    // ---- files ------------------------------------------------------------------------------------------------------

    /// What a child wrote.
    pub(crate) fn log(&self, name: &str) -> String {
        fs::read(self.dirs.child_log(name)).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// Waits until the log of a child has this in it.
    pub(crate) fn until_logged(&self, name: &str, text: &str) {
        self.until(&format!("{text:?} in the log of {name}"), |world| world.log(name).contains(text));
    }

    /// The lines of a file that children write; none while there is no file.
    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    // ---- processes --------------------------------------------------------------------------------------------------

    /// Processes that run for an instance of this world, by what multusd put into their environment.
    pub(crate) fn processes_of(&self, name: &str) -> Vec<i32> {
        let wanted = format!("MULTUS_NAME={name}");
        let mine = self.dirs.runtime.display().to_string();
        processes(|variables| {
            variables.split('\0').any(|v| v == wanted) && variables.split('\0').any(|v| v.ends_with(&mine))
        })
    }

    /// Everything that was started for this world by the daemon.
    fn all_processes(&self) -> Vec<i32> {
        let mine = format!("MULTUSD_RUNTIME_DIR={}", self.dirs.runtime.display());
        processes(|variables| variables.split('\0').any(|v| v == mine))
    }

    /// Runs `multusctl`.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> Ended {
        run(self.command(env!("CARGO_BIN_EXE_multusctl")).args(arguments))
    }

    // ---- the end ----------------------------------------------------------------------------------------------------

    fn print_everything(&self) {
        let mut err = std::io::stderr().lock();
        let mut show = |what: &str, text: &str| {
            let lines: Vec<&str> = text.lines().collect();
            let _ = writeln!(err, "---- {what} (last of {} lines)", lines.len());
            for line in &lines[lines.len().saturating_sub(60)..] {
                let _ = writeln!(err, "{line}");
            }
        };
        let mut files = vec![self.path("multusd.out"), self.dirs.events_file()];
        for entry in fs::read_dir(&self.dirs.logs).into_iter().flatten().flatten() {
            files.push(entry.path());
        }
        for file in files.iter().filter(|f| f.is_file()) {
            let text = fs::read(file).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
            show(&file.display().to_string(), &text);
        }
    }

    /// Stops the daemon, however it is; whether that went in order.
    fn put_down(&self) -> Result<(), String> {
        let Some(mut daemon) = self.daemon.borrow_mut().take() else { return Ok(()) };
        let pid = Pid::from_raw(daemon.id().cast_signed());
        if daemon.try_wait().expect("own child").is_some() {
            return Err("multusd ended although nobody asked it to".into());
        }
        let _ = kill(pid, Signal::SIGTERM);
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = daemon.try_wait().expect("own child") {
                return if status.success() { Ok(()) } else { Err(format!("multusd ended with {status}")) };
            }
            thread::sleep(PAUSE);
        }
        let _ = kill(pid, Signal::SIGKILL);
        let _ = daemon.wait();
        Err("multusd did not end".into())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let failed = thread::panicking();
        if failed {
            self.print_everything();
        }
        let mut ending = self.put_down();
        let end = Instant::now() + Duration::from_secs(10);
        while !self.all_processes().is_empty() && Instant::now() < end {
            thread::sleep(PAUSE);
        }
        for pid in self.all_processes() {
            ending = ending.and(Err(format!("process {pid} is left: {}", command_line(pid))));
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if let Err(why) = ending
            && !failed
        {
            self.print_everything();
            panic!("{why}");
        }
    }
}

/// Starts a program. One that was just copied may still be open for writing in a process that another test is about to
/// execute: that passes.
fn start(command: &mut Command) -> Child {
    let end = Instant::now() + PATIENCE;
    loop {
        match command.spawn() {
            Ok(child) => return child,
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < end => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("{:?} can be started: {error}", command.get_program()),
        }
    }
}

/// Runs a command to its end, which must come.
pub(crate) fn run(command: &mut Command) -> Ended {
    let [mut out, mut err] = [(); 2].map(|()| tempfile::tempfile().expect("a temporary file can be made"));
    let copy = |file: &File| file.try_clone().expect("a descriptor is left");
    let mut child = start(command.stdout(copy(&out)).stderr(copy(&err)));
    let end = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("own child") {
            break status;
        }
        if Instant::now() > end {
            let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
            let _ = child.wait();
            panic!("{command:?} did not end within {PATIENCE:?}");
        }
        thread::sleep(PAUSE);
    };
    let text = |file: &mut File| {
        let mut text = String::new();
        file.rewind().and_then(|()| file.read_to_string(&mut text)).expect("text");
        text
    };
    Ended { code: status.code(), out: text(&mut out), err: text(&mut err) }
}

/// Whether there is a process that has not ended.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Live processes whose environment fits. Those of other users are not seen.
fn processes(fits: impl Fn(&str) -> bool) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("there is a /proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if fits(&String::from_utf8_lossy(&environment)) && is_alive(pid) {
            found.push(pid);
        }
    }
    found
}

fn command_line(pid: i32) -> String {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&text).replace('\0', " ")
}

/// A signal to a process of a test.
pub(crate) fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap_or_else(|errno| panic!("{signal} to {pid}: {errno}"));
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

/// The interpreter itself: a version manager's python3 starts another program, which is the one to be supervised. `None`: this test
/// cannot go on without.
pub(crate) fn python(test: &str) -> Option<String> {
    let which = Command::new("sh")
        .args(["-c", "command -v python3 > /dev/null && python3 -c 'import sys; print(sys.executable)'"])
        .output()
        .expect("there is a shell");
    let python = String::from_utf8_lossy(&which.stdout).trim().to_owned();
    if python.is_empty() {
        skip(test, "python3 is missing");
        return None;
    }
    Some(python)
}

/// Whether this test may go on: only root can do what it does.
pub(crate) fn needs_root(test: &str) -> bool {
    let root = Uid::effective().is_root();
    if !root {
        skip(test, "needs root");
    }
    root
}

/// Process ids by name of the instance.
pub(crate) fn pids(status: &Status) -> BTreeMap<String, Option<u32>> {
    status.children.iter().map(|c| (c.name.clone(), c.pid)).collect()
}
