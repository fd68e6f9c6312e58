//! Against real databases: what is stored, in which order, and what remains of it after a failure.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicI64;

use multus_contract::api::event::Event;
use multus_contract::api::time::parse_rfc3339;

use super::record::{Recorder, Stored};
use super::sqlite::Sqlite;
use super::*;
use crate::testing::{Authority, FakeDaemon, Server, dirs, event, free_port, program, skip, until};

const DAY: u64 = 86_400;

fn recorder(path: &Path) -> Recorder {
    let sql = Sqlite::open(path, Durability::Normal).expect("it opens");
    Recorder::new(Box::new(sql), None, u64::MAX).expect("it has tables")
}

fn events(start_s: u64, seqs: std::ops::Range<u64>) -> Vec<Event> {
    seqs.map(|seq| event(start_s, seq, "ready")).collect()
}

fn to_files(state: &Path, name: &str, events: &[Event]) {
    let text = events.iter().fold(String::new(), |mut text, event| {
        let _ = writeln!(text, "{}", serde_json::to_string(event).expect("plain data"));
        text
    });
    std::fs::write(state.join(name), text).expect("written");
}

fn all(history: &History) -> Vec<Entry> {
    let query = Query { oldest_first: true, limit: MOST_ROWS, ..Query::default() };
    history.events(&query).map(|page| page.rows).unwrap_or_default()
}

/// Run, number and, for a gap, the word.
fn story(history: &History) -> Vec<(i64, u64, bool)> {
    all(history).iter().map(|entry| (entry.run, entry.event.seq, entry.event.kind == LOST)).collect()
}

fn start(config: &Config, dirs: &Dirs) -> History {
    config.check().expect("a good configuration");
    History::start(config, dirs).expect("a thread").0
}

fn end(history: &History) {
    history.stop();
    until("it ends", || (Arc::strong_count(&history.0) == 1).then_some(()));
}

#[test]
fn events_from_files_and_from_the_daemon_are_stored_once_and_in_order() {
    let root = tempfile::tempdir().expect("a directory");
    let dirs = dirs(root.path());
    to_files(&dirs.state, "events.jsonl.2", &events(100, 0..3));
    to_files(&dirs.state, "events.jsonl.1", &[events(100, 3..5), events(200, 0..4)].concat());
    to_files(&dirs.state, "events.jsonl", &events(200, 4..6));
    let daemon = FakeDaemon::start(&dirs.control_socket(), 7, events(200, 3..8));
    // These events are from 1970.
    let config = Config { max_age: Duration::ZERO.into(), ..Config::default() };
    let history = start(&config, &dirs);
    let mut expected: Vec<(i64, u64, bool)> = (0..5).map(|seq| (1, seq, false)).collect();
    expected.extend((0..8).map(|seq| (2, seq, false)));
    until("all are stored", || (story(&history) == expected).then_some(()));

    // The daemon ends while nobody looks, and another one starts: what came last is in the file only.
    to_files(&dirs.state, "events.jsonl", &[events(200, 4..10), events(300, 0..2)].concat());
    daemon.restarts(8, events(300, 0..3));
    expected.extend((8..10).map(|seq| (2, seq, false)));
    expected.extend((0..3).map(|seq| (3, seq, false)));
    until("the other daemon is followed", || (story(&history) == expected).then_some(()));
    assert_eq!((history.stats().stored, history.stats().lost), (18, 0));
    end(&history);
    let again = start(&config, &dirs);
    daemon.happens(event(300, 3, "ready"));
    expected.push((3, 3, false));
    until("it goes on", || (story(&again) == expected).then_some(()));
    assert_eq!(again.stats().stored, 1);
    again.stop();
}

#[test]
fn what_nobody_kept_is_stored_as_a_gap() {
    let root = tempfile::tempdir().expect("a directory");
    let dirs = dirs(root.path());
    let daemon = FakeDaemon::start(&dirs.control_socket(), 7, events(100, 0..3));
    let history = start(&Config::default(), &dirs);
    until("the first are stored", || (all(&history).len() == 3).then_some(()));
    // The ring went on; the file reaches back to 10 only.
    to_files(&dirs.state, "events.jsonl", &events(100, 10..20));
    daemon.happens(event(100, 20, "ready"));
    let mut expected: Vec<(i64, u64, bool)> = (0..3).map(|seq| (1, seq, false)).collect();
    expected.push((1, 3, true));
    expected.extend((10..21).map(|seq| (1, seq, false)));
    until("the gap is stored", || (story(&history) == expected).then_some(()));
    assert_eq!(all(&history)[3].event.detail, "7 events were lost");
    // Another daemon whose beginning is gone, too.
    daemon.restarts(8, events(500, 30..31));
    expected.extend([(2, 0, true), (2, 30, false)]);
    until("the other gap is stored", || (story(&history) == expected).then_some(()));
    assert_eq!(history.stats().lost, 37);
    history.stop();
}

#[test]
fn a_daemon_that_is_followed_again_makes_no_new_run() {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("h.sqlite");
    let mut first = recorder(&path);
    let stored = first.store(&events(100, 0..5), true).expect("stored");
    assert_eq!(stored, Stored { new: 5, lost: 0, known: 0 });
    drop(first);
    let mut second = recorder(&path);
    assert_eq!(second.last().expect("a last one"), Some((parse_rfc3339(&event(100, 4, "").time).expect("a time"), 4)));
    // Known ones tell that it is the same, whatever its process says.
    let stored = second.store(&events(100, 2..8), true).expect("stored");
    assert_eq!(stored, Stored { new: 3, lost: 0, known: 3 });
    assert!(!second.misses_some_of(&events(100, 3..9)));
    assert!(second.misses_some_of(&events(100, 9..10)));
    // A machine that starts anew counts its time anew; a daemon says that it starts.
    let stored = second.store(&events(50, 20..21), false).expect("stored");
    assert_eq!(stored, Stored { new: 1, lost: 20, known: 0 });
}

#[test]
fn changes_of_lines_go_on_after_a_restart_and_say_what_was_missed() {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("h.sqlite");
    // Of a version that recorded none.
    let mut old = Sqlite::open(&path, Durability::Normal).expect("it opens");
    old.execute("CREATE TABLE io_changes (id INTEGER PRIMARY KEY, line TEXT, time_unix_ns INTEGER)", &[])
        .expect("a table");
    drop(old);
    let change = |line: &str, value: &str, changes, image: &str| IoChange {
        line: line.into(),
        value: value.into(),
        source: "read".into(),
        changes,
        image: image.into(),
        ..IoChange::default()
    };
    let mut first = recorder(&path);
    let looked = [change("DI1", "0", 3, "a"), change("DI2", "1", 5, "a"), change("DI1", "1", 4, "a")];
    assert_eq!(first.store_io(&looked).expect("stored"), (3, 0));
    drop(first);
    // While nobody looked, DI1 changed three times, DI2 not at all.
    let mut second = recorder(&path);
    let looked = [change("DI1", "0", 7, "a"), change("DI2", "1", 5, "a")];
    assert_eq!(second.store_io(&looked).expect("stored"), (1, 2));
    drop(second);
    // Another multusd counts anew. DI2 has no row since; what it counts now is not compared with the old counter.
    let mut third = recorder(&path);
    let looked = [change("DI1", "0", 0, "b"), change("DI2", "1", 0, "b")];
    assert_eq!(third.store_io(&looked).expect("stored"), (0, 0));
    drop(third);
    let mut fourth = recorder(&path);
    assert_eq!(fourth.store_io(&[change("DI2", "1", 6, "b"), change("DI1", "1", 1, "b")]).expect("stored"), (2, 6));
}

#[test]
fn size_and_age_are_bounded() {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("h.sqlite");
    let bound = 1 << 20;
    let sql = Sqlite::open(&path, Durability::Normal).expect("it opens");
    let age = Duration::from_secs(10 * DAY);
    let mut recorder = Recorder::new(Box::new(sql), Some(age), bound).expect("it has tables");
    for batch in 0..60 {
        let events: Vec<Event> = (batch * 100..(batch + 1) * 100)
            .map(|seq| Event { detail: "x".repeat(200), ..event(100, seq, "fault") })
            .collect();
        recorder.store(&events, false).expect("stored");
        recorder.keep_size().expect("trimmed");
        assert!(recorder.used_bytes().expect("a size") <= bound);
    }
    let file = std::fs::metadata(&path).expect("it is there").len();
    assert!(file <= bound + (512 << 10), "the file has {file} bytes");
    let last = recorder.last().expect("readable").expect("some are left").1;
    assert_eq!(last, 5999, "the latest stay");

    let young = event(100 + 20 * DAY, 6000, "ready");
    recorder.store(std::slice::from_ref(&young), false).expect("stored");
    // However far ahead a clock is, the last ones stay.
    let rows = |path: &Path| {
        let mut sql = Sqlite::open_to_read(path).expect("it opens");
        query::counts(&mut sql, &Query::default()).expect("readable").total
    };
    recorder.keep_age(u64::MAX / 2, 500).expect("trimmed");
    assert_eq!(rows(&path), 500);
    let removed = recorder.keep_age((100 + 21 * DAY) * 1_000_000_000, 1).expect("trimmed");
    assert!(removed > 100, "{removed}");
    drop(recorder);
    let mut sql = Sqlite::open_to_read(&path).expect("it opens");
    let left = query::events(&mut sql, &Query::default()).expect("readable").rows;
    assert_eq!(left.iter().map(|entry| entry.event.seq).collect::<Vec<_>>(), [6000]);
}

#[test]
fn a_damaged_file_is_set_aside_and_a_new_one_begun() {
    let root = tempfile::tempdir().expect("a directory");
    let dirs = dirs(root.path());
    let path = dirs.state.join("history.sqlite");
    // Damage that is seen at once, and some that only a search meets.
    std::fs::write(&path, "this is no database, and never was one".repeat(500)).expect("written");
    for old in [1, 2, 3] {
        std::fs::write(dirs.state.join(format!("history.sqlite.broken-{old}")), "").expect("written");
    }
    to_files(&dirs.state, "events.jsonl", &events(100, 0..400));
    let _daemon = FakeDaemon::start(&dirs.control_socket(), 7, events(100, 390..401));
    let history = start(&Config::default(), &dirs);
    until("it begins anew", || (all(&history).len() == 401).then_some(()));
    let broken = || {
        let names = std::fs::read_dir(&dirs.state).expect("readable").flatten();
        names.filter(|entry| entry.file_name().to_string_lossy().contains("broken")).count()
    };
    assert_eq!((history.stats().set_aside, broken()), (1, 2));
    end(&history);

    let mut bytes = std::fs::read(&path).expect("readable");
    for byte in bytes.iter_mut().skip(4096 * 3) {
        *byte ^= 0x5a;
    }
    std::fs::write(&path, bytes).expect("written");
    let history = start(&Config::default(), &dirs);
    until("the damage is found and the events are back", || {
        let rows = all(&history).len();
        (rows == 401 && history.stats().set_aside == 1).then_some(())
    });
    history.stop();
}

#[test]
fn a_killed_writer_leaves_a_sound_file_with_all_that_was_committed() {
    const PATH: &str = "MULTUS_TEST_HISTORY_TO_BE_KILLED";
    if let Some(path) = std::env::var_os(PATH) {
        let mut recorder = recorder(Path::new(&path));
        let first = recorder.last().expect("readable").map_or(0, |(_, seq)| seq + 1);
        for seq in first.. {
            recorder.store(&[event(100, seq, "ready")], false).expect("stored");
            println!("committed {seq}");
        }
    }
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("h.sqlite");
    let myself = std::env::current_exe().expect("a program");
    let mut committed = 0;
    for round in 0..12u64 {
        let name = std::thread::current().name().expect("tests have names").to_owned();
        let mut command = Command::new(&myself);
        command.args(["--exact", &name, "--nocapture"]).env(PATH, &path).stdout(Stdio::piped());
        let mut writer = Server::start(&mut command);
        let lines = BufReader::new(writer.0.stdout.take().expect("a pipe")).lines();
        let mut numbers =
            lines.map_while(|line| line.ok()).filter_map(|line| line.split("committed ").nth(1)?.parse().ok());
        // Killed at another moment each time; what it had said by then is committed.
        for number in numbers.by_ref().take(20 + usize::try_from(round * 37 % 90).expect("small")) {
            committed = number;
        }
        writer.0.kill().expect("it can be killed");
        committed = numbers.last().unwrap_or(committed);
        drop(writer);
        let mut sql = Sqlite::open(&path, Durability::Normal).expect("it opens");
        assert!(sql.is_sound(), "round {round}");
        let rows = sql.select("SELECT COUNT(*), MAX(seq), COUNT(DISTINCT seq) FROM events", &[]).expect("readable");
        let number = |i: usize| rows[0][i].int().expect("a number").unsigned_abs();
        assert!(number(1) >= committed, "round {round}: {committed} was committed, {} is there", number(1));
        assert_eq!((number(0), number(2)), (number(1) + 1, number(1) + 1), "round {round}: none twice, none missing");
    }
    assert!(committed > 300, "{committed}");
}

#[test]
fn a_log_that_a_power_failure_cut_off_costs_the_last_rows_only() {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("h.sqlite");
    let mut recorder = recorder(&path);
    for seq in 0..50 {
        recorder.store(&[event(100, seq, "ready")], false).expect("stored");
    }
    let files = ["h.sqlite", "h.sqlite-wal"].map(|name| std::fs::read(root.path().join(name)).expect("readable"));
    let mut least = u64::MAX;
    for cut in (0..files[1].len()).rev().step_by(files[1].len() / 23 + 1) {
        let copy = tempfile::tempdir().expect("a directory");
        let path = copy.path().join("h.sqlite");
        std::fs::write(&path, &files[0]).expect("written");
        std::fs::write(copy.path().join("h.sqlite-wal"), &files[1][..cut]).expect("written");
        let mut sql = Sqlite::open(&path, Durability::Normal).expect("it opens");
        assert!(sql.is_sound(), "cut to {cut}");
        // Nothing at all may be left of the shortest; then there are no tables either.
        let rows = sql.select("SELECT COUNT(*), COALESCE(MAX(seq), -1) + 1 FROM events", &[]);
        if let Ok(rows) = rows {
            let numbers = [0, 1].map(|i| rows[0][i].int().expect("a number").unsigned_abs());
            assert_eq!(numbers[0], numbers[1], "no row is missing in between");
            assert!(numbers[0] <= least, "a shorter log holds no more");
            least = numbers[0];
        }
    }
    assert!(least < 50, "{least}");
}

#[test]
fn a_full_disk_is_told_of_and_caught_up_with() {
    const NAME: &str = "a_full_disk_is_told_of_and_caught_up_with";
    let root = tempfile::tempdir().expect("a directory");
    let dirs = dirs(root.path());
    let disk = root.path().join("disk");
    std::fs::create_dir(&disk).expect("a directory");
    let mount = |args: &[&str]| Command::new("mount").args(args).arg(&disk).output().is_ok_and(|o| o.status.success());
    if !nix::unistd::Uid::effective().is_root() || !mount(&["-t", "tmpfs", "-o", "size=512k", "none"]) {
        return skip(NAME, "needs root and the right to mount a file system");
    }
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let _mounted = Mounted(disk.clone());
    let config = Config { database: disk.join("h.sqlite").to_string_lossy().into_owned(), ..Config::default() };
    let daemon = FakeDaemon::start(&dirs.control_socket(), 7, events(100, 0..5));
    let history = start(&config, &dirs);
    until("the first are stored", || (all(&history).len() == 5).then_some(()));
    std::fs::write(disk.join("ballast"), vec![0; 1 << 20]).expect_err("it is full now");
    let last = AtomicI64::new(4);
    until("the disk is full", || {
        let seq = last.fetch_add(1, Ordering::Relaxed).unsigned_abs() + 1;
        daemon.happens(Event { detail: "y".repeat(2000), ..event(100, seq, "ready") });
        (history.stats().failures > 0).then_some(())
    });
    assert!(!history.stats().up);
    assert!(history.stats().error.is_some_and(|error| error.contains("full")), "{:?}", history.stats());
    std::fs::remove_file(disk.join("ballast")).expect("removed");
    until("it catches up", || {
        let rows = all(&history).iter().filter(|entry| entry.event.kind != LOST).count();
        (i64::try_from(rows) == Ok(last.load(Ordering::Relaxed) + 1)).then_some(())
    });
    assert!(history.stats().up && history.stats().lost == 0, "{:?}", history.stats());
    history.stop();
}

#[test]
fn a_password_in_the_url_of_the_database_is_refused() {
    let check = |database: &str| Config { database: database.into(), ..Config::default() }.check();
    for url in ["mysql://multus:secret@server/history", "mariadb://multus:secret@server/history"] {
        let said = check(url).expect_err("everybody who sees the URL would see it").to_string();
        assert!(said.contains("history.password_file") && !said.contains("secret"), "{said}");
    }
    for url in ["mysql://multus@server/history", "mysql://multus:@server/history"] {
        assert!(check(url).is_ok(), "{url}");
    }
}

#[test]
fn a_server_out_of_reach_holds_up_nobody() {
    let root = tempfile::tempdir().expect("a directory");
    let dirs = dirs(root.path());
    let database = format!("mysql://multus@127.0.0.1:{}/history", free_port());
    let history = start(&Config { database, password: "secret".into(), ..Config::default() }, &dirs);
    until("it fails", || (history.stats().failures > 0).then_some(()));
    for n in 0..IO_QUEUE + 10 {
        history.io_changed(IoChange { time_unix_ns: n as u64, ..IoChange::default() });
    }
    let stats = history.stats();
    assert!(!stats.up && stats.queued == IO_QUEUE as u64 && stats.io_lost == 10, "{stats:?}");
    assert!(!format!("{stats:?}").contains("secret"));
    let answer = history.events(&Query::default()).expect_err("it cannot be read either");
    assert_eq!(answer.kind(), "unavailable");
    assert!(!answer.to_string().contains("secret"), "{answer}");
    history.stop();
}

#[test]
fn questions_are_answered_by_sqlite() {
    let root = tempfile::tempdir().expect("a directory");
    ask_everything(&Config::default(), &dirs(root.path()));
}

#[test]
fn questions_are_answered_by_a_real_mariadb() {
    const NAME: &str = "questions_are_answered_by_a_real_mariadb";
    let (Some(server), Some(install), Some(_)) =
        (program("mariadbd"), program("mariadb-install-db"), program("my_print_defaults"))
    else {
        return skip(NAME, "no mariadbd, or not all that it needs; install mariadb-server-core and mariadb-client");
    };
    let root = tempfile::tempdir().expect("a directory");
    let (data, socket) = (root.path().join("data"), root.path().join("sock"));
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).ok().flatten().expect("a user").name;
    let made = Command::new(install)
        .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
        .args([format!("--datadir={}", data.display()), format!("--user={user}")])
        .output()
        .expect("it runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let port = free_port();
    let at = |name: &str| root.path().join(name);
    let (certificate, key) = (at("server.pem"), at("server.key"));
    let own = Authority::new("own");
    own.sign(&certificate, &key);
    let (authority, stranger) = (own.file(at("ca.pem")), Authority::new("other").file(at("other.pem")));
    let run = || {
        let mut command = Command::new(&server);
        command
            .args(["--no-defaults", "--bind-address=127.0.0.1", "--innodb-buffer-pool-size=8M"])
            .args([format!("--datadir={}", data.display()), format!("--socket={}", socket.display())])
            .args([format!("--port={port}"), format!("--user={user}")])
            .args([format!("--pid-file={}", root.path().join("pid").display())])
            .args([format!("--ssl-cert={}", certificate.display()), format!("--ssl-key={}", key.display())])
            .stderr(Stdio::null());
        Server::start(&mut command)
    };
    let running = run();
    let local = format!("mysql://root@localhost/mysql?socket={}", socket.display());
    until("the server answers", || {
        let mut sql = mysql::Mysql::open(&local, "", Path::new("")).ok()?;
        sql.execute("CREATE DATABASE IF NOT EXISTS history CHARACTER SET utf8mb4", &[]).ok()?;
        sql.execute("CREATE USER IF NOT EXISTS multus@'127.0.0.1' IDENTIFIED BY 'pw' REQUIRE SSL", &[]).ok()?;
        sql.execute("CREATE USER IF NOT EXISTS open@'127.0.0.1' IDENTIFIED BY 'pw'", &[]).ok()?;
        sql.execute("GRANT ALL ON history.* TO open@'127.0.0.1'", &[]).ok()?;
        sql.execute("GRANT ALL ON history.* TO multus@'127.0.0.1'", &[]).ok()
    });
    // Encrypted where an authority is named, and only with a server that it vouches for; else in the clear.
    let cipher = |user: &str, ca: &Path| {
        let mut sql = mysql::Mysql::open(&format!("mysql://{user}@127.0.0.1:{port}/history"), "pw", ca)?;
        let rows = sql.select("SHOW STATUS LIKE 'Ssl_cipher'", &[])?;
        Ok::<_, Failure>(rows[0][1].text().unwrap_or_default().to_owned())
    };
    let encrypted = cipher("multus", &authority).expect("it vouches for the server");
    assert!(encrypted.contains("AES") || encrypted.contains("CHACHA"), "{encrypted:?}");
    assert_eq!(cipher("open", Path::new("")).expect("nobody asks for it"), "");
    assert!(cipher("multus", Path::new("")).is_err(), "this user needs TLS");
    for wrong in [&stranger, &at("nothing.pem")] {
        assert!(cipher("multus", wrong).is_err(), "{wrong:?}");
    }
    let dirs = dirs(root.path());
    let file = root.path().join("password");
    std::fs::write(&file, "pw\n").expect("written");
    let database = format!("mariadb://multus@127.0.0.1:{port}/history");
    let config = Config { database, password_file: file, ca: authority.clone(), ..Config::default() };
    let (daemon, history) = ask_everything(&config, &dirs);

    // Its end is noticed when something is to be stored; what happens meanwhile is fetched when it is back.
    drop(running);
    daemon.happens(event(100, 401, "ready"));
    until("its end is noticed", || (history.stats().failures > 0).then_some(()));
    daemon.happens(event(100, 402, "ready"));
    let _running = run();
    until("it catches up", || {
        let latest = history.events(&Query { limit: 1, ..Query::default() }).ok()?;
        (latest.rows.first()?.event.seq == 402).then_some(())
    });
    assert_eq!(history.stats().lost, 0);

    let sql = mysql::Mysql::open(&config.database.replace("mariadb", "mysql"), "pw", &authority).expect("it opens");
    let mut recorder = Recorder::new(Box::new(sql), Some(Duration::from_secs(DAY)), 200 << 10).expect("it has tables");
    assert!(recorder.keep_size().expect("trimmed") > 200);
    assert!(recorder.used_bytes().expect("a size") <= 200 << 10);
    assert!(recorder.keep_age((100 + 2 * DAY) * 1_000_000_000, 1).expect("trimmed") > 0);
    assert_eq!(recorder.last().expect("readable").map(|(_, seq)| seq), Some(402), "where to go on is known");
    history.stop();
}

fn ask_everything(config: &Config, dirs: &Dirs) -> (FakeDaemon, History) {
    let mut happened = events(100, 0..398);
    happened.push(Event {
        fault: Some("hang".into()),
        detail: "no beat, for \"100%_!\"".into(),
        ..event(100, 398, "fault")
    });
    happened.push(Event { fault: Some("crash".into()), detail: "ended\nby itself".into(), ..event(100, 399, "fault") });
    happened.push(Event { ready_ns: Some(5), ..event(100, 400, "recovered") });
    let daemon = FakeDaemon::start(&dirs.control_socket(), 7, happened);
    let history = start(config, dirs);
    until("all are stored", || (history.counts(&Query::default()).ok()?.total == 401).then_some(()));
    let seqs = |query: Query| -> Vec<u64> {
        let page = history.events(&query).expect("an answer");
        page.rows.iter().map(|entry| entry.event.seq).collect()
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    assert_eq!(seqs(Query { limit: 2, ..Query::default() }), [400, 399]);
    assert_eq!(seqs(Query { limit: 2, oldest_first: true, ..Query::default() }), [0, 1]);
    assert_eq!(seqs(Query { kinds: words(&["fault", "recovered"]), ..Query::default() }), [400, 399, 398]);
    assert_eq!(seqs(Query { faults: words(&["hang"]), ..Query::default() }), [398]);
    assert_eq!(seqs(Query { children: words(&[""]), ..Query::default() }), [0]);
    let of_both = Query { children: words(&["", "io"]), limit: 2, oldest_first: true, ..Query::default() };
    assert_eq!(seqs(of_both), [0, 1]);
    assert_eq!(seqs(Query { children: words(&["io"]), kinds: words(&["fault"]), ..Query::default() }), [399]);
    assert_eq!(seqs(Query { text: "100%_!".into(), ..Query::default() }), [398]);
    assert_eq!(seqs(Query { text: "BY ITS".into(), ..Query::default() }), [399]);
    assert!(seqs(Query { text: "' OR 1=1 --".into(), ..Query::default() }).is_empty());
    let ns = |seq: u64| Some((100_000 + seq) * 1_000_000);
    let between = Query { from_unix_ns: ns(7), to_unix_ns: ns(9), ..Query::default() };
    assert_eq!(seqs(between.clone()), [8, 7]);
    let counts = history.counts(&between).expect("an answer");
    assert_eq!((counts.total, counts.children), (2, vec![("io".into(), 1), ("pump".into(), 1)]));

    for oldest_first in [false, true] {
        let (mut query, mut found) = (Query { limit: 150, oldest_first, ..Query::default() }, Vec::new());
        loop {
            let page = history.events(&query).expect("an answer");
            found.extend(page.rows.iter().map(|entry| entry.event.seq));
            query.after = page.next;
            if page.next.is_none() {
                break;
            }
        }
        found.sort_unstable();
        assert!(found.iter().copied().eq(0..401), "each once: {found:?}");
    }
    let export = |format| {
        let (mut text, mut pieces) = (String::new(), 0);
        let query = Query { oldest_first: true, ..Query::default() };
        let taken = history.export(&query, format, &mut |piece| {
            pieces += 1;
            text += &piece;
            true
        });
        taken.expect("an answer");
        assert_eq!(pieces, 1);
        text
    };
    let lines = export(Format::JsonLines);
    let last: Event = serde_json::from_str(lines.lines().last().expect("a line")).expect("an event");
    assert_eq!((lines.lines().count(), last.seq, last.ready_ns), (401, 400, Some(5)));
    let table = export(Format::Csv);
    assert!(
        table.contains(",fault,hang,\"no beat, for \"\"100%_!\"\"\",") && table.contains("\"ended\nby itself\""),
        "{table}"
    );
    assert_eq!(table.matches("\r\n").count(), 402);

    let change = |n: u64| IoChange {
        time_unix_ns: n,
        line: if n.is_multiple_of(2) { "DI1" } else { "DO1" }.into(),
        kind: "digital-input".into(),
        value: n.to_string(),
        source: if n == 14 { "bad" } else { "read" }.into(),
        changes: n / 2,
        ..IoChange::default()
    };
    (0..1300).for_each(|n| history.io_changed(change(n)));
    until("all changes are stored", || (history.stats().queued == 0).then_some(()));
    let query = IoQuery { lines: words(&["DI1"]), from_unix_ns: Some(10), to_unix_ns: Some(16), ..IoQuery::default() };
    let found = history.io_changes(&query).expect("an answer");
    assert_eq!(found.rows.iter().map(|(_, change)| change.time_unix_ns).collect::<Vec<_>>(), [14, 12, 10]);
    let expected = IoChange { previous: Some("12".into()), duration_ns: Some(2), ..change(14) };
    assert_eq!(IoChange { time: String::new(), ..found.rows[0].1.clone() }, expected);
    let bad = IoQuery { sources: words(&["bad", "forced"]), ..IoQuery::default() };
    assert_eq!(history.io_changes(&bad).expect("an answer").rows.len(), 1);
    assert_eq!((history.stats().io_stored, history.stats().io_missed), (1300, 0));
    (daemon, history)
}
