//! The daemon put together: directories, lock, pages, threads; and taken apart again.

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use flexi_logger::{ErrorChannel, Logger, LoggerHandle};
use multus_contract::config::hardware::{self, HARDWARE_FILE};
use multus_contract::config::{self, Config, LogConfig, Severity};
use multus_contract::dirs::Dirs;
use multus_ipc::child::Heartbeat;
use multus_ipc::map::{self, Mapping, Table};
use multus_ipc::sync::AtomicU64;
use multus_ipc::time::unix_ns;
use multus_ipc::{MonoNs, event_ring, force, heartbeat, status};
use nix::fcntl::{Flock, FlockArg};

use crate::capture::RotatingFile;
use crate::diary::{self, Diary};
use crate::flight::Traces;
use crate::launcher::{self, Hierarchy, Launcher};
use crate::realtime::{self, Granted};
use crate::wake::Wake;
use crate::watch::{self, Helper, MAX_HELD, MAX_OUTPUTS, MAX_SLOTS, SPARES, Watch};
use crate::watchdog::{Farewell, Keeper, Kennel, Sign};
use crate::{adapters, control, evidence, guard, logroom};

/// Stack of a helper thread, bytes. All of it is locked memory; 128 KiB are used at most.
pub(crate) const STACK: usize = 256 * 1024;
/// Stack of the control thread, bytes: reading a file that nests as deep as the TOML parser allows (80 levels) takes up to
/// 512 KiB in a build without optimisation, 192 KiB in one with.
const CONTROL_STACK: usize = 1024 * 1024;
/// Events in the ring: half a megabyte.
const RING: usize = 1024;
/// How long the end of the daemon waits for each of its threads.
const JOIN_PATIENCE: Duration = Duration::from_secs(5);
/// The table has room for at least this many instances.
const LEAST_SLOTS: usize = 64;

/// How the daemon is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where everything is.
    pub dirs: Dirs,
    /// The program that can be the spawner: multusd itself.
    pub program: PathBuf,
    /// Whether what is logged also goes to standard error.
    pub verbose: bool,
}

/// Runs the daemon on the calling thread, which becomes the watch thread, until it is told to stop.
///
/// # Errors
/// Why it could not start, for people.
pub fn run(options: &Options) -> Result<(), String> {
    let dirs = &options.dirs;
    let mut loaded = config::load(&dirs.config);
    if loaded.daemon_is_broken() {
        let errors: Vec<String> = loaded.daemon_errors().map(ToString::to_string).collect();
        return Err(errors.join("\n"));
    }
    make_dir(&dirs.runtime, 0o755)?;
    // A box whose disk is broken or full still has to be supervised.
    let mut notes: Vec<String> = [(&dirs.logs, 0o755), (&dirs.state, 0o750)]
        .into_iter()
        .filter_map(|(dir, mode)| make_dir(dir, mode).err())
        .collect();
    let _lock = lock(dirs)?;
    let logger = start_logger(dirs, &loaded.config.daemon.log, options.verbose)?;
    log::info!("multusd {} starts, configuration {}", env!("CARGO_PKG_VERSION"), dirs.config.display());
    for finding in &loaded.diagnostics {
        match finding.severity {
            Severity::Error => log::error!("{finding}"),
            _ => log::warn!("{finding}"),
        }
    }
    if loaded.hardware_is_broken {
        loaded.config.hardware = hardware::kept(&dirs.state);
        match loaded.config.hardware {
            Some(_) => log::error!("the lines are those of the last {HARDWARE_FILE} without an error"),
            None => log::error!("there are no lines: {HARDWARE_FILE} has an error, and none before it is known"),
        }
    } else {
        control::keep_lines(&loaded, dirs);
    }
    raise_open_files();
    crate::sys::limit_malloc_arenas();
    let (hierarchy, killed) = Hierarchy::find(&dirs.runtime);
    if killed > 0 {
        log::warn!("{killed} processes that an earlier multusd left behind were killed");
    }
    if !hierarchy.contains() {
        notes.push(
            "no writable cgroup: what a child starts is found by process group and parentage; as a service, set \
             Delegate=yes"
                .to_owned(),
        );
        if let Err(errno) = nix::sys::prctl::set_child_subreaper(true) {
            notes.push(format!("processes that leave their session cannot be found: {}", errno.desc()));
        }
    }
    let listener = listen(dirs, loaded.config.daemon.control_group.as_deref())?;

    let mut granted = Granted::default();
    let realtime = loaded.config.daemon.realtime.clone();
    realtime::lock_memory(&realtime, &mut granted);
    if realtime.enabled {
        // Tried here, so that the status can tell; set at the very end, when all other threads exist.
        match crate::sys::set_scheduler(nix::libc::SCHED_FIFO, realtime.priority, true) {
            Ok(()) => {
                granted.priority = Some(realtime.priority);
                let _ = crate::sys::set_scheduler(nix::libc::SCHED_OTHER, 0, false);
            }
            Err(_) => granted.refused.extend(realtime::arm_thread(&realtime, realtime.priority).err()),
        }
    }
    for sentence in granted.refused.iter().chain(&notes) {
        log::warn!("{sentence}");
    }
    let result = supervise(options, loaded, hierarchy.clone(), listener, granted, notes);
    hierarchy.remove();
    let _ = fs::remove_file(dirs.control_socket());
    log::info!("multusd has ended");
    logger.shutdown();
    result
}

fn supervise(
    options: &Options,
    loaded: config::Loaded,
    hierarchy: Hierarchy,
    listener: UnixListener,
    granted: Granted,
    notes: Vec<String>,
) -> Result<(), String> {
    let dirs = &options.dirs;
    let slots = slots(&loaded.config);
    let realtime = loaded.config.daemon.realtime.clone();
    let refused = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| format!("{what}: {error}")
    };
    // The last slot is the page of the daemon's own threads.
    let table = Arc::new(Table::reserve(slots + 1, heartbeat::WATCHED_WORDS).map_err(refused("the heartbeat table"))?);
    let traces = Arc::new(Traces::new(slots));
    let own = own_page(&table, slots).map_err(refused("the daemon's own heartbeat page"))?;
    let pages = control::Pages {
        status: page(c"multus-status", status::words(slots)).map_err(refused("the status page"))?,
        events: page(c"multus-events", event_ring::words(RING)).map_err(refused("the event ring"))?,
        force: page(c"multus-force", force::words(slots * MAX_OUTPUTS + MAX_HELD, slots))
            .map_err(refused("the force page"))?,
    };
    let guard_shared = Arc::new(guard::Shared::default());
    let lines = io_pages(&pages.force.1, &guard_shared).map_err(refused("the process image"))?;
    let wake = || Wake::new().map(Arc::new).map_err(refused("an event descriptor"));
    let (wake_watch, wake_launcher, wake_evidence, wake_log, wake_control, wake_adapters, wake_guard) =
        (wake()?, wake()?, wake()?, wake()?, wake()?, wake()?, wake()?);
    let (orders, orders_in) = rtrb::RingBuffer::new(slots * 6 + 64);
    let (answers, answers_in) = rtrb::RingBuffer::new(slots * 6 + 64);
    let (requests, requests_in) = rtrb::RingBuffer::new(64);
    let (replies, replies_in) = rtrb::RingBuffer::new(slots * 2 + 256);
    let (setups, setups_in) = rtrb::RingBuffer::new(64);
    let (feeds, feeds_in) = rtrb::RingBuffer::new(64);
    let (attach, attached) = rtrb::RingBuffer::new(slots * 4 + 64);
    let (reports, reports_in) = rtrb::RingBuffer::new(256);
    let (texts, texts_in) = rtrb::RingBuffer::new(256);
    let (guard_orders, guard_orders_in) = rtrb::RingBuffer::new(64);
    let (secured, secured_in) = rtrb::RingBuffer::new(64);
    let (guard_setups, guard_setups_in) = rtrb::RingBuffer::new(8);
    let (news, news_in) = rtrb::RingBuffer::new(64);
    let sign = Arc::new(Sign::new());
    let attention = Arc::new(adapters::Attention::default());
    let reboot = Arc::new(OnceLock::new());

    // Lanes are handed out in the order in which Helper::lane numbers them.
    let lane = |helper: Helper| own.lane(helper.as_str(), None).map_err(refused("a lane"));
    let (launcher_lane, control_lane, adapters_lane, guard_lane) =
        (lane(Helper::Launcher)?, lane(Helper::Control)?, lane(Helper::Adapters)?, lane(Helper::Guard)?);
    let mut evidence_watch = Vec::new();
    let mut evidence_ends = Vec::new();
    for _ in 0..=SPARES {
        let shared = evidence::Shared {
            status: pages.status.0,
            events: pages.events.0,
            traces: Arc::clone(&traces),
            faults_dir: dirs.state.join("faults"),
            logs_dir: dirs.logs.clone(),
        };
        let (watch_end, ends) = evidence::channel(slots, &wake_evidence, &wake_watch, shared, lane(Helper::Evidence)?);
        evidence_watch.push(watch_end);
        evidence_ends.push(ends);
    }
    let mut log_lanes = Vec::new();
    for _ in 0..=SPARES {
        log_lanes.push(lane(Helper::Log)?);
    }
    evidence_ends.reverse();
    log_lanes.reverse();

    let watch = Watch::new(watch::Parts {
        table: Arc::clone(&table),
        status: pages.status.0,
        events: pages.events.0,
        force: pages.force.0,
        image: lines.image,
        guard: guard_orders,
        secured: secured_in,
        wake_guard: Arc::clone(&wake_guard),
        orders,
        answers: answers_in,
        requests: requests_in,
        replies,
        reports: reports_in,
        attention: Arc::clone(&attention),
        wake_adapters: Arc::clone(&wake_adapters),
        evidence: evidence_watch,
        wake: Arc::clone(&wake_watch),
        wake_launcher: Arc::clone(&wake_launcher),
        wake_evidence: Arc::clone(&wake_evidence),
        wake_log: Arc::clone(&wake_log),
        wake_control: Arc::clone(&wake_control),
        settings: crate::policy::settings(&loaded.config.daemon),
        seed: unix_ns(),
        sign: Arc::clone(&sign),
        realtime: granted.clone(),
    })
    .map_err(refused("the watch loop"))?;
    for fd in [&pages.status.1, &pages.events.1, &pages.force.1] {
        // Whoever is given a page from now on can only read it.
        map::seal_future_writes(fd.as_fd()).map_err(refused("sealing a page"))?;
    }

    let end = Arc::new(AtomicBool::new(false));
    let log_shared = Arc::new(logroom::Shared::new(
        dirs.logs.clone(),
        dirs.state.clone(),
        loaded.config.daemon.events,
        pages.events.0,
        pages.status.0,
        wake_log,
    ));
    let log_thread = {
        let (shared, lane) = (Arc::clone(&log_shared), log_lanes.pop().ok_or("no lane for the log thread")?);
        start(Helper::Log, move || logroom::run(&shared, 0, lane))?
    };
    let evidence_thread = {
        let (ends, end) = (evidence_ends.pop().ok_or("no ends for the evidence thread")?, Arc::clone(&end));
        start(Helper::Evidence, move || evidence::run(ends, &end))?
    };
    let below_watch = granted.priority.map(|p| p.saturating_sub(1).max(1));
    let guard_thread = {
        let ends = guard::Ends {
            orders: guard_orders_in,
            answers: secured,
            setups: guard_setups_in,
            wake: Arc::clone(&wake_guard),
            wake_watch: Arc::clone(&wake_watch),
            shared: Arc::clone(&guard_shared),
            dirs: dirs.clone(),
            priority: below_watch,
            lane: guard_lane,
        };
        let end = Arc::clone(&end);
        start(Helper::Guard, move || guard::run(ends, &end))?
    };
    let launcher_thread = {
        let ends = launcher::Ends {
            orders: orders_in,
            answers,
            setups: setups_in,
            attach,
            wake_adapters: Arc::clone(&wake_adapters),
            wake: Arc::clone(&wake_launcher),
            wake_watch: Arc::clone(&wake_watch),
            table: Arc::clone(&table),
            traces: Arc::clone(&traces),
            program: options.program.clone(),
            priority: below_watch,
            lines: lines.for_launcher,
            lane: launcher_lane,
            adopts_orphans: !hierarchy.contains(),
        };
        start(Helper::Launcher, move || Launcher::new(ends).map(Launcher::run))?
    };
    let adapters_thread = {
        let ends = adapters::Ends {
            setups: feeds_in,
            attached,
            reports,
            texts,
            wake: Arc::clone(&wake_adapters),
            attention,
            wake_watch: Arc::clone(&wake_watch),
            priority: below_watch,
            lane: adapters_lane,
        };
        let end = Arc::clone(&end);
        start(Helper::Adapters, move || adapters::run(ends, &end))?
    };
    // From here on the watchdogs count.
    let watchdogs = &loaded.config.daemon.watchdogs;
    let keeper = Keeper::new(watchdogs, dirs, Arc::clone(&sign), news, Arc::clone(&wake_control));
    let oversight =
        control::OversightParts { sign: Arc::clone(&sign), news: news_in, boot_status: keeper.boot_status() };
    let kennel = Kennel::start(keeper, sign, granted.priority.map(|p| p.saturating_sub(1).max(1)))?;
    let control_thread = {
        let parts = control::Parts {
            dirs: dirs.clone(),
            listener,
            requests,
            replies: replies_in,
            setups,
            feeds,
            texts: texts_in,
            wake_adapters: Arc::clone(&wake_adapters),
            wake: wake_control,
            wake_watch,
            wake_launcher,
            pages,
            lines: control::Lines {
                image: lines.image,
                operator: lines.operator,
                setups: guard_setups,
                wake_guard: Arc::clone(&wake_guard),
                guard: guard_shared,
            },
            table,
            granted: granted.clone(),
            notes,
            hierarchy,
            log: Arc::clone(&log_shared),
            spare_evidence: evidence_ends,
            spare_log: log_lanes,
            end: Arc::clone(&end),
            reboot: Arc::clone(&reboot),
            lane: control_lane,
            oversight,
            loaded,
            slots,
        };
        start(Helper::Control, move || control::run(parts))?
    };
    let _ = nix::sys::prctl::set_name(c"multus-watch");
    if granted.priority.is_some()
        && let Err(sentence) = realtime::arm_thread(&realtime, realtime.priority)
    {
        log::warn!("{sentence}");
    }
    watch.run();

    // The watch thread has nothing to do any more; what is left may take its time.
    kennel.hold(REBOOT_PATIENCE + 8 * JOIN_PATIENCE);
    let _ = crate::sys::set_scheduler(nix::libc::SCHED_OTHER, 0, false);
    end.store(true, Ordering::Relaxed);
    wake_evidence.wake();
    wake_adapters.wake();
    wake_guard.wake();
    for thread in [launcher_thread, control_thread, evidence_thread, adapters_thread, guard_thread] {
        join(thread);
    }
    log_shared.finish();
    join(log_thread);
    drop(own);
    let result = reboot.get().map_or(Ok(()), |command| start_anew(command));
    // A machine that was to be started anew and was not is left to the watchdogs.
    kennel.part(if result.is_ok() { Farewell::Disarm } else { Farewell::Leave });
    result
}

/// How long the command that starts the machine anew may take before this daemon ends without it.
const REBOOT_PATIENCE: Duration = Duration::from_secs(60);

/// Starts the machine anew. All children are stopped by now: if the machine stays, this daemon must end with an error, so
/// that whatever guards it starts it again.
fn start_anew(command: &[String]) -> Result<(), String> {
    let Some((program, arguments)) = command.split_first() else { return Err("[reboot] command is empty".into()) };
    log::warn!("all children are stopped; starting the machine anew: {}", command.join(" "));
    let failed = |what: &dyn std::fmt::Display| {
        log::error!("[reboot] command {program}: {what}");
        format!("[reboot] command {program}: {what}; the machine was not started anew")
    };
    let mut started =
        Command::new(program).args(arguments).stdin(Stdio::null()).spawn().map_err(|error| failed(&error))?;
    let begun = MonoNs::now();
    loop {
        match started.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(failed(&status)),
            Ok(None) if MonoNs::now().since(begun) < REBOOT_PATIENCE => {
                thread::park_timeout(Duration::from_millis(20));
            }
            Ok(None) => return Err(failed(&"it does not end")),
            Err(error) => return Err(failed(&error)),
        }
    }
}

/// Waits for a thread to end, but not for ever: it may be one that was found stuck and replaced.
fn join(thread: JoinHandle<()>) {
    let begun = MonoNs::now();
    while !thread.is_finished() {
        if MonoNs::now().since(begun) > JOIN_PATIENCE {
            log::error!("{} does not end; it is left behind", thread.thread().name().unwrap_or("a thread"));
            return;
        }
        thread::park_timeout(Duration::from_millis(1));
    }
    let _ = thread.join();
}

fn start(helper: Helper, work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<JoinHandle<()>, String> {
    let name = format!("multus-{}", helper.as_str());
    let body = move || {
        if matches!(helper, Helper::Guard | Helper::Adapters) {
            diary::leave_lines();
        }
        if let Err(error) = work() {
            // Its lane falls silent, and the watch thread decides what that means.
            log::error!("the {} thread ended: {error}", helper.as_str());
        }
    };
    thread::Builder::new()
        .name(name)
        .stack_size(if helper == Helper::Control { CONTROL_STACK } else { STACK })
        .spawn(body)
        .map_err(|error| format!("the {} thread: {error}", helper.as_str()))
}

/// Room for what is configured and as much again.
fn slots(config: &Config) -> usize {
    let configured: usize = config.children.iter().map(|c| usize::from(c.instances)).sum();
    let wanted = config.daemon.max_children.map_or((2 * configured).max(LEAST_SLOTS), usize::from);
    wanted.clamp(1, MAX_SLOTS - 1)
}

fn page(name: &std::ffi::CStr, words: usize) -> io::Result<(&'static [AtomicU64], std::os::fd::OwnedFd)> {
    let fd = map::memfd(name, words)?;
    Ok((Mapping::writable(fd.as_fd())?.leak(), fd))
}

/// Pages of inputs and outputs.
struct IoPages {
    image: multus_ipc::io::Reader<'static>,
    operator: &'static [AtomicU64],
    for_launcher: launcher::Lines,
}

/// The image, as multus-io will find it, and the request page of people.
fn io_pages(force: &std::os::fd::OwnedFd, guard: &Arc<guard::Shared>) -> io::Result<IoPages> {
    let refused = |refused| io::Error::new(io::ErrorKind::InvalidData, refused);
    let (words, image) = page(c"multus-io-image", multus_ipc::io::IMAGE_WORDS)?;
    for (word, value) in words.iter().zip(multus_ipc::io::image_header()) {
        word.store(value, Ordering::Relaxed);
    }
    let operator = launcher::request_page()?;
    let people = Mapping::writable(operator.as_fd())?.leak();
    let view = map::read_only_copy(image.as_fd())?;
    let for_launcher = launcher::Lines::new(image, view, force.try_clone()?, operator, Arc::clone(guard));
    Ok(IoPages { image: multus_ipc::io::Reader::new(words).map_err(refused)?, operator: people, for_launcher })
}

/// The page of the daemon's own threads: the same kind that children get, in the last slot.
fn own_page(table: &Table, slot: usize) -> io::Result<Heartbeat> {
    let fd = map::memfd(c"multus-daemon", heartbeat::WORDS)?;
    let mapping = Mapping::writable(fd.as_fd())?;
    for (word, value) in mapping.words().iter().zip(heartbeat::header(1, 0)) {
        word.store(value, Ordering::Relaxed);
    }
    table.install(slot, fd.as_fd())?;
    Heartbeat::from_fd(fd)
}

fn make_dir(dir: &Path, mode: u32) -> Result<(), String> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(dir)
        .map_err(|error| format!("{}: {error}; make it, or name another directory", dir.display()))
}

/// One daemon for each runtime directory.
fn lock(dirs: &Dirs) -> Result<Flock<fs::File>, String> {
    let path = dirs.lock_file();
    let file = fs::File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        let pid = fs::read_to_string(&path).unwrap_or_default();
        match errno {
            nix::errno::Errno::EWOULDBLOCK => format!(
                "another multusd (process {}) runs on {}; stop it first, or use another --runtime-dir",
                pid.trim(),
                dirs.runtime.display()
            ),
            errno => format!("{}: {}", path.display(), errno.desc()),
        }
    })?;
    let _ = lock.set_len(0);
    let _ = writeln!(lock, "{}", std::process::id());
    Ok(lock)
}

fn listen(dirs: &Dirs, group: Option<&str>) -> Result<UnixListener, String> {
    let path = dirs.control_socket();
    // The lock is ours, so nobody listens here any more.
    let _ = fs::remove_file(&path);
    let fail = |error: io::Error| format!("{}: {error}", path.display());
    // Nobody but us until the mode is set.
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(&path).map_err(fail);
    nix::sys::stat::umask(before);
    let listener = listener?;
    if let Some(name) = group {
        match nix::unistd::Group::from_name(name) {
            Ok(Some(group)) => {
                nix::unistd::chown(&path, None, Some(group.gid)).map_err(|e| fail(e.into()))?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).map_err(fail)?;
            }
            _ => return Err(format!("multusd.toml: control_group: there is no group {name:?}")),
        }
    }
    Ok(listener)
}

fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn start_logger(dirs: &Dirs, config: &LogConfig, verbose: bool) -> Result<LoggerHandle, String> {
    let file = RotatingFile::open(&dirs.logs, "multusd", config.max_size, config.files);
    let level = if verbose { flexi_logger::Duplicate::All } else { flexi_logger::Duplicate::None };
    Logger::try_with_str(config.level.as_str())
        .map_err(|error| error.to_string())?
        .log_to_writer(Box::new(Diary::new(file)))
        .format(diary::line)
        .duplicate_to_stderr(level)
        // A full disk must not flood the terminal; lost lines are counted in the file itself.
        .error_channel(ErrorChannel::DevNull)
        .start()
        .map_err(|error| format!("{}: the log cannot be written: {error}", dirs.logs.display()))
}
