//! The watch thread allocates nothing and frees nothing once it watches: counted, while children crash and hang, are
//! commanded and looked at.
//!
//! The daemon runs inside this process, on a thread that the allocator below recognises.

#[allow(dead_code, reason = "most of it is for the end-to-end tests")]
mod world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use multus_contract::api::command::Request;
use multusd::daemon::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::unistd::getpid;

use world::{World, program, send, shell};

/// The allocator of the system; counts what one thread asks of it.
struct Counting;

static ALLOCATED: AtomicU64 = AtomicU64::new(0);
static FREED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

fn count(counter: &AtomicU64) {
    // `try_with`: memory is freed even while a thread ends, when its locals are gone.
    if COUNTED.try_with(Cell::get).unwrap_or(false) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes on to `System` with the same arguments, which keeps the contract; counting allocates nothing
// (the thread-local is initialised by a constant and has no destructor).
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(&ALLOCATED);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(&ALLOCATED);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(&ALLOCATED);
        // SAFETY: as above; `block` came from `System`.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(&FREED);
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn counted() -> (u64, u64) {
    (ALLOCATED.load(Ordering::Relaxed), FREED.load(Ordering::Relaxed))
}

/// How long it is watched.
const WATCHED: Duration = Duration::from_secs(4);

#[test]
fn the_watch_thread_allocates_nothing_while_it_watches() {
    let world = World::new();
    // Signs for a watchdog twenty times in its shortest timeout, and children that are in order and out of it.
    world.daemon_config("[[watchdog]]\ndevice = \"sim\"\ntimeout = \"1s\"\n");
    world.child("beats", &program("beat").deadline("20s").key("critical = true").key("recovery = \"1s\""));
    world.child("hangs", &program("wait").deadline("200ms").delays("[\"0s\"]"));
    world.child("scribbles", &program("random").deadline("200ms").delays("[\"0s\"]"));
    world.child("crashes", &shell("exit 1").delays("[\"50ms\"]").key("critical = true").key("recovery = \"1s\""));
    world.child("missing", &world::Spec::of(&["/no/such/program"]).heartbeat("method = \"none\"").delays("[\"70ms\"]"));
    let hooks = "[check]\ncommand = [\"/bin/false\"]\ninterval = \"100ms\"\nfailures = 3\n\
                 [hooks]\nafter_stop = [\"/bin/true\"]\nafter_start = [\"/bin/true\"]";
    let needy = shell("exec sleep 1000").key("after = [{ name = \"hangs\", on_restart = \"restart\" }]");
    world.child("needs", &needy.table(hooks).table("[safe_state]\noutputs = { DO1 = \"off\" }"));
    let options = Options { dirs: world.dirs().clone(), program: env!("CARGO_BIN_EXE_multusd").into(), verbose: false };
    let watch = thread::spawn(move || {
        COUNTED.set(true);
        let result = daemon::run(&options);
        COUNTED.set(false);
        result
    });

    world.until("the daemon answers", |world| world.client().is_ok_and(|mut c| c.request(&Request::Version).is_ok()));
    for name in ["beats", "hangs", "needs"] {
        world.event(name, "ready");
    }
    let before = counted();
    assert!(before.0 > 0, "the allocator counts: setting up takes memory");
    let end = Instant::now() + WATCHED;
    while Instant::now() < end {
        let status = world.status();
        if let Some(pid) = status.children.iter().find(|c| c.name == "beats").and_then(|c| c.pid) {
            send(pid.cast_signed(), Signal::SIGKILL);
        }
        for request in [
            Request::Stop { name: "needs".into() },
            Request::Start { name: "needs".into() },
            Request::Restart { name: "crashes".into() },
            Request::Snooze { name: "hangs".into(), seconds: 1 },
            Request::Snooze { name: "hangs".into(), seconds: 0 },
            Request::Reload,
        ] {
            world.tell(&request);
        }
        world.until_state("beats", "running");
    }
    // A changed configuration goes through the watch thread as well.
    world.child("crashes", &shell("exit 2").delays("[\"60ms\"]"));
    world.tell(&Request::Reload);
    world.event_since(0, "a crash with the new code", |e| e.detail.ends_with("exit code 2"));
    assert_eq!(counted(), before, "allocations and frees of the watch thread");

    for (name, fault) in [
        ("beats", "crash"),
        ("hangs", "hang"),
        ("scribbles", "corrupt-heartbeat"),
        ("crashes", "crash"),
        ("missing", "exec-failed"),
    ] {
        let found = world.of(name).last_fault.unwrap_or_else(|| panic!("{name} did not fail"));
        assert_eq!(found.kind, fault, "{name}");
    }
    let status = world.status().daemon;
    assert!(status.watch_loop.wakeups > 100, "it watched: {status:?}");
    if status.locked {
        assert_eq!(status.watch_loop.page_faults, 0);
    } else {
        world::skip("no page fault of the watch thread", "memory cannot be locked");
    }
    kill(getpid(), Signal::SIGTERM).expect("own process");
    watch.join().expect("it ends in order").expect("without an error");
}

/// Not a test: the program that is supervised. Alone it does nothing.
#[test]
fn child() {
    world::child::main();
}
