//! Who guards the guard: watchdogs that reset the machine when the watch loop stands still, when multusd dies, or when a critical
//! child stays out of order.
//!
//! ```text
//! watch loop: signs in every turn            Sign            keeper thread (SCHED_FIFO, one below): looks at the sign
//!   "on time at T, all critical children  ------------->      before every pet; a watchdog has an age that it takes at most
//!   are in order"
//!                                   control thread: writes down why before the machine is reset; counts resets
//! ```
//! The keeper never waits for another thread: it reads atomics and sends news through a wait-free ring. Everything that ends or stops
//! multusd as a whole (crash, SIGKILL, SIGSTOP) ends the petting, too.

mod chip;
mod device;
mod dog;
mod sign;
mod sim;

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use multus_contract::api::reset::WatchdogStatus;
use multus_contract::config::{WatchdogConfig, hardware};
use multus_contract::dirs::Dirs;
use multus_ipc::MonoNs;

use crate::sys;
use crate::wake::Wake;
pub use device::boot_words;
use dog::{Dog, Pace};
use sign::Judge;
pub use sign::{Decision, Farewell, Sign, Verdict, WRITING};
pub use sim::file_of;

/// What the keeper tells the control thread.
#[derive(Clone, Debug)]
pub struct News {
    /// Which watchdog, in the order of the configuration.
    pub index: usize,
    /// How it does now.
    pub status: WatchdogStatus,
    /// Whether it is not petted because the watch loop is late.
    pub is_late: bool,
}

/// What a watchdog said about the last reset: its name, and flags as in linux/watchdog.h; `None`: it cannot tell, or is missing.
pub type BootStatus = (String, Option<u32>);

/// All watchdogs.
#[derive(Debug)]
pub struct Keeper {
    dogs: Vec<Dog>,
    sign: Arc<Sign>,
    judge: Judge,
    news: rtrb::Producer<News>,
    wake_control: Arc<Wake>,
}

/// The longest pause; it is woken for the end.
const IDLE: Duration = Duration::from_secs(1);

impl Keeper {
    /// Opens the watchdogs, which begin to count. What is missing is tried again later.
    pub fn new(
        configs: &[WatchdogConfig],
        dirs: &Dirs,
        sign: Arc<Sign>,
        news: rtrb::Producer<News>,
        wake_control: Arc<Wake>,
    ) -> Self {
        let mut dogs: Vec<Dog> = configs.iter().map(|config| dog(config, dirs)).collect();
        for dog in &mut dogs {
            dog.open_if_due(MonoNs::now());
        }
        let keeper = Self { dogs, sign, judge: Judge::default(), news, wake_control };
        keeper.ask_for_signs();
        keeper
    }

    /// What the drivers said about the last reset.
    pub fn boot_status(&self) -> Vec<BootStatus> {
        self.dogs.iter().map(|dog| (dog.name().to_owned(), dog.boot_status())).collect()
    }

    /// Pets until the end. `priority` is that of SCHED_FIFO.
    ///
    /// # Errors
    /// None; for the shape of threads.
    pub fn run(mut self, priority: Option<u8>) -> io::Result<()> {
        if let Some(priority) = priority {
            // Refused only where the watch thread is refused too, which is said there.
            let _ = sys::set_scheduler(nix::libc::SCHED_FIFO, priority, true);
        }
        loop {
            let farewell = self.sign.farewell();
            if farewell != Farewell::None {
                for dog in self.dogs {
                    if let Err(why) = dog.part(farewell == Farewell::Disarm) {
                        log::warn!("{why}");
                    }
                }
                return Ok(());
            }
            let next = self.turn(MonoNs::now());
            thread::park_timeout(next.since(MonoNs::now()));
        }
    }

    /// One round; when the next one is due.
    fn turn(&mut self, now: MonoNs) -> MonoNs {
        let look = self.sign.look();
        self.judge.see(look, now);
        let judge = self.judge;
        let mut next = now.after(IDLE);
        let mut told = false;
        for (index, dog) in self.dogs.iter_mut().enumerate() {
            let verdict = |max_age| judge.verdict(look, now, max_age);
            next = next.min(dog.turn(now, verdict));
            if self.news.is_full() {
                continue;
            }
            if let Some(status) = dog.news() {
                let is_late = status.state == "withheld" && verdict(dog.max_age()) == Verdict::Late;
                told |= self.news.push(News { index, status, is_late }).is_ok();
            }
        }
        if told {
            self.ask_for_signs();
            self.wake_control.wake();
        }
        next
    }

    fn ask_for_signs(&self) {
        self.sign.set_pace(self.dogs.iter().filter_map(Dog::sign).min());
    }
}

/// The keeper at work. Dropped without a farewell, its watchdogs go on counting.
#[derive(Debug)]
pub struct Kennel {
    sign: Arc<Sign>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Kennel {
    /// Starts the thread, if there is a watchdog.
    ///
    /// # Errors
    /// The system makes no thread.
    pub fn start(keeper: Keeper, sign: Arc<Sign>, priority: Option<u8>) -> Result<Self, String> {
        if keeper.dogs.is_empty() {
            return Ok(Self { sign, thread: None });
        }
        let thread = thread::Builder::new().name("multus-keeper".to_owned()).stack_size(crate::daemon::STACK);
        let thread =
            thread.spawn(move || keeper.run(priority)).map_err(|error| format!("the keeper thread: {error}"))?;
        Ok(Self { sign, thread: Some(thread) })
    }

    /// For so long the watchdogs are petted although the watch loop has ended.
    pub fn hold(&self, patience: Duration) {
        self.sign.hold_until(MonoNs::now().after(patience));
    }

    /// The end. Waits until the watchdogs are switched off, but not for ever: a driver may be stuck.
    pub fn part(self, farewell: Farewell) {
        let Some(thread) = self.thread else { return };
        self.sign.part(farewell);
        thread.thread().unpark();
        let begun = MonoNs::now();
        while !thread.is_finished() && MonoNs::now().since(begun) < PARTING {
            thread::park_timeout(Duration::from_millis(1));
        }
        if !thread.is_finished() {
            log::error!("a watchdog does not let itself be switched off; it will reset the machine");
        }
    }
}

/// Switching off is one system call for each watchdog.
const PARTING: Duration = Duration::from_secs(5);

fn dog(config: &WatchdogConfig, dirs: &Dirs) -> Dog {
    let name = config.to_string();
    match config.clone() {
        WatchdogConfig::Device { path, timeout, pretimeout } => {
            Dog::new(name, Pace::of_timeout(timeout), Box::new(move || device::open(&path, timeout, pretimeout)))
        }
        WatchdogConfig::Sim { timeout } => {
            let path = sim::file_of(dirs);
            Dog::new(name, Pace::of_timeout(timeout), Box::new(move || sim::open(&path, timeout)))
        }
        WatchdogConfig::Chip { enable, pulse, period, width } => {
            // Read here, not when it is tried again: a file that nests deeply needs more stack than the keeper has.
            let loaded = hardware::load(&dirs.config, None);
            let is_missing = loaded.is_missing;
            let hardware = loaded.config.or_else(|| hardware::kept(&dirs.state)).or(is_missing.then(Default::default));
            let dirs = dirs.clone();
            let open = move || {
                let unknown = "hardware.toml, which says which board it is on, has an error";
                chip::open(hardware.as_ref().ok_or(unknown)?, &dirs, enable, pulse)
            };
            Dog::new(name, Pace::of_chip(period, width), Box::new(open))
        }
    }
}
