//! What children write is kept, within bounds, and can stop nobody.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use multus_contract::api::time::parse_rfc3339;
use nix::sys::signal::Signal;

use crate::world::{World, needs_root, run, send, shell, skip};

#[test]
fn both_streams_are_kept_with_time_stamps_up_to_the_last_unfinished_line_of_a_crash() {
    let world = World::new();
    let once = world.path("once");
    let script = format!(
        "[ -e {0} ] && exec sleep 1000; touch {0}; echo one; echo two >&2; printf 'bell\\007\\n'; \
         printf 'last words of a dy'; kill -SEGV $$",
        once.display()
    );
    world.child("pump", &shell(&script));
    world.start();
    world.event("pump", "recovered");
    world.until_logged("pump", "last words of a dy");
    let log = world.log("pump");
    for (mark, text) in [("out", "one"), ("err", "two"), ("out", "bell\\x07"), ("out", "last words of a dy")] {
        let line = log.lines().find(|line| line.ends_with(&format!(" {mark} {text}")));
        let line = line.unwrap_or_else(|| panic!("no {mark} {text:?} in\n{log}"));
        let time = line.split_once(' ').unwrap().0;
        assert!(parse_rfc3339(time).is_some(), "{line}");
    }
    let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("{text:?} in\n{log}"));
    assert!(at("last words") > at("one"));
    assert!(log.contains("killed by SIGSEGV"), "its end stands in its log:\n{log}");
}

#[test]
fn a_child_that_writes_without_end_stays_within_its_bounds() {
    let world = World::new();
    // A second's lines fill less than one file, so that the count of what was lost stays in the files for a while.
    let table = "[log]\nmax_size = \"8KiB\"\nfiles = 3\nlines_per_second = 100";
    world.child("noise", &shell("while :; do echo 0123456789012345678901234567890123456789; done").table(table));
    world.child("quiet", &shell("echo hello; exec sleep 1000"));
    world.start();
    let files = || -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = fs::read_dir(&world.dirs().logs).unwrap().flatten().map(|e| e.path()).collect();
        found.retain(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("noise.log")));
        found
    };
    let all = || -> String { files().iter().filter_map(|f| fs::read_to_string(f).ok()).collect() };
    world.until("it was rotated", |_| files().len() == 3);
    world.until("what is lost is counted", |_| all().contains("lines lost: more than 100 lines per second"));
    world.until_logged("quiet", "hello");
    for file in files() {
        // Gone again if it was rotated meanwhile.
        let size = file.metadata().map_or(0, |m| m.len());
        assert!(size <= 9 * 1024, "{} has {size} bytes", file.display());
    }
    assert!(files().len() <= 3);
    assert_eq!(world.until_state("noise", "running").restarts, 0);
}

#[test]
fn what_stands_in_place_of_a_log_file_harms_nobody() {
    let world = World::new();
    let logs = world.dirs().logs.clone();
    fs::create_dir(&logs).unwrap();
    nix::unistd::mkfifo(&logs.join("fifo.log"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(logs.join("folder.log")).unwrap();
    std::os::unix::fs::symlink("/dev/full", logs.join("full.log")).unwrap();
    let victim = world.path("victim");
    fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, logs.join("link.log")).unwrap();
    fs::write(logs.join("locked.log"), "").unwrap();
    fs::set_permissions(logs.join("locked.log"), fs::Permissions::from_mode(0o000)).unwrap();
    let names = ["fifo", "folder", "full", "link", "locked", "good"];
    for name in names {
        world.child(name, &shell("while :; do echo I write; sleep 0.01; done"));
    }
    world.start();
    for name in names {
        world.until_state(name, "running");
    }
    world.until_logged("good", "I write");
    let pid = world.pid_of("fifo");
    send(pid, Signal::SIGKILL);
    world.until_replaced("fifo", pid);
    assert_eq!(fs::read_to_string(victim).unwrap(), "precious", "no link is followed");
    for name in names {
        assert_eq!(world.of(name).state, "running");
    }
}

/// A file system of 64 KiB.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(path: PathBuf) -> Result<Self, String> {
        fs::create_dir_all(&path).expect("own directory");
        let ended = run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "multus-e2e"]).arg(&path));
        if ended.code == Some(0) { Ok(Self(path)) } else { Err(ended.err) }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_stops_no_child_and_the_log_goes_on_when_there_is_room() {
    let name = "a_full_disk_stops_no_child_and_the_log_goes_on_when_there_is_room";
    if !needs_root(name) {
        return;
    }
    let world = World::new();
    let disk = match SmallDisk::at(world.dirs().logs.clone()) {
        Ok(disk) => disk,
        Err(why) => return skip(name, &format!("no small file system: {}", why.trim())),
    };
    let ballast = disk.0.join("ballast");
    let _ = fs::write(&ballast, vec![0u8; 1 << 20]);
    let script = "n=0; while :; do n=$((n + 1)); echo line $n; sleep 0.01; done";
    world.child("pump", &shell(script));
    world.start();
    world.until_state("pump", "running");
    let pid = world.pid_of("pump");
    send(pid, Signal::SIGKILL);
    world.until_replaced("pump", pid);
    world.event("pump", "recovered");
    fs::remove_file(&ballast).unwrap();
    world.until_logged("pump", " out line ");
    world.until("the loss is counted", |world| world.log("pump").contains(" lost"));
    assert_eq!(world.of("pump").restarts, 1);
    assert!(world.stop().success());
}
