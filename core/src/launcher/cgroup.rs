//! A cgroup for each child instance, so that nothing it starts can escape: version 2 where it is writable, else the
//! version 1 hierarchy `pids`, else none (then process group and adopted orphans have to do).
//!
//! ```text
//! <own cgroup>/multusd-<hash of the runtime directory>/<instance>        main program and all it starts
//!                                                     /<instance>:job    hooks, checks
//!             /multusd                                                   the daemon itself, if it was alone in its cgroup
//! ```
//! Version 2 gives controllers, and so limits, only to the children of a cgroup that has no processes of its own. A service
//! manager puts the daemon into the cgroup that it delegates, so the daemon steps down into one below it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use multus_ipc::MonoNs;

/// How long processes of an earlier daemon may take to go after SIGKILL; then this one starts all the same.
const CLEAR_PATIENCE: Duration = Duration::from_secs(2);

/// Where cgroups can be made, found out once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchy {
    /// Version 2 directory.
    v2: Option<PathBuf>,
    /// Version 1 `pids` and `memory` directories.
    v1_pids: Option<PathBuf>,
    v1_memory: Option<PathBuf>,
    /// Version 2 controllers that work below `v2`.
    v2_memory: bool,
    v2_pids: bool,
}

impl Hierarchy {
    /// Looks for writable hierarchies, makes the daemon's directory in each and kills what an earlier daemon on the
    /// same runtime directory left behind there. Returns the number of processes that were killed.
    pub fn find(runtime_dir: &Path) -> (Self, usize) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let leaf = format!("multusd-{:08x}", hash(runtime_dir));
        let make = |place: Option<PathBuf>| {
            let dir = place?.join(&leaf);
            match fs::create_dir(&dir) {
                Ok(()) => Some(dir),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && writable(&dir) => Some(dir),
                Err(_) => None,
            }
        };
        let mut found = Self {
            v2: make(place(&mounts, &own, None)),
            v1_pids: make(place(&mounts, &own, Some("pids"))),
            v1_memory: make(place(&mounts, &own, Some("memory"))),
            ..Self::default()
        };
        let mut killed = 0;
        for dir in [&found.v2, &found.v1_pids].into_iter().flatten() {
            killed += clear(dir);
        }
        if let (Some(own), Some(dir)) = (place(&mounts, &own, None), &found.v2) {
            if !has_controllers(dir) {
                step_down(&own);
            }
            let control = dir.join("cgroup.subtree_control");
            found.v2_memory = fs::write(&control, "+memory").is_ok();
            found.v2_pids = fs::write(&control, "+pids").is_ok();
        }
        (found, killed)
    }

    /// Whether a child's processes are contained.
    pub fn contains(&self) -> bool {
        self.v2.is_some() || self.v1_pids.is_some()
    }

    /// Whether memory and process limits are held by cgroups, for a whole child; else they are held by resource limits
    /// for each process.
    pub fn limits(&self) -> bool {
        (self.v2_memory || self.v1_memory.is_some()) && (self.v2_pids || self.v1_pids.is_some())
    }

    /// Makes the cgroup of one instance with its limits. Also returns the files that its main program has to join by
    /// itself (version 1).
    pub fn group(&self, name: &str, limits: (Option<u64>, Option<u64>)) -> (Group, Vec<PathBuf>) {
        let (memory, processes) = limits;
        let mut join = Vec::new();
        let v2 = self.v2.as_ref().and_then(|base| {
            let files = [("memory.max", memory, self.v2_memory), ("pids.max", processes, self.v2_pids)];
            let limits = files.iter().filter(|(.., works)| *works).map(|(file, limit, _)| (*file, *limit)).collect();
            V2::make(base.join(name), limits).ok()
        });
        let mut v1 = None;
        if (v2.is_none() || (processes.is_some() && !self.v2_pids))
            && let Some(dir) = self.v1_pids.as_ref().map(|base| base.join(name))
            && make_dir(&dir)
        {
            let _ = fs::write(dir.join("pids.max"), processes.map_or("max".to_owned(), |n| n.to_string()));
            join.push(dir.join("cgroup.procs"));
            v1 = v2.is_none().then_some(dir);
        }
        if memory.is_some()
            && !(v2.is_some() && self.v2_memory)
            && let Some(dir) = self.v1_memory.as_ref().map(|base| base.join(name))
            && make_dir(&dir)
        {
            let _ = fs::write(dir.join("memory.limit_in_bytes"), memory.unwrap_or(0).to_string());
            join.push(dir.join("cgroup.procs"));
        }
        (Group { v2, v1 }, join)
    }

    /// Removes what is empty. Called at the end of the daemon.
    pub fn remove(&self) {
        for base in [&self.v2, &self.v1_pids, &self.v1_memory].into_iter().flatten() {
            for entry in fs::read_dir(base).into_iter().flatten().flatten() {
                remove_tree(&entry.path());
            }
            let _ = fs::remove_dir(base);
        }
    }
}

const CONTROLLERS: [&str; 2] = ["memory", "pids"];

fn has_controllers(dir: &Path) -> bool {
    let there = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    CONTROLLERS.iter().all(|wanted| there.split_whitespace().any(|word| word == *wanted))
}

/// Moves the daemon out of its cgroup into one below, and gives controllers to all below. Only where nobody else is in there,
/// and the controllers are there to be given; else everything stays as it is.
fn step_down(own: &Path) {
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    if members(&own.join("cgroup.procs")) != [me] || !has_controllers(own) {
        return;
    }
    let leaf = own.join("multusd");
    if !make_dir(&leaf) || fs::write(leaf.join("cgroup.procs"), "0").is_err() {
        return;
    }
    let all = CONTROLLERS.map(|word| format!("+{word}")).join(" ");
    if fs::write(own.join("cgroup.subtree_control"), all).is_err() {
        let _ = fs::write(own.join("cgroup.procs"), "0");
        let _ = fs::remove_dir(leaf);
    }
}

/// The cgroup of one instance.
#[derive(Debug, Default)]
pub struct Group {
    v2: Option<V2>,
    v1: Option<PathBuf>,
}

#[derive(Debug)]
struct V2 {
    path: PathBuf,
    limits: Vec<(&'static str, Option<u64>)>,
    /// Only ever locked by the launcher thread.
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    dir: File,
    events: File,
    kill: Option<File>,
    killed: bool,
}

impl V2 {
    fn make(path: PathBuf, limits: Vec<(&'static str, Option<u64>)>) -> io::Result<Self> {
        let open = Mutex::new(Self::open(&path, &limits)?);
        Ok(Self { path, limits, open })
    }

    fn open(path: &Path, limits: &[(&'static str, Option<u64>)]) -> io::Result<Open> {
        make_dir(path);
        for (file, limit) in limits {
            let _ = fs::write(path.join(file), limit.map_or("max".to_owned(), |n| n.to_string()));
        }
        // Out of memory, the whole child goes, not one of its processes behind its back. Since Linux 4.19.
        let _ = fs::write(path.join("memory.oom.group"), "1");
        Ok(Open {
            dir: File::open(path)?,
            events: File::open(path.join("cgroup.events"))?,
            // Since Linux 5.14; before, processes are killed one by one.
            kill: File::options().write(true).open(path.join("cgroup.kill")).ok(),
            killed: false,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Group {
    /// The directory to make a process in (version 2).
    pub fn dir(&self) -> Option<OwnedFd> {
        let v2 = self.v2.as_ref()?;
        let mut open = v2.lock();
        // After a change of limits two of these stand for the same cgroup; the other one may have renewed it.
        let is_gone = open.events.read_at(&mut [0; 64], 0).is_err();
        if is_gone && let Ok(new) = V2::open(&v2.path, &v2.limits) {
            *open = new;
        }
        open.dir.try_clone().ok().map(OwnedFd::from)
    }

    /// Whether it contains anything at all, or is none.
    pub fn exists(&self) -> bool {
        self.v2.is_some() || self.v1.is_some()
    }

    /// Whether a live process is in it.
    pub fn is_populated(&self) -> bool {
        if let Some(v2) = &self.v2 {
            let mut buffer = [0u8; 64];
            let length = v2.lock().events.read_at(&mut buffer, 0).unwrap_or(0);
            return buffer[..length].windows(11).any(|w| w == b"populated 1");
        }
        self.v1.as_ref().is_some_and(|dir| !members(&dir.join("cgroup.procs")).is_empty())
    }

    /// Sends SIGKILL to everything in it.
    pub fn kill(&self) {
        if let Some(v2) = &self.v2 {
            let mut open = v2.lock();
            if open.kill.as_mut().is_some_and(|file| file.write_all(b"1").is_ok()) {
                open.killed = true;
                return;
            }
            kill_members(&v2.path.join("cgroup.procs"));
        }
        if let Some(dir) = &self.v1 {
            kill_members(&dir.join("cgroup.procs"));
        }
    }

    /// Sends SIGKILL to every process in it, one by one: who forks meanwhile is left, but others can be made in it after.
    pub fn kill_members(&self) {
        for pid in self.members() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }

    /// Makes an empty cgroup fit for the next process. Linux (seen on 6.18) also kills what is cloned into a cgroup
    /// that was killed as a whole before, so such a one is replaced by a new one of the same name.
    ///
    /// `anyway`: also when it was not killed, because a process could not be made in it.
    pub fn renew(&self, anyway: bool) {
        let Some(v2) = &self.v2 else { return };
        let mut open = v2.lock();
        if !open.killed && !anyway {
            return;
        }
        if (remove_tree(&v2.path) || anyway)
            && let Ok(new) = V2::open(&v2.path, &v2.limits)
        {
            *open = new;
        }
    }

    /// The processes in it.
    pub fn members(&self) -> Vec<i32> {
        match (&self.v2, &self.v1) {
            (Some(v2), _) => members(&v2.path.join("cgroup.procs")),
            (None, Some(dir)) => members(&dir.join("cgroup.procs")),
            (None, None) => Vec::new(),
        }
    }
}

/// The daemon's own cgroup in a hierarchy: the mount point joined with the path that /proc/self/cgroup names.
fn place(mounts: &str, own: &str, controller: Option<&str>) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let fits = match controller {
            None => controllers.is_empty(),
            Some(name) => controllers.split(',').any(|c| c == name),
        };
        fits.then(|| path.trim_start_matches('/').to_owned())
    })?;
    let mount = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let (kind, _, options) = (right.next()?, right.next()?, right.next()?);
        let fits = match controller {
            None => kind == "cgroup2",
            Some(name) => kind == "cgroup" && options.split(',').any(|o| o == name),
        };
        let (root, point) = (left.split(' ').nth(3)?, left.split(' ').nth(4)?);
        (fits && root == "/").then(|| PathBuf::from(point))
    })?;
    Some(mount.join(path))
}

fn make_dir(dir: &Path) -> bool {
    match fs::create_dir(dir) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::AlreadyExists,
    }
}

fn writable(dir: &Path) -> bool {
    nix::unistd::access(&dir.join("cgroup.procs"), nix::unistd::AccessFlags::W_OK).is_ok()
}

fn members(procs: &Path) -> Vec<i32> {
    let mut text = String::new();
    if File::open(procs).and_then(|mut file| file.read_to_string(&mut text)).is_err() {
        return Vec::new();
    }
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn kill_members(procs: &Path) -> usize {
    // What forks while it is read is found in the next round; who calls repeats until the group is empty.
    let found = members(procs);
    for pid in &found {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::Signal::SIGKILL);
    }
    found.len()
}

/// Kills what an earlier daemon left below `dir` and removes the directories.
fn clear(dir: &Path) -> usize {
    let mut killed = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if !path.is_dir() {
            continue;
        }
        killed += kill_members(&path.join("cgroup.procs"));
        // A cgroup that was killed as a whole must go, see `Group::renew`; it can as soon as its last process has.
        let begun = MonoNs::now();
        while !remove_tree(&path) && MonoNs::now().since(begun) < CLEAR_PATIENCE {
            kill_members(&path.join("cgroup.procs"));
            let _ = fs::write(path.join("cgroup.kill"), "1");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
    killed
}

/// Removes an empty cgroup with those that were made in it; false when a process is left.
fn remove_tree(dir: &Path) -> bool {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    match fs::remove_dir(dir) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// FNV-1a: names the daemon's cgroup after its runtime directory, so that two daemons do not share one.
fn hash(path: &Path) -> u32 {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes().iter().fold(0x811c_9dc5, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_place_in_each_kind_of_hierarchy() {
        let mounts = "36 25 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
                      37 25 0:31 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        let own = "8:pids:/a/b\n0::/system.slice/multusd.service\n";
        let v2 = place(mounts, own, None).unwrap();
        assert_eq!(v2, Path::new("/sys/fs/cgroup/unified/system.slice/multusd.service"));
        assert_eq!(place(mounts, own, Some("pids")).unwrap(), Path::new("/sys/fs/cgroup/pids/a/b"));
        assert_eq!(place(mounts, own, Some("memory")), None);
    }
}
