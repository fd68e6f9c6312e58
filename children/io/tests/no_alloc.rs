//! A scan allocates nothing and frees nothing, whatever happens in it: counted, while inputs change, pages come and go,
//! requests are carried out and refused, outputs are forced and hardware fails.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use multus_contract::config::hardware;
use multus_contract::dirs::{DirFlags, Dirs};
use multus_hardware::gpio::Pins;
use multus_hardware::sim::{self, Fault, Panel};
use multus_io::clerk::{Clerk, Names, Retained};
use multus_io::requests::{Arrival, Pages};
use multus_io::scan::{Parts, Scan};
use multus_ipc::child::Heartbeat;
use multus_ipc::io::{IMAGE_WORDS, LINES, REQUEST_WORDS, Requester, Writer, image_header, request_header};
use multus_ipc::map::{self, Mapping};
use multus_ipc::sync::Ordering;
use multus_ipc::text::Text;
use multus_ipc::{MonoNs, force};

/// The allocator of the system; counts what a thread asks of it while it wants to know.
struct Counting;

thread_local! {
    /// `None`: not counted.
    static COUNT: Cell<Option<u64>> = const { Cell::new(None) };
}

fn count() {
    // `try_with`: memory is freed even while a thread ends, when its locals are gone.
    let _ = COUNT.try_with(|count| count.set(count.get().map(|n| n + 1)));
}

// SAFETY: every call goes on to `System` with the same arguments, which keeps the contract; counting allocates nothing (the
// thread-local is initialised by a constant and has no destructor).
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above; `block` came from `System`.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count();
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn page(words: usize, header: &[u64]) -> [Mapping; 2] {
    use std::os::fd::AsFd as _;
    let fd = map::memfd(c"test", words).expect("a page");
    let page = Mapping::writable(fd.as_fd()).expect("own page");
    for (word, value) in page.words().iter().zip(header) {
        word.store(*value, Ordering::Relaxed);
    }
    [page, Mapping::read_only(fd.as_fd()).expect("own page")]
}

#[test]
fn a_scan_allocates_nothing() {
    let text = "board = \"sim\"\n[lines]\n\
        DI1 = { kind = \"digital-input\", gpio = 1, debounce = \"3ms\" }\n\
        DO1 = { kind = \"digital-output\", gpio = 2, safe = \"off\", owner = \"a\", retained = true }\n\
        DO2 = { kind = \"digital-output\", gpio = 3, safe = \"off\", owner = \"b\" }\n\
        XO1 = { kind = \"digital-output\", pcf8574 = { address = 0x38, pin = 0 }, safe = \"off\", owner = \"a\" }\n";
    let (config, found) = hardware::parse(text, Path::new("h.toml"));
    assert!(found.is_empty(), "{found:?}");
    let temp = tempfile::tempdir().expect("a temporary directory can be made");
    let dirs = Dirs::resolve(&DirFlags { runtime: Some(temp.path().into()), ..DirFlags::default() });
    let pins = Pins::of(&config);
    let board = multus_hardware::open(&config, &dirs, &pins, None, multus_hardware::Extent::All).expect("simulated");
    let panel = Panel::open(&sim::file_of(&dirs)).expect("own file");

    let definitions: Vec<_> = config.lines.iter().map(|line| line.definition()).collect();
    let [image_page, _] = page(IMAGE_WORDS, &image_header());
    let image = Writer::new(image_page.leak()).expect("an image");
    let layout = image.define(&definitions);
    let [force_page, _] = page(force::words(8, 2), &[]);
    let force_words = force_page.leak();
    let forcing = force::Writer::new(force_words, 8, 2);
    let retained = Arc::new(Retained::new(&vec![None; definitions.len()]));
    let owners = ["a", "b"].map(str::to_owned).to_vec();
    let names = Names { lines: config.lines.iter().map(|line| line.name.clone()).collect(), owners: owners.clone() };
    let file = temp.path().join("retained.toml");
    let (_clerk, notes) =
        Clerk::start(names, Arc::clone(&retained), file, Duration::from_secs(3600), Heartbeat::inert().voice())
            .expect("a thread");
    let (mut arrived, arrivals) = rtrb::RingBuffer::new(4);
    let (graveyard, mut dead) = rtrb::RingBuffer::new(4);
    let parts = Parts {
        image,
        layout,
        force: Some(force::Reader::new(force_words).expect("a force page")),
        pages: Some(Pages { arrivals, graveyard }),
        cells: config.lines.iter().map(|_| multus_io::bus::Cell::default()).collect(),
        buses: Vec::new(),
        retained,
        notes,
    };
    let mut scan = Scan::new(&config, &pins, board.gpio, &owners, parts);

    let [first, _] = page(REQUEST_WORDS, &request_header());
    let mut requests = first.leak();
    for round in 0..3000_u64 {
        let now = MonoNs(1_000_000 * (round + 1));
        panel.drive(1, Some(round / 7 % 2 == 0)).expect("own file");
        if round % 100 == 0 {
            let [own, view] = page(REQUEST_WORDS, &request_header());
            requests = own.leak();
            arrived.push(Arrival { owner: 0, page: Some(view) }).expect("room");
            drop(dead.pop());
        }
        let requester = Requester::new(requests).expect("a request page");
        for (line, value) in [(1, (round % 2) as f64), (2, 1.0), (3, 0.5), (LINES - 1, 1.0)] {
            if round % 3 == line as u64 % 3 {
                requester.ask(layout, line, value, now);
            }
        }
        match round % 50 {
            10 => forcing.define(0, &Text::new("DO1"), 0.0, 1, now),
            20 => forcing.set_forced(0, false, now),
            30 => forcing.define(1, &Text::new("nothing"), 0.0, 1, now),
            _ => {}
        }
        forcing.announce();
        if round % 200 == 50 {
            panel.break_gpio(Fault::Timeout).expect("own file");
        } else if round % 200 == 90 {
            panel.break_gpio(Fault::None).expect("own file");
        }
        COUNT.set(Some(0));
        scan.turn(now, MonoNs::now);
        let counted = COUNT.take();
        assert_eq!(counted, Some(0), "scan {round}");
    }
    let reader = image.reader();
    assert!(reader.refused() > 100 && reader.scans() == 3000, "{} refused", reader.refused());
    assert!(
        reader.live(0).is_some_and(|live| live.changes > 100) && reader.live(1).is_some_and(|live| live.changes > 100)
    );
    assert_eq!(reader.forced().unknown, 1);
}
