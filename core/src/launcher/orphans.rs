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

/// The children of this process, by /proc (needs CONFIG_PROC_CHILDREN, as on Debian and Raspberry Pi OS).
pub(crate) fn adopted() -> Vec<i32> {
    let mut found = Vec::new();
    for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    found
}

/// Generations of parents that are asked.
const MAX_DEPTH: usize = 32;

/// Whether `pid` is a descendant of `ancestor`; `None` when it has ended.
pub(crate) fn descends(pid: i32, ancestor: i32) -> Option<bool> {
    let mut at = pid;
    for depth in 0..MAX_DEPTH {
        let Ok(stat) = fs::read_to_string(format!("/proc/{at}/stat")) else {
            return if depth == 0 { None } else { Some(false) };
        };
        // The name in parentheses may hold anything; the parent is the second field after it.
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<i32>().ok())?;
        if parent == ancestor {
            return Some(true);
        }
        if parent <= 1 {
            return Some(false);
        }
        at = parent;
    }
    Some(false)
}

/// Whether a process became the daemon's own child after it was started for the instance `name`.
pub(crate) fn is_adopted(pid: i32, name: &str) -> bool {
    adopted().contains(&pid) && belongs_to(pid, name)
}

fn belongs_to(pid: i32, name: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let wanted = format!("MULTUS_NAME={name}");
    environment.split(|b| *b == 0).any(|variable| variable == wanted.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parentage_is_told_from_proc() {
        let own = std::process::id() as i32;
        let parent = nix::unistd::getppid().as_raw();
        assert_eq!(descends(own, parent), Some(true));
        assert_eq!(descends(parent, own), Some(false));
        assert_eq!(descends(i32::MAX, own), None);
    }
}
