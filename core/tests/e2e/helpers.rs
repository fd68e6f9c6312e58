//! The daemon's own threads are watched, too.

use std::fs;

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::world::{World, is_alive, program, send, shell, skip};

/// A thread that is held in its tracks by this one, as a debugger would, until this is dropped.
struct Frozen(Pid);

impl Frozen {
    fn thread(pid: i32, name: &str) -> Result<Self, String> {
        let comm = |tid: &i32| fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm")).unwrap_or_default();
        let tids = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives").flatten();
        let mut tids = tids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let tid = tids.find(|tid| comm(tid).trim() == name).unwrap_or_else(|| panic!("no thread {name}"));
        let tid = Pid::from_raw(tid);
        ptrace::seize(tid, Options::empty()).map_err(|errno| format!("ptrace: {errno}"))?;
        ptrace::interrupt(tid).map_err(|errno| format!("ptrace: {errno}"))?;
        Ok(Self(tid))
    }

    /// The end of a thread that is traced has to be seen by who traces it, before its process can end.
    fn attend(&self) {
        let _ = waitpid(self.0, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG));
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}

#[test]
fn a_stuck_thread_of_the_daemon_is_replaced_or_ends_it() {
    let children = || {
        [
            ("pump", program("beat").deadline("300ms").delays("[\"0s\"]")),
            ("fan", shell("exec sleep 1000").table("[safe_state]\noutputs = { DO1 = \"off\" }")),
        ]
    };
    let (replaced, ends) = (World::with(&children()), World::with(&children()));
    for world in [&replaced, &ends] {
        world.until_state("pump", "running");
        world.until_state("fan", "running");
    }
    let frozen = Frozen::thread(replaced.pid(), "multus-evidence");
    let launcher = Frozen::thread(ends.pid(), "multus-launcher");
    let (evidence, launcher) = match (frozen, launcher) {
        (Ok(evidence), Ok(launcher)) => (evidence, launcher),
        (Err(why), _) | (_, Err(why)) => {
            return skip("a_stuck_thread_of_the_daemon_is_replaced_or_ends_it", &why);
        }
    };

    // Without the launcher nobody could be killed or started: whatever guards the daemon has to act.
    let pids = ["pump", "fan"].map(|name| ends.pid_of(name));
    let status = ends.wait("the daemon ends", |world| {
        launcher.attend();
        world.ended()
    });
    assert_eq!(status.code(), Some(70));
    ends.wait_end();
    ends.until("its children are dead", |_| pids.iter().all(|pid| !is_alive(*pid)));
    let events = fs::read_to_string(ends.dirs().events_file()).unwrap();
    assert!(events.contains("the launcher thread of multusd is stuck; it cannot be replaced"), "{events}");
    // The next one starts cleanly.
    ends.start();
    ends.until_state("pump", "running");

    // Without the first evidence thread there is a second one.
    let stuck = replaced.event_since(0, "a stuck thread", |e| e.kind == "helper-stuck");
    assert!(stuck.detail.contains("the evidence thread of multusd is stuck; another one takes its place"), "{stuck:?}");
    assert!(replaced.status().daemon.notes.iter().any(|note| note.contains("stuck")));
    let pid = replaced.pid_of("pump");
    send(pid, Signal::SIGSTOP);
    let found = replaced.event_after(stuck.seq, "pump", "evidence");
    assert!(found.detail.starts_with("stopped by a signal"), "{found:?}");
    replaced.until_replaced("pump", pid);
    // It can still be ended in order.
    replaced.signal(Signal::SIGTERM);
    let status = replaced.wait("the daemon ends", |world| {
        evidence.attend();
        world.ended()
    });
    assert!(status.success());
    replaced.wait_end();
}
