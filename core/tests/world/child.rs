//! The child: this test program, started once more by multusd with `TEST_CHILD` in its environment.
//!
//! It beats every few milliseconds; after a while it does what `TEST_CHILD` says. With `TEST_ONCE`, it does that only if it
//! can make the file of that name then, so that one process misbehaves and those after it do not.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use multus_ipc::MonoNs;
use multus_ipc::child::Heartbeat;
use multus_ipc::io::Requester;
use multus_ipc::io_child::{ENV_REQUEST_FD, Io};
use multus_ipc::map::Mapping;
use multus_ipc::text::Text;

/// From beat to beat.
const INTERVAL: Duration = Duration::from_millis(4);
/// How long it behaves: longer than the deadlines of these tests, so that its beats have been looked at.
const GOOD: Duration = Duration::from_millis(700);

/// Where things are in a heartbeat page, see `multus_ipc::heartbeat`.
const SEQUENCE: usize = 128;
const TIME: usize = 129;
const LANES_END: usize = 384;

/// Does nothing unless this process is a child.
pub(crate) fn main() {
    let Ok(behaviour) = std::env::var("TEST_CHILD") else { return };
    let marker = std::env::var_os("TEST_ONCE");
    let is_first = || marker.as_ref().is_none_or(|marker| File::create_new(marker).is_ok());
    let heartbeat = Heartbeat::from_env();
    if behaviour == "never-ready" && is_first() {
        wait();
    }
    heartbeat.ready();
    if behaviour == "outputs" {
        drive(&heartbeat, &std::env::var("TEST_OUTPUTS").expect("outputs to drive"));
    }
    beat(&heartbeat, Some(GOOD));
    if is_first() {
        misbehave(&behaviour, &heartbeat);
    }
    beat(&heartbeat, None);
}

fn misbehave(behaviour: &str, heartbeat: &Heartbeat) {
    match behaviour {
        "beat" | "never-ready" => {}
        "spin" => loop {
            std::hint::spin_loop();
        },
        "wait" => wait(),
        "abort" => std::process::abort(),
        "exit" => std::process::exit(3),
        "runaway" => {
            let end = Instant::now() + Duration::from_secs(3600);
            while Instant::now() < end {
                heartbeat.beat();
            }
        }
        "lane" => {
            // A second thread that falls silent while the first goes on.
            let lane = heartbeat.lane("worker", None).expect("a lane is free");
            lane.beat();
            std::mem::forget(lane);
        }
        "order" | "early" | "late" => {
            let [read, compute, write] = ["read", "compute", "write"].map(|name| heartbeat.checkpoint(name));
            for _ in 0..50 {
                heartbeat.pass(read);
                heartbeat.pass(compute);
                beat(heartbeat, Some(2 * INTERVAL));
                heartbeat.pass(write);
            }
            heartbeat.pass(read);
            match behaviour {
                "order" => heartbeat.pass(write),
                "early" => {
                    heartbeat.pass(compute);
                    heartbeat.pass(write);
                }
                _ => {}
            }
        }
        "leak" => {
            let mut all = Vec::new();
            loop {
                all.push(vec![1u8; 1 << 20]);
                std::hint::black_box(&all);
            }
        }
        _ => scribble(behaviour),
    }
}

/// Asks for the values of outputs, again and again: `DO1=1 AO1=2.5`. `raw:` before a name asks without looking whose it is.
fn drive(heartbeat: &Heartbeat, wanted: &str) -> ! {
    let io = Io::from_env();
    let page = multus_ipc::descriptor::from_env(ENV_REQUEST_FD).expect("a descriptor");
    let page = page.map(|page| Mapping::writable(page.as_fd()).expect("own page"));
    loop {
        for (name, value) in wanted.split(' ').filter_map(|pair| pair.split_once('=')) {
            let value: f64 = value.parse().expect("a number");
            match (name.strip_prefix("raw:"), &page, io.image()) {
                (Some(name), Some(page), Some(image)) => {
                    if let Some((layout, line)) = image.find(&Text::new(name)) {
                        let page = Requester::new(page.words()).expect("own page");
                        page.ask(layout, line, value, MonoNs::now());
                    }
                }
                // Not there before multus-io has started, nor while it defines lines anew.
                _ => {
                    if let Some(output) = io.output(name) {
                        let _ = output.set(value);
                    }
                }
            }
        }
        heartbeat.beat();
        thread::sleep(INTERVAL);
    }
}

/// Writes nonsense into its heartbeat page.
fn scribble(what: &str) {
    // By its name, so that the descriptor is borrowed from nobody.
    let file = File::options().read(true).write(true).open("/proc/self/fd/3").expect("the heartbeat page");
    let page = Mapping::writable(file.as_fd()).expect("the heartbeat page");
    let words = page.words();
    let store = |word: usize, value: u64| words[word].store(value, Ordering::Release);
    let load = |word: usize| words[word].load(Ordering::Acquire);
    let mut random = 88_172_645_463_325_252u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    match what {
        "random" => (0..words.len()).for_each(|word| store(word, next())),
        "random-lanes" => (SEQUENCE..LANES_END).for_each(|word| store(word, next())),
        "max" => (0..words.len()).for_each(|word| store(word, u64::MAX)),
        "zero" => (0..words.len()).for_each(|word| store(word, 0)),
        "header" => store(0, 0x1234),
        "backwards" => {
            store(TIME, MonoNs::now().0);
            store(SEQUENCE, load(SEQUENCE) / 2);
        }
        "time-backwards" => {
            store(TIME, load(TIME) - 60_000_000_000);
            store(SEQUENCE, load(SEQUENCE) + 1);
        }
        "future" => {
            store(TIME, MonoNs::now().0 + 3_600_000_000_000);
            store(SEQUENCE, load(SEQUENCE) + 1);
        }
        other => panic!("TEST_CHILD={other}"),
    }
    wait();
}

fn wait() -> ! {
    loop {
        thread::park();
    }
}

fn beat(heartbeat: &Heartbeat, how_long: Option<Duration>) {
    let end = how_long.map(|d| Instant::now() + d);
    while end.is_none_or(|end| Instant::now() < end) {
        heartbeat.beat();
        thread::sleep(INTERVAL);
    }
}
