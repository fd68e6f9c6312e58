//! The control thread: control socket, configuration, signals, temperature. It may wait for a disk; the watch thread
//! does not notice.

mod clients;
mod ear;
mod lines;
mod oversight;
mod requests;
mod roster;
mod status;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use mio::net::UnixListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use multus_contract::api::command::{
    LATEST_REBOOT_S, MAX_REQUEST_BYTES, ReloadReport, Reply as Answer, Request as Wanted, parse_request,
};
use multus_contract::api::intervals::Intervals;
use multus_contract::config::{HardwareConfig, Loaded, set_enabled};
use multus_contract::dirs::Dirs;
use multus_ipc::child::Lane;
use multus_ipc::event_ring::{self, Found};
use multus_ipc::histogram::{BUCKETS, upper_ns};
use multus_ipc::map::Table;
use multus_ipc::sync::AtomicU64;
use multus_ipc::{MonoNs, force, heartbeat, status as status_page};
use multus_supervisor::Command;
use nix::unistd::{Group, Uid, User};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

use crate::launcher::{Hierarchy, SlotSetup};
use crate::realtime::Granted;
use crate::reset::{Action, By, Ending};
use crate::wake::Wake;
use crate::watch::{Ask, Helper, Reply, Request};
use crate::{adapters, advise, describe, evidence, logroom};
use clients::{Client, Input, MAX_CLIENTS};
use ear::{Ear, Said};
pub use lines::Lines;
use lines::Operator;
use oversight::Oversight;
pub use oversight::Parts as OversightParts;
pub(crate) use roster::keep_lines;
use roster::{Outlet, Roster};
use status::Sources;

/// Pages that may be given to others.
#[derive(Debug)]
pub struct Pages {
    /// Status, events, force: words and descriptors (sealed against writing).
    pub status: (&'static [AtomicU64], OwnedFd),
    /// The event ring.
    pub events: (&'static [AtomicU64], OwnedFd),
    /// The force page.
    pub force: (&'static [AtomicU64], OwnedFd),
}

/// Everything the control thread works with.
#[derive(Debug)]
pub struct Parts {
    /// Where everything is.
    pub dirs: Dirs,
    /// The listening control socket.
    pub listener: std::os::unix::net::UnixListener,
    /// To the watch thread.
    pub requests: rtrb::Producer<Request>,
    /// From the watch thread.
    pub replies: rtrb::Consumer<Reply>,
    /// To the launcher.
    pub setups: rtrb::Producer<SlotSetup>,
    /// To the adapters thread: sockets.
    pub feeds: rtrb::Producer<adapters::Setup>,
    /// From the adapters thread: what programs say of themselves.
    pub texts: rtrb::Consumer<adapters::Text>,
    /// Wakes the adapters thread.
    pub wake_adapters: Arc<Wake>,
    /// Wakes this thread.
    pub wake: Arc<Wake>,
    /// Wakes the watch thread.
    pub wake_watch: Arc<Wake>,
    /// Wakes the launcher.
    pub wake_launcher: Arc<Wake>,
    /// Pages to read and to give away.
    pub pages: Pages,
    /// Inputs and outputs.
    pub lines: Lines,
    /// The heartbeat table.
    pub table: Arc<Table>,
    /// What the watch thread got.
    pub granted: Granted,
    /// What else is not as wanted, a sentence each.
    pub notes: Vec<String>,
    /// Where cgroups are made.
    pub hierarchy: Hierarchy,
    /// The log threads' common part.
    pub log: Arc<logroom::Shared>,
    /// Spare evidence threads, last first.
    pub spare_evidence: Vec<evidence::Ends>,
    /// Lanes of spare log threads, last first.
    pub spare_log: Vec<Lane>,
    /// Tells evidence threads to end.
    pub end: Arc<AtomicBool>,
    /// Filled when the machine is to be started anew after everything is stopped: with this command.
    pub reboot: Arc<OnceLock<Vec<String>>>,
    /// The thread's own heartbeat.
    pub lane: Lane,
    /// Watchdogs and what they told.
    pub oversight: OversightParts,
    /// The configuration as read at the start.
    pub loaded: Loaded,
    /// Slots.
    pub slots: usize,
}

const LISTENER: Token = Token(0);
const SIGNALS: Token = Token(1);
const WAKE: Token = Token(2);
const FIRST_CLIENT: usize = 3;
const IDLE: Duration = Duration::from_millis(500);
/// How often children are listened to, at most.
const LISTEN_EVERY: Duration = Duration::from_millis(100);
/// From try to try of a configuration that could not be applied.
const RETRY_EVERY: Duration = Duration::from_secs(2);
/// A full ring is tried again after this long.
const RING_PAUSE: Duration = Duration::from_millis(1);
/// Events that are sent to one client in one turn.
const EVENTS_BATCH: usize = 256;

struct Rings {
    requests: rtrb::Producer<Request>,
    setups: rtrb::Producer<SlotSetup>,
    feeds: rtrb::Producer<adapters::Setup>,
    guard: rtrb::Producer<Option<Box<HardwareConfig>>>,
    wake_guard: Arc<Wake>,
    wake_watch: Arc<Wake>,
    wake_launcher: Arc<Wake>,
    wake_adapters: Arc<Wake>,
    lane: Lane,
}

impl Rings {
    fn request(&mut self, request: Request) {
        push(&mut self.requests, request, &self.wake_watch, &self.lane);
    }
}

impl Outlet for Rings {
    fn ask(&mut self, ask: Ask) {
        self.request(Request { id: 0, ask });
    }

    fn set_up(&mut self, setup: SlotSetup) {
        // The launcher must know a slot before the watch thread orders something for it: both rings are in order,
        // and this one is filled first.
        push(&mut self.setups, setup, &self.wake_launcher, &self.lane);
    }

    fn feed(&mut self, setup: adapters::Setup) {
        push(&mut self.feeds, setup, &self.wake_adapters, &self.lane);
    }

    fn guard(&mut self, lines: Option<Box<HardwareConfig>>) {
        // The guard must know the lines before the watch thread orders something for them.
        push(&mut self.guard, lines, &self.wake_guard, &self.lane);
    }
}

/// Pushes into a ring; while it is full, wakes its reader and waits a moment. The readers of these rings are watched.
fn push<T>(ring: &mut rtrb::Producer<T>, mut item: T, reader: &Wake, lane: &Lane) {
    while let Err(rtrb::PushError::Full(back)) = ring.push(item) {
        item = back;
        reader.wake();
        lane.beat();
        std::thread::park_timeout(RING_PAUSE);
    }
    reader.wake();
}

/// A command of a client that concerns several instances and is answered once.
struct Pending {
    client: Token,
    left: usize,
    errors: Vec<String>,
}

struct Control {
    dirs: Dirs,
    poll: Poll,
    listener: UnixListener,
    rings: Rings,
    replies: rtrb::Consumer<Reply>,
    wake: Arc<Wake>,
    pages: Pages,
    operator: Operator,
    table: Arc<Table>,
    granted: Granted,
    notes: Vec<String>,
    log: Arc<logroom::Shared>,
    spare_evidence: Vec<evidence::Ends>,
    spare_log: Vec<Lane>,
    end: Arc<AtomicBool>,
    roster: Roster,
    clients: BTreeMap<usize, Client>,
    next_client: usize,
    texts: rtrb::Consumer<adapters::Text>,
    ear: Ear,
    listened_at: MonoNs,
    /// When children that were refused are tried again.
    retry_at: MonoNs,
    pending: BTreeMap<u64, (u64, String)>,
    commands: BTreeMap<u64, Pending>,
    next_id: u64,
    temperature_at: MonoNs,
    temperature_bad: bool,
    reboot: Arc<OnceLock<Vec<String>>>,
    /// When the machine is started anew, and who wants it.
    reboot_at: Option<(MonoNs, Ending)>,
    oversight: Oversight,
    /// Everything is being stopped.
    ending: bool,
    requests_at: MonoNs,
    /// Requests by file that cannot be taken, as told last.
    stuck_requests: Vec<String>,
    finished: bool,
}

/// Works until the watch thread has finished.
///
/// # Errors
/// What the system refused at the start.
pub fn run(parts: Parts) -> io::Result<()> {
    let poll = Poll::new()?;
    parts.listener.set_nonblocking(true)?;
    let mut listener = UnixListener::from_std(parts.listener);
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
    poll.registry().register(&mut SourceFd(&parts.wake.raw()), WAKE, Interest::READABLE)?;
    let mut rings = Rings {
        requests: parts.requests,
        setups: parts.setups,
        feeds: parts.feeds,
        guard: parts.lines.setups,
        wake_guard: parts.lines.wake_guard,
        wake_watch: parts.wake_watch,
        wake_launcher: parts.wake_launcher,
        wake_adapters: parts.wake_adapters,
        lane: parts.lane,
    };
    let oversight = Oversight::new(parts.oversight, &parts.dirs, &mut rings);
    let mut control = Control {
        roster: Roster::new(parts.dirs.clone(), parts.hierarchy, Arc::clone(&parts.log), parts.slots),
        dirs: parts.dirs,
        listener,
        rings,
        oversight,
        replies: parts.replies,
        texts: parts.texts,
        wake: parts.wake,
        pages: parts.pages,
        operator: Operator::new(parts.lines.image, parts.lines.operator, parts.lines.guard),
        table: parts.table,
        granted: parts.granted,
        notes: parts.notes,
        log: parts.log,
        spare_evidence: parts.spare_evidence,
        spare_log: parts.spare_log,
        end: parts.end,
        clients: BTreeMap::new(),
        next_client: FIRST_CLIENT,
        ear: Ear::default(),
        listened_at: MonoNs(0),
        retry_at: MonoNs(0),
        pending: BTreeMap::new(),
        commands: BTreeMap::new(),
        next_id: 1,
        temperature_at: MonoNs(0),
        temperature_bad: false,
        reboot: parts.reboot,
        reboot_at: None,
        ending: false,
        requests_at: MonoNs(0),
        stuck_requests: Vec::new(),
        finished: false,
        poll,
    };
    let mut report = ReloadReport::default();
    control.roster.apply(parts.loaded.config, &parts.loaded.broken, &mut report, &mut control.rings);
    let mut events = Events::with_capacity(128);
    while !control.finished {
        match control.poll.poll(&mut events, Some(IDLE)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        control.rings.lane.beat();
        for event in &events {
            match event.token() {
                LISTENER => control.accept(),
                SIGNALS => signals.pending().for_each(|signal| control.signal(signal)),
                WAKE => control.wake.drain(),
                Token(client) => {
                    control.serve(client);
                    // Who only followed and is gone would be noticed with the next event, which may never come.
                    if event.is_write_closed() && control.clients.get(&client).is_some_and(|c| c.events.is_some()) {
                        control.close(client);
                    }
                }
            }
        }
        control.turn();
    }
    control.oversight.close();
    control.clients.values_mut().for_each(|client| {
        client.flush();
    });
    Ok(())
}

impl Control {
    /// What has to be done in every round.
    fn turn(&mut self) {
        while let Ok(reply) = self.replies.pop() {
            self.hear(reply);
        }
        while let Ok(adapters::Text { slot, text }) = self.texts.pop() {
            self.roster.say(slot, text);
        }
        // Again in every round: a connection that could not be taken for want of descriptors is no new event.
        self.accept();
        let now = MonoNs::now();
        self.read_temperature(now);
        self.read_requests(now);
        self.listen(now);
        if now >= self.retry_at && !self.ending {
            self.retry_at = now.after(RETRY_EVERY);
            self.roster.retry_refused(&mut self.rings);
        }
        self.oversee(now);
        self.reboot_if_due(now);
        let tokens: Vec<usize> = self.clients.keys().copied().collect();
        for token in tokens {
            self.feed_events(token);
            let Some(client) = self.clients.get_mut(&token) else { continue };
            if client.is_overdue(now) || !client.flush() {
                self.close(token);
            }
        }
    }

    fn signal(&mut self, signal: i32) {
        if signal == SIGHUP {
            log::info!("SIGHUP: reading the configuration again");
            self.roster.reload(&mut self.rings);
        } else {
            self.shut_down();
        }
    }

    fn shut_down(&mut self) {
        self.ending = true;
        self.rings.ask(Ask::Shutdown);
    }

    // ---- starting the machine anew --------------------------------------------------------------------------------

    fn schedule_reboot(&mut self, seconds: u64, ending: Ending) -> Answer {
        if self.ending {
            return Answer::refused("multusd is shutting down");
        }
        if seconds > LATEST_REBOOT_S {
            return Answer::refused(format!("a reboot is at most {LATEST_REBOOT_S} s ahead, not {seconds} s"));
        }
        let ahead = Duration::from_secs(seconds);
        self.reboot_at = Some((MonoNs::now().after(ahead), ending));
        log::warn!("the machine is started anew in {seconds} s");
        self.rings.ask(Ask::Reboot(Some(multus_ipc::time::duration_ns(ahead))));
        Answer::done()
    }

    /// Who asks over the control socket, in words.
    fn who(&self, token: usize) -> String {
        let Some(Ok((uid, _, pid))) = self.clients.get(&token).map(Client::peer) else {
            return "somebody asked for it over the control socket".to_owned();
        };
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        let user = user.map_or_else(|| format!("user {uid}"), |user| user.name);
        let program = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let program = Some(program.trim()).filter(|name| !name.is_empty()).unwrap_or("a program");
        format!("{user} asked for it ({program}, process {pid})")
    }

    fn cancel_reboot(&mut self) -> Answer {
        if self.reboot_at.take().is_none() {
            let why = if self.reboot.get().is_some() { "it is under way already" } else { "none is scheduled" };
            return Answer::refused(format!("no reboot to cancel: {why}"));
        }
        log::warn!("the machine is not started anew");
        self.rings.ask(Ask::Reboot(None));
        Answer::done()
    }

    fn reboot_if_due(&mut self, now: MonoNs) {
        if self.ending {
            return;
        }
        if let Some((_, ending)) = self.reboot_at.take_if(|(at, _)| now >= *at) {
            // Written down before it is done.
            let Ending { time, mono_ns, .. } = Ending::now(ending.action, ending.by, String::new());
            self.oversight.announce_reboot(Ending { time, mono_ns, ..ending });
            // The command runs when everything is stopped; see `daemon`.
            let _ = self.reboot.set(self.roster.config.daemon.reboot.command.clone());
            self.shut_down();
        }
    }

    /// Hears what children say in words.
    fn listen(&mut self, now: MonoNs) {
        if now < self.listened_at.after(LISTEN_EVERY) {
            return;
        }
        self.listened_at = now;
        let slots: Vec<usize> = self.roster.instances.values().map(|instance| instance.slot).collect();
        for slot in slots {
            let (roster, rings) = (&mut self.roster, &mut self.rings);
            self.ear.listen(slot, heartbeat::Reader::new(self.table.page(slot)), now, &mut |said| match said {
                Said::Status(text) => roster.say(slot, text),
                Said::Notice { text, left_out } => rings.ask(Ask::Notice { slot, text, left_out }),
            });
        }
    }

    fn read_requests(&mut self, now: MonoNs) {
        let Some(dir) = &self.roster.config.daemon.legacy.request_dir else { return };
        if now < self.requests_at || self.ending {
            return;
        }
        self.requests_at = now.after(requests::INTERVAL);
        let mut names: Vec<&str> = self.roster.instances.keys().map(String::as_str).collect();
        names.extend(self.roster.config.children.iter().filter(|c| c.instances > 1).map(|c| c.name.as_str()));
        let (wishes, stuck) = requests::take(dir, &names, SystemTime::now());
        for why in stuck.iter().filter(|why| !self.stuck_requests.contains(why)) {
            log::error!("a request by file cannot be removed, so it is not obeyed: {why}");
        }
        self.stuck_requests = stuck;
        for wish in wishes {
            match wish {
                requests::Wish::Restart(name) => {
                    log::info!("{name}: a file asks for a restart");
                    let slots: Vec<usize> = self.roster.find(&name).into_iter().map(|(_, i)| i.slot).collect();
                    for slot in slots {
                        self.rings.ask(Ask::Command { slot, command: Command::Restart });
                    }
                }
                requests::Wish::Reload => {
                    log::info!("a file asks for reading the configuration again");
                    self.roster.reload(&mut self.rings);
                }
                requests::Wish::Reboot(seconds) => {
                    log::info!("a file asks for starting the machine anew");
                    let reason = "a file asked for it (request_dir)".to_owned();
                    self.schedule_reboot(seconds, Ending::now(Action::Reboot, By::File, reason));
                }
            }
        }
    }

    fn hear(&mut self, reply: Reply) {
        match reply {
            Reply::Done { id, result } => {
                let Some((command, name)) = self.pending.remove(&id) else { return };
                let Some(pending) = self.commands.get_mut(&command) else { return };
                pending.left -= 1;
                if let Err(refusal) = result {
                    pending.errors.push(format!("{name}: {refusal}"));
                }
                if pending.left == 0
                    && let Some(done) = self.commands.remove(&command)
                    && let Some(client) = self.clients.get_mut(&done.client.0)
                {
                    client.waiting = false;
                    let answer =
                        if done.errors.is_empty() { Answer::done() } else { Answer::refused(done.errors.join("; ")) };
                    client.answer(&answer);
                    self.serve(done.client.0);
                }
            }
            Reply::Removed { slot } => {
                self.rings.feed(adapters::Setup::Drop { slot });
                self.ear.forget(slot);
                if self.roster.removed(slot) {
                    self.roster.reload(&mut self.rings);
                }
            }
            Reply::Replace { helper, spare } => self.replace(helper, spare),
            Reply::OutOfOrder { .. } | Reply::InOrder { .. } | Reply::Culprit(_) => self.oversight.hear(reply),
            Reply::Finished => self.finished = true,
        }
    }

    fn replace(&mut self, helper: Helper, spare: usize) {
        let name = format!("{}-{spare}", helper.as_str());
        let thread = std::thread::Builder::new().name(name).stack_size(crate::daemon::STACK);
        let started = match helper {
            Helper::Evidence => self.spare_evidence.pop().map(|ends| {
                let end = Arc::clone(&self.end);
                thread.spawn(move || {
                    let _ = evidence::run(ends, &end);
                })
            }),
            Helper::Log => self.spare_log.pop().map(|lane| {
                let shared = Arc::clone(&self.log);
                thread.spawn(move || {
                    let _ = logroom::run(&shared, spare as u64, lane);
                })
            }),
            Helper::Launcher | Helper::Control | Helper::Adapters | Helper::Guard => None,
        };
        match started {
            Some(Ok(_)) => log::warn!("another {} thread was started", helper.as_str()),
            // Nobody beats in that lane: the watch thread will see it, and take the next spare or end.
            Some(Err(error)) => log::error!("no thread for {}: {error}", helper.as_str()),
            None => {}
        }
    }

    fn read_temperature(&mut self, now: MonoNs) {
        let config = &self.roster.config.daemon.temperature;
        if !config.enabled || now < self.temperature_at {
            return;
        }
        self.temperature_at = now.after(config.interval);
        let read = fs::read_to_string(&config.file).map_err(|e| e.to_string());
        let reading = read.and_then(|text| text.trim().parse::<i32>().map_err(|_| format!("{:?}", text.trim())));
        match &reading {
            Err(error) if !self.temperature_bad => {
                log::error!("{}: {error}: no temperature counts as too hot", config.file.display());
            }
            _ => {}
        }
        self.temperature_bad = reading.is_err();
        self.rings.ask(Ask::Temperature(reading.ok()));
    }

    // ---- clients --------------------------------------------------------------------------------------------------

    fn accept(&mut self) {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    log::warn!("control socket: {error}");
                    return;
                }
            };
            let mut client = Client::new(stream);
            if self.clients.len() >= MAX_CLIENTS {
                client.answer(&Answer::refused(format!("{MAX_CLIENTS} connections are open; try again")));
                client.flush();
                continue;
            }
            if let Err(reason) = self.admit(&client) {
                client.answer(&Answer::refused(reason));
                client.flush();
                continue;
            }
            let token = self.next_client;
            self.next_client = self.next_client.checked_add(1).unwrap_or(FIRST_CLIENT);
            let interest = Interest::READABLE | Interest::WRITABLE;
            if self.poll.registry().register(&mut client.stream, Token(token), interest).is_ok() {
                self.clients.insert(token, client);
            }
        }
    }

    /// Root, the daemon's own user and the configured group may command.
    fn admit(&self, client: &Client) -> Result<(), String> {
        let (uid, gid, pid) = client.peer().map_err(|error| format!("who asks cannot be told: {error}"))?;
        if uid == 0 || uid == Uid::effective().as_raw() {
            return Ok(());
        }
        if let Some(name) = &self.roster.config.daemon.control_group
            && let Ok(Some(group)) = Group::from_name(name)
        {
            let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
            let is_member = user.is_some_and(|u| group.mem.contains(&u.name));
            if gid == group.gid.as_raw() || is_member {
                return Ok(());
            }
        }
        log::warn!("control socket: user {uid} (process {pid}) was refused");
        Err("not allowed: ask as root, as the user of multusd, or as a member of control_group".into())
    }

    fn serve(&mut self, token: usize) {
        loop {
            let Some(client) = self.clients.get_mut(&token) else { return };
            if client.waiting || client.closing {
                break;
            }
            match client.read() {
                Input::Line(line) => match parse_request(&line) {
                    Ok(wanted) => self.obey(token, wanted),
                    Err(reason) => client.answer(&Answer::refused(reason)),
                },
                Input::Nothing => break,
                Input::TooLong => {
                    client.answer(&Answer::refused(format!("a request has at most {MAX_REQUEST_BYTES} bytes")));
                    client.closing = true;
                    break;
                }
                Input::Closed => {
                    // What was asked for is still sent to a client that only closed its sending side.
                    client.closing |= client.events.is_none();
                    break;
                }
            }
        }
        if let Some(client) = self.clients.get_mut(&token)
            && !client.flush()
        {
            self.close(token);
        }
    }

    fn close(&mut self, token: usize) {
        if let Some(mut client) = self.clients.remove(&token) {
            let _ = self.poll.registry().deregister(&mut client.stream);
        }
    }

    fn obey(&mut self, token: usize, wanted: Wanted) {
        let answer = match wanted {
            Wanted::Status { name } => Some(self.status(name.as_deref())),
            Wanted::Start { name } => self.command(token, &name, Command::Start),
            Wanted::Stop { name } => self.command(token, &name, Command::Stop),
            Wanted::Restart { name } => self.command(token, &name, Command::Restart),
            Wanted::Snooze { name, seconds } => {
                let until = match seconds {
                    0 => MonoNs(0),
                    seconds => MonoNs::now().after(Duration::from_secs(seconds)),
                };
                self.command(token, &name, Command::Snooze(until))
            }
            Wanted::Enable { name } => Some(self.enable(&name, true)),
            Wanted::Disable { name } => Some(self.enable(&name, false)),
            Wanted::Advise { name } => Some(self.advise(&name)),
            Wanted::Intervals { name } => Some(self.intervals(name.as_deref())),
            Wanted::Reload => {
                let report = self.roster.reload(&mut self.rings);
                Some(json(&report))
            }
            Wanted::Reboot { seconds } => {
                let ending = Ending::now(Action::Reboot, By::Person, self.who(token));
                Some(self.schedule_reboot(seconds, ending))
            }
            Wanted::RebootCancel => Some(self.cancel_reboot()),
            Wanted::Events { since, follow } => {
                let Ok(ring) = event_ring::Reader::new(self.pages.events.0) else { return };
                let first = match (since, follow) {
                    (Some(since), _) => since.max(ring.oldest()),
                    (None, true) => ring.written(),
                    (None, false) => ring.oldest(),
                };
                if let Some(client) = self.clients.get_mut(&token) {
                    client.events = Some((first, follow));
                }
                Some(Answer::done())
            }
            Wanted::Io => Some(json(&self.operator.status())),
            Wanted::IoSet { name, value } => {
                let hardware = self.roster.config.hardware.as_ref();
                Some(answer(self.operator.set((&name, value), &self.who(token), hardware, &self.dirs)))
            }
            Wanted::IoForce { name, value } => {
                let ask = self.operator.force(&name, value, &self.who(token));
                Some(answer(ask.map(|ask| self.rings.ask(ask))))
            }
            Wanted::IoRelease { name } => {
                let ask = self.operator.release(&name, &self.who(token));
                Some(answer(ask.map(|ask| self.rings.ask(ask))))
            }
            Wanted::Pages => {
                let fds = [&self.pages.status.1, &self.pages.events.1, &self.pages.force.1].map(AsRawFd::as_raw_fd);
                let answer = Answer::with(serde_json::json!({ "pages": ["status", "events", "force"] }));
                if let Some(client) = self.clients.get_mut(&token) {
                    client.answer_with(&answer, &fds);
                }
                None
            }
            Wanted::Version => Some(Answer::with(env!("CARGO_PKG_VERSION").into())),
        };
        if let (Some(answer), Some(client)) = (answer, self.clients.get_mut(&token)) {
            client.answer(&answer);
        }
        self.feed_events(token);
    }

    fn status(&self, name: Option<&str>) -> Answer {
        let names = match name {
            None => None,
            Some(name) => {
                let found: Vec<String> = self.roster.find(name).into_iter().map(|(n, _)| n.to_owned()).collect();
                if found.is_empty() {
                    return self.unknown(name);
                }
                Some(found)
            }
        };
        let (Ok(status), Ok(force)) =
            (status_page::Reader::new(self.pages.status.0), force::Reader::new(self.pages.force.0))
        else {
            return Answer::refused("the status page is damaged; restart multusd");
        };
        let mut notes = self.notes.clone();
        notes.extend(self.roster.notes());
        notes.extend(self.operator.notes());
        notes.extend(self.oversight.notes());
        notes.extend(self.reboot_at.as_ref().map(|(at, _)| {
            let seconds = at.since(MonoNs::now()).as_secs();
            format!("the machine is started anew in {seconds} s (multusctl reboot --cancel)")
        }));
        let sources = Sources {
            status,
            force,
            table: &self.table,
            dirs: &self.dirs,
            granted: &self.granted,
            notes: &notes,
            oversight: &self.oversight,
        };
        json(&sources.status(&self.roster, names.as_deref()))
    }

    /// Deadlines for the lanes of the instances that are meant, from the pages themselves.
    fn advise(&self, name: &str) -> Answer {
        let found = self.roster.find(name);
        if found.is_empty() {
            return self.unknown(name);
        }
        let Ok(status) = status_page::Reader::new(self.pages.status.0) else {
            return Answer::refused("no status page");
        };
        let mut advices = Vec::new();
        for (name, instance) in found {
            let Ok(Some(record)) = status.slot(instance.slot) else { continue };
            let page = heartbeat::Reader::new(self.table.page(instance.slot));
            if page.validate().is_err() {
                continue;
            }
            for lane in 0..page.lanes() {
                let own = page.lane_deadline_ns(lane).unwrap_or(record.deadline_ns);
                let deadline = Some(own).filter(|ns| !matches!(*ns, 0 | u64::MAX));
                let mut advice = advise::advise(|b| page.bucket(lane, b), page.max_gap_ns(lane), deadline);
                advice.child = name.to_owned();
                advice.lane = page.lane_name(lane).to_string();
                advices.push(advice);
            }
        }
        if advices.is_empty() {
            return Answer::refused(format!("{name} does not beat, or has not started"));
        }
        json(&advices)
    }

    /// The histograms of the lanes of the instances that are meant, from the pages themselves.
    fn intervals(&self, name: Option<&str>) -> Answer {
        let found = match name {
            Some(name) => self.roster.find(name),
            None => self.roster.instances.iter().map(|(name, instance)| (name.as_str(), instance)).collect(),
        };
        if let Some(name) = name.filter(|_| found.is_empty()) {
            return self.unknown(name);
        }
        let mut all = Vec::new();
        for (name, instance) in found {
            let page = heartbeat::Reader::new(self.table.page(instance.slot));
            if page.validate().is_err() {
                continue;
            }
            for lane in 0..page.lanes() {
                let buckets = (0..BUCKETS).map(|bucket| (upper_ns(bucket), page.bucket(lane, bucket)));
                all.push(Intervals {
                    child: name.to_owned(),
                    lane: page.lane_name(lane).to_string(),
                    max_ns: page.max_gap_ns(lane),
                    buckets: buckets.filter(|(_, count)| *count > 0).collect(),
                });
            }
        }
        json(&all)
    }

    fn unknown(&self, name: &str) -> Answer {
        let known: Vec<&str> = self.roster.instances.keys().map(String::as_str).collect();
        let known =
            if known.is_empty() { "none is configured".to_owned() } else { format!("there are {}", known.join(", ")) };
        Answer::refused(format!("there is no child {name:?}; {known}"))
    }

    /// Sends a command to all instances that are meant; the answer comes when all have answered.
    fn command(&mut self, token: usize, name: &str, command: Command) -> Option<Answer> {
        let slots: Vec<(String, usize)> =
            self.roster.find(name).into_iter().map(|(n, i)| (n.to_owned(), i.slot)).collect();
        if slots.is_empty() {
            return Some(self.unknown(name));
        }
        let number = self.next_id;
        self.commands.insert(number, Pending { client: Token(token), left: slots.len(), errors: Vec::new() });
        if let Some(client) = self.clients.get_mut(&token) {
            client.waiting = true;
        }
        for (name, slot) in slots {
            let id = self.next_id;
            self.next_id += 1;
            self.pending.insert(id, (number, name));
            self.rings.request(Request { id, ask: Ask::Command { slot, command } });
        }
        None
    }

    /// Changes `enabled` in the file of a child, and reads the configuration again.
    fn enable(&mut self, name: &str, enabled: bool) -> Answer {
        let child = self.roster.find(name).first().map_or(name, |(_, i)| i.child.as_str()).to_owned();
        let Some(file) = self.roster.config.children.iter().find(|c| c.name == child).map(|c| c.file.clone()) else {
            return self.unknown(name);
        };
        let path = if file.is_absolute() { file } else { self.dirs.config.join(file) };
        match set_enabled(&path, enabled) {
            Err(error) => Answer::refused(error.to_string()),
            Ok(false) => Answer::with(format!("{child} was {} already", word(enabled)).into()),
            Ok(true) => {
                let report = self.roster.reload(&mut self.rings);
                if report.broken.contains(&child) {
                    Answer::refused(report.diagnostics.join("; "))
                } else {
                    Answer::done()
                }
            }
        }
    }

    /// Sends a client the events it asked for, as far as it reads them.
    fn feed_events(&mut self, token: usize) {
        let Ok(ring) = event_ring::Reader::new(self.pages.events.0) else { return };
        let status = status_page::Reader::new(self.pages.status.0);
        let name = |slot: usize| status.ok()?.slot(slot).ok().flatten().map(|r| r.name.to_string());
        let Some(client) = self.clients.get_mut(&token) else { return };
        let Some((mut next, follow)) = client.events else { return };
        for _ in 0..EVENTS_BATCH {
            if !client.has_room() {
                break;
            }
            match ring.read(next) {
                Found::Event(record) => {
                    if let Ok(mut line) = serde_json::to_vec(&describe::to_event(&record, name)) {
                        line.push(b'\n');
                        client.send(&line);
                    }
                    next += 1;
                }
                Found::Lost { oldest } => next = oldest,
                Found::NotYet => {
                    client.closing |= !follow;
                    break;
                }
            }
        }
        client.events = Some((next, follow));
        // More than a batch: the next turn comes at once.
        if ring.written() > next && client.has_room() {
            self.wake.wake();
        }
    }
}

fn answer(result: Result<(), String>) -> Answer {
    match result {
        Ok(()) => Answer::done(),
        Err(reason) => Answer::refused(reason),
    }
}

fn word(enabled: bool) -> &'static str {
    if enabled { "enabled" } else { "disabled" }
}

fn json<T: serde::Serialize>(value: &T) -> Answer {
    match serde_json::to_value(value) {
        Ok(value) => Answer::with(value),
        Err(error) => Answer::refused(format!("the answer could not be written: {error}")),
    }
}
