//! From the configuration to a running scan, and its rhythm.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use multus_child::{About, Child, Context, Error};
use multus_contract::config::hardware::HardwareConfig;
use multus_contract::dirs::{DirFlags, Dirs};
use multus_hardware::chip::{Chip, chips};
use multus_hardware::gpio::{Pins, SharedOutputs};
use multus_hardware::{Board, Extent, OpenError, sys};
use multus_ipc::io::{Definition, IMAGE_WORDS, Writer, image_header};
use multus_ipc::io_child::{
    ENV_FORCE_FD, ENV_IMAGE_FD, ENV_MOST_PRIORITY, ENV_OUTPUTS, ENV_OUTPUTS_FD, ENV_REQUESTS_FD,
};
use multus_ipc::map::{self, Mapping};
use multus_ipc::sync::{AtomicU64, Ordering};
use multus_ipc::time::duration_ns;
use multus_ipc::{MonoNs, descriptor, force, futex};

use crate::bus::{BusThread, Cell};
use crate::clerk::{Clerk, Names, Retained};
use crate::config::{self, Config};
use crate::scan::{Parts, Scan};
use crate::{requests, retained};

/// The child.
pub(crate) struct Scanner {
    scan: Scan,
    period_ns: u64,
    /// When the next scan begins.
    due: MonoNs,
    /// What a scan waits for where there is no force page.
    nothing: AtomicU64,
    /// Dropped last: it writes what the scan left.
    _clerk: Clerk,
}

impl Child for Scanner {
    type Config = Config;
    const ABOUT: About = multus_child::about!();

    fn start(config: Config, context: &Context) -> Result<Self, Error> {
        let dirs = Dirs::resolve(&DirFlags::default());
        let hardware = config::check(&config, &dirs)?;
        if config.lock_memory {
            lock_memory();
        }
        let priority = lowered(config.priority);
        let definitions: Vec<Definition> = hardware.lines.iter().map(|line| line.definition()).collect();
        let image = Writer::new(image()?.leak()).map_err(|refused| format!("{ENV_IMAGE_FD}: {refused}"))?;
        let force = force_page()?;
        let owners: Vec<String> = hardware.owners().map(str::to_owned).collect();
        let pages = match descriptor::from_env(ENV_REQUESTS_FD)? {
            Some(socket) => Some(requests::start(socket, owners.clone())?),
            None => None,
        };

        let file = dirs.state.join(retained::FILE);
        let is_retained: Vec<_> =
            definitions.iter().copied().zip(hardware.lines.iter().map(|line| line.retained)).collect();
        let (values, notes) = retained::load(&file, &is_retained);
        notes.iter().for_each(|note| log::warn!("{note}"));
        let retained = Arc::new(Retained::new(&values));
        let names =
            Names { lines: hardware.lines.iter().map(|line| line.name.clone()).collect(), owners: owners.clone() };
        let (clerk, notes) =
            Clerk::start(names, Arc::clone(&retained), file, config.retain_interval.duration(), context.voice())?;

        // Native outputs have their safe values when this returns.
        let pins = Pins::of(&hardware);
        let Board { gpio, name, is_simulated, notes: remarks } =
            open(&hardware, &dirs, &pins, config.patience.duration())?;
        remarks.iter().for_each(|remark| log::error!("{remark}"));
        log::info!("{} lines, board {name}", definitions.len());
        let layout = image.define(&definitions);
        let period = config.period.duration();
        let stale = (period * STALE_PERIODS).max(STALE_AT_LEAST);
        image.begin(&name, is_simulated, std::process::id(), duration_ns(period), duration_ns(stale));

        let cells: Arc<[Cell]> = hardware.lines.iter().map(|_| Cell::default()).collect();
        if priority > 0 {
            // multusd takes the outputs when this process is gone, and it is gone when the last of its threads has had the
            // processor once more: none may wait for that behind the load of the machine. Refused as for the scan, which says so.
            let _ = sys::all_be_real_time(HELPERS);
        }
        let buses = start_buses(&hardware, &dirs, &cells, context, priority.saturating_sub(1))?;
        let parts = Parts { image, layout, force, pages, cells, buses, retained, notes };
        let mut scan = Scan::new(&hardware, &pins, gpio, &owners, parts);
        if priority > 0
            && let Err(error) = sys::be_real_time(priority)
        {
            log::warn!(
                "no real-time priority for the scan: {error}; run as root, or set LimitRTPRIO={priority}: scans may be late"
            );
        }
        // When this child says that it is ready, the image is true and everything is written.
        scan.turn(MonoNs::now(), MonoNs::now);
        let period_ns = duration_ns(period);
        let due = MonoNs::now().after(period);
        Ok(Self { scan, period_ns, due, nothing: AtomicU64::new(0), _clerk: clerk })
    }

    /// The scan has a rhythm of its own: a cycle ends when its scan is done.
    fn period(&self) -> Duration {
        Duration::ZERO
    }

    fn cycle(&mut self, _: &Context) -> Result<(), Error> {
        loop {
            let now = MonoNs::now();
            if now >= self.due {
                // An absolute rhythm: a late scan does not move those after it.
                let left_out = (now.0 - self.due.0) / self.period_ns;
                self.due = MonoNs(self.due.0.saturating_add(self.period_ns * (left_out + 1)));
                self.scan.overran(left_out);
                break;
            }
            // A change here does not wait for its turn.
            if self.scan.is_force_new() {
                break;
            }
            match self.scan.force_word() {
                Some((word, seen)) => futex::wait(word, seen, Some(self.due)),
                None => futex::wait(&self.nothing, 0, Some(self.due)),
            }
        }
        self.scan.turn(MonoNs::now(), MonoNs::now);
        Ok(())
    }

    fn stop(&mut self, _: &Context) -> Result<(), Error> {
        let end = Instant::now() + LAST_WRITES;
        while !self.scan.finish(MonoNs::now()) {
            if Instant::now() >= end {
                return Err("not every output has its safe value".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Lines are opened at the start only.
    fn reload(mut self, _: Config, context: &Context) -> Result<Self, Error> {
        self.stop(context)?;
        Err("the configuration is read at the start only: ending, to be started again".into())
    }

    fn check(config: &Config) -> Result<(), Error> {
        config::check(config, &Dirs::resolve(&DirFlags::default())).map(|_| ())
    }
}

/// The image of the core, or by hand one that nobody else sees.
fn image() -> Result<Mapping, Error> {
    let (page, is_private) = match descriptor::from_env(ENV_IMAGE_FD)? {
        Some(page) => (page, false),
        None => (map::memfd(c"multus-io-image", IMAGE_WORDS)?, true),
    };
    let page = Mapping::writable(page.as_fd()).map_err(|error| format!("{ENV_IMAGE_FD}: {error}"))?;
    if is_private {
        log::info!("{ENV_IMAGE_FD} is not set: nobody else sees the image");
        for (word, value) in page.words().iter().zip(image_header()) {
            word.store(value, Ordering::Relaxed);
        }
    }
    Ok(page)
}

fn force_page() -> Result<Option<force::Reader<'static>>, Error> {
    let Some(page) = descriptor::from_env(ENV_FORCE_FD)? else {
        log::info!("{ENV_FORCE_FD} is not set: nothing is forced");
        return Ok(None);
    };
    let page = Mapping::read_only(page.as_fd()).map_err(|error| format!("{ENV_FORCE_FD}: {error}"))?;
    Ok(Some(force::Reader::new(page.leak()).map_err(|refused| format!("{ENV_FORCE_FD}: {refused}"))?))
}

/// Opens the native lines. Whoever had them before may need a moment to be gone; after that, what there is must do.
fn open(config: &HardwareConfig, dirs: &Dirs, pins: &Pins, patience: Duration) -> Result<Board, OpenError> {
    let end = Instant::now() + patience;
    let mut is_told = false;
    loop {
        match multus_hardware::open(config, dirs, pins, shared_outputs()?, Extent::All) {
            Err(error) if error.is_busy && Instant::now() < end => {
                if !std::mem::replace(&mut is_told, true) {
                    log::warn!("{error}; waiting");
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(_) => return multus_hardware::open(config, dirs, pins, shared_outputs()?, Extent::WhatThereIs),
            opened => return opened,
        }
    }
}

/// Native outputs that multusd has opened and keeps.
fn shared_outputs() -> Result<Option<SharedOutputs>, OpenError> {
    let failed = |message: String| OpenError { message, is_busy: false };
    let fd = descriptor::from_env(ENV_OUTPUTS_FD).map_err(|error| failed(error.to_string()))?;
    let Some(fd) = fd else { return Ok(None) };
    let text = std::env::var(ENV_OUTPUTS).unwrap_or_default();
    let numbers = SharedOutputs::numbers_of(&text)
        .ok_or_else(|| failed(format!("{ENV_OUTPUTS} is {text:?}, expected numbers with commas between them")))?;
    Ok(Some(SharedOutputs { fd, numbers }))
}

fn start_buses(
    config: &HardwareConfig,
    dirs: &Dirs,
    cells: &Arc<[Cell]>,
    context: &Context,
    priority: u8,
) -> Result<Vec<BusThread>, Error> {
    let (on_i2c, on_spi) = chips(config);
    if on_i2c.is_empty() && on_spi.is_empty() {
        return Ok(Vec::new());
    }
    let outputs =
        |chips: &[Chip]| chips.iter().flat_map(Chip::lines).filter(|(_, is_output)| *is_output).collect::<Vec<_>>();
    for (line, _) in outputs(&on_i2c).into_iter().chain(outputs(&on_spi)) {
        cells[line].want(config.lines[line].safe);
    }
    let (i2c, spi) = multus_hardware::buses(config, dirs)?;
    let mut threads = Vec::new();
    for (bus, chips) in [(i2c, on_i2c), (spi, on_spi)] {
        if !chips.is_empty() {
            // A transfer that hangs for so long will hang for ever.
            let lane = context.lane(bus.name(), Some(BUS_DEADLINE))?;
            threads.push(BusThread::start(bus, chips, Arc::clone(cells), lane, priority)?);
        }
    }
    Ok(threads)
}

/// The priority that was asked for, as far as multusd allows it: a scan that never ends must not hold up the watch.
fn lowered(priority: u8) -> u8 {
    let most = std::env::var(ENV_MOST_PRIORITY).ok().and_then(|text| text.parse().ok());
    let Some(most) = most.filter(|most| priority > *most) else { return priority };
    log::warn!("priority = {priority} is not below that of multusd: {most} is used");
    most
}

fn lock_memory() {
    use nix::sys::mman::{MlockAllFlags, mlockall};
    use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
    // Under a limit, locking what is allocated later would make later allocations fail.
    let unlimited = getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft == RLIM_INFINITY);
    if !unlimited && !nix::unistd::geteuid().is_root() {
        log::warn!(
            "memory is not locked: the limit for locked memory is too low; run as root, or set LimitMEMLOCK=infinity"
        );
    } else if let Err(errno) = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE) {
        log::warn!("memory is not locked: {}", errno.desc());
    }
}

/// An image without a scan for so many periods is stale ...
const STALE_PERIODS: u32 = 10;
/// ... but not before this.
const STALE_AT_LEAST: Duration = Duration::from_millis(50);
/// For the safe values at the end.
const LAST_WRITES: Duration = Duration::from_millis(500);
/// Priority of the threads that neither scan nor serve a bus.
const HELPERS: u8 = 1;
const BUS_DEADLINE: Duration = Duration::from_secs(10);
