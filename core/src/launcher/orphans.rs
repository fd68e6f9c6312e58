//! Without a cgroup: processes that a child left behind in sessions of their own. When their parents end, they become
//! children of the daemon (it is a "subreaper"), and are known by the `MULTUS_NAME` in their environment.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;

use crate::sys;

/// One round: kills adopted processes of the instance `name`, notes them in `killed`, and reaps those of them that ended;
/// `known` are no orphans. True when that was all: who is killed leaves its own children to us, which the next round
/// finds.
pub(super) fn kill(name: &str, known: &[i32], killed: &mut BTreeSet<i32>) -> bool {
    let mut done = true;
    for pid in adopted() {
        if known.contains(&pid) {
            continue;
        }
        let Ok(pidfd) = sys::pidfd_open(pid) else { continue };
        if belongs_to(pid, name) && sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL).is_ok() {
            killed.insert(pid);
            done = false;
        }
        if killed.contains(&pid) {
            done &= !matches!(sys::reap(pidfd.as_fd()), Ok(Some(_)));
        }
    }
    done
}

/// Reaps orphans that ended.
pub(super) fn reap(known: &[i32]) {
    for pid in adopted() {
        if !known.contains(&pid)
            && let Ok(pidfd) = sys::pidfd_open(pid)
        {
            let _ = sys::reap(pidfd.as_fd());
        }
    }
}

/// The daemon's children, by /proc (needs CONFIG_PROC_CHILDREN, as on Debian and Raspberry Pi OS).
fn adopted() -> Vec<i32> {
    let mut found = Vec::new();
    for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    found
}

fn belongs_to(pid: i32, name: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let wanted = format!("MULTUS_NAME={name}");
    environment.split(|b| *b == 0).any(|variable| variable == wanted.as_bytes())
}
