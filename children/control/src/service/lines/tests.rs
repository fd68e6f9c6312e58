//! With an image of our own, as multus-io writes it.

use std::os::fd::{AsFd as _, OwnedFd};

use multus_ipc::futex;
use multus_ipc::io::{BAD, Definition, FORCED, IMAGE_WORDS, LineKind, Live, REQUESTED, Writer, image_header};
use multus_ipc::map::{self, Mapping};
use multus_ipc::sync::Ordering;
use multus_ipc::text::{Name, Text};

use super::super::Settings;
use super::super::queue::Next;
use super::*;
use crate::history::{self, IoQuery};
use crate::testing::{FakeDaemon, dirs, until};

/// Stands for multus-io.
pub(crate) struct Scanner {
    page: Mapping,
    fd: OwnedFd,
}

impl Scanner {
    /// DI1, DO1 (of pump), T1: scanned once, all good.
    pub(crate) fn new() -> Self {
        Self::with(["DI1", "DO1", "T1"], "°C", "pump", "sim")
    }

    /// The same with other words.
    pub(crate) fn with([input, output, sensor]: [&str; 3], unit: &str, owner: &str, board: &str) -> Self {
        let fd = map::memfd(c"image", IMAGE_WORDS).expect("memory");
        let page = Mapping::writable(fd.as_fd()).expect("our own");
        for (word, value) in page.words().iter().zip(image_header()) {
            word.store(value, Ordering::Relaxed);
        }
        let scanner = Self { page, fd };
        let line = |name: &str, kind, unit: &str, owner: &str| Definition {
            name: Text::new(name),
            unit: Text::new(unit),
            owner: Name::new(owner),
            kind,
            safe: 0.0,
            lowest: 0.0,
            highest: 10.0,
        };
        let writer = scanner.writer();
        writer.define(&[
            line(input, LineKind::DigitalInput, "", ""),
            line(output, LineKind::DigitalOutput, "", owner),
            line(sensor, LineKind::AnalogueInput, unit, ""),
        ]);
        writer.begin(board, true, 1, 1_000_000, u64::MAX);
        for (at, value) in [0.0, 0.0, 21.5].into_iter().enumerate() {
            scanner.set(at, value, 0, 0);
        }
        writer.scanned(MonoNs::now(), 0, 0, false);
        scanner
    }

    pub(crate) fn image(&self) -> Io {
        Io::new(Mapping::read_only(self.fd.as_fd()).expect("our own"), None, "control").expect("an image")
    }

    fn writer(&self) -> Writer<'_> {
        Writer::new(self.page.words()).expect("an image")
    }

    /// One line, and everybody is told.
    pub(crate) fn set(&self, at: usize, value: f64, flags: u64, changes: u64) {
        let now = MonoNs::now();
        let writer = self.writer();
        writer.set(at, &Live { value, flags, changed: now, good: now, changes, ..Live::default() });
        writer.announce();
        futex::wake_all(writer.reader().change_word());
    }
}

fn next(news: &Receiver<Arc<LineNews>>) -> LineNews {
    match news.next_within(Duration::from_secs(60)) {
        Next::Item(news) => (*news).clone(),
        other => panic!("{other:?}"),
    }
}

fn line_of(news: LineNews) -> IoLine {
    match news {
        LineNews::Line(line) => *line,
        other @ LineNews::Fresh(_) => panic!("{other:?}"),
    }
}

#[test]
fn whoever_follows_gets_all_lines_and_then_what_changes() {
    let root = tempfile::tempdir().expect("a directory");
    let service = Service::new(dirs(root.path()), Settings::default());
    let user = Caller::new("somebody", Caller::USER);
    assert!(matches!(service.follow_lines(&user), Err(Error::Refused(_))), "there is no image yet");
    let scanner = Scanner::new();
    service.watch_lines(scanner.image(), None).expect("a thread");
    until("the first look", || (service.seen_lines().1.len() == 3).then_some(()));
    let news = service.follow_lines(&user).expect("there is room");
    assert_eq!(next(&news), LineNews::Fresh(true));
    let names: Vec<String> = (0..3).map(|_| line_of(next(&news)).name).collect();
    assert_eq!(names, ["DI1", "DO1", "T1"]);
    scanner.set(0, 1.0, 0, 1);
    let line = line_of(next(&news));
    assert_eq!((line.name.as_str(), line.value, line.changes), ("DI1", 1.0, 1));
    scanner.set(1, 0.0, FORCED, 0);
    assert_eq!(line_of(next(&news)).source, "forced");
    scanner.set(2, 21.5, BAD, 0);
    let line = line_of(next(&news));
    assert_eq!((line.name.as_str(), line.good, line.value), ("T1", false, 21.5));
    // The daemon is not there: values are, but not who has the outputs.
    let status = service.lines(&user).expect("the image suffices");
    assert_eq!((status.driven_by.as_str(), status.lines.len(), status.fresh), ("", 3, true));
    assert_eq!(service.line(&user, "T1").expect("there").unit, "°C");
    assert!(matches!(service.line(&user, "T9"), Err(Error::NotFound(_))));
}

#[test]
fn a_slow_listener_is_told_how_much_it_lost() {
    let lines = Lines::default();
    let (sender, receiver) = queue(QUEUE);
    lines.lock().listeners.push(sender);
    for n in 0..QUEUE as u64 + 5 {
        lines.looked(false, vec![IoLine { name: "DI1".into(), changes: n, ..IoLine::default() }]);
    }
    assert_eq!(receiver.try_next(), Next::Gap(5));
    assert_eq!(line_of(next(&receiver)).changes, 5);
    lines.looked(false, vec![IoLine { name: "DI1".into(), changes: QUEUE as u64 + 4, ..IoLine::default() }]);
    for n in 6..QUEUE as u64 + 5 {
        assert_eq!(line_of(next(&receiver)).changes, n);
    }
    assert_eq!(receiver.try_next(), Next::Empty, "what did not change is no news");
}

#[test]
fn orders_need_their_level_a_line_and_a_value_that_fits() {
    let root = tempfile::tempdir().expect("a directory");
    let service = Service::new(dirs(root.path()), Settings::default());
    let scanner = Scanner::new();
    service.watch_lines(scanner.image(), None).expect("a thread");
    let (operator, admin) = (Caller::new("o", Caller::OPERATOR), Caller::new("a", Caller::ADMIN));
    let kind = |caller: &Caller, name, order| {
        service.line_order(caller, name, order).expect_err("nobody carries it out").kind()
    };
    assert_eq!(kind(&Caller::new("u", 100), "DO1", LineOrder::Set(1.0)), "forbidden");
    assert_eq!(kind(&operator, "DO1", LineOrder::Force(1.0)), "forbidden");
    assert_eq!(kind(&operator, "DO1", LineOrder::Release), "forbidden");
    assert_eq!(kind(&operator, "DO9", LineOrder::Set(1.0)), "not-found");
    for value in [0.5, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(kind(&admin, "DO1", LineOrder::Force(value)), "invalid", "{value}");
    }
    // What fits goes to the daemon, which is not there.
    assert_eq!(kind(&operator, "DO1", LineOrder::Set(1.0)), "unavailable");
    let analogue = IoLine { kind: "analogue-output".into(), range: Some([0.0, 10.0]), ..IoLine::default() };
    assert!(check_value(&analogue, 10.0).is_ok());
    for value in [10.5, f64::NAN] {
        assert!(matches!(check_value(&analogue, value), Err(Error::Invalid { .. })), "{value}");
    }
}

#[test]
fn changes_are_recorded_and_a_flood_is_counted() {
    let root = tempfile::tempdir().expect("a directory");
    let dirs = dirs(root.path());
    let _daemon = FakeDaemon::start(&dirs.control_socket(), 7, Vec::new());
    let service = Service::new(dirs.clone(), Settings::default());
    let scanner = Scanner::new();
    let (history, _end) = history::History::start(&history::Config::default(), &dirs).expect("a thread");
    service.set_history(history.clone());
    service.watch_lines(scanner.image(), None).expect("a thread");
    let rows = |line: &str| {
        let query = IoQuery { lines: vec![line.into()], oldest_first: true, ..IoQuery::default() };
        history.io_changes(&query).map(|page| page.rows).unwrap_or_default()
    };
    let count = |line: &str, wanted: usize| {
        until("rows", || Some(rows(line)).filter(|rows| rows.len() >= wanted));
    };
    count("T1", 1);
    scanner.set(1, 1.0, REQUESTED, 1);
    count("DO1", 2);
    scanner.set(1, 0.0, FORCED, 2);
    count("DO1", 3);
    let told: Vec<_> = rows("DO1")
        .into_iter()
        .map(|(_, row)| (row.value, row.previous, row.source, row.missed, row.duration_ns.is_some()))
        .collect();
    let text = |text: &str| text.to_owned();
    assert_eq!(
        told,
        [
            (text("0"), None, text("safe"), 0, false),
            (text("1"), Some(text("0")), text("requested"), 0, true),
            (text("0"), Some(text("1")), text("forced"), 0, true),
        ]
    );
    // A contact that chatters: a thousand changes as fast as they come.
    for n in 1..=1000u64 {
        scanner.set(0, (n % 2) as f64, 0, n);
    }
    let seen =
        || service.seen_lines().1.iter().find(|line| line.name == "DI1").is_some_and(|line| line.changes == 1000);
    until("it is quiet", || seen().then_some(()));
    let all = until("all is counted", || {
        let rows = rows("DI1");
        let counted: u64 =
            rows.iter().map(|(_, row)| row.missed + u64::from(row.previous.as_ref() != Some(&row.value))).sum();
        // The first row is the look at the start.
        (counted == 1001).then_some(rows)
    });
    assert!(all.len() <= 1 + 20 + 2, "{} rows", all.len());
    assert_eq!(all.last().map(|(_, row)| row.value.as_str()), Some("0"), "its last value is there");
    let stats = history.stats();
    assert!(stats.io_missed >= 1000 - 22, "{stats:?}");
    history.stop();
}
