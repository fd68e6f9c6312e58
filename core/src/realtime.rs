//! Real-time rights for the calling thread, and locked memory for the process: what is granted, and what not, in words.

use multus_contract::config::RealtimeConfig;

use crate::sys;

/// What the watch thread got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// SCHED_FIFO priority; `None` without.
    pub priority: Option<u8>,
    /// Whether all memory is locked.
    pub locked: bool,
    /// What was wanted and refused, a sentence each, with what to do.
    pub refused: Vec<String>,
}

/// Locks all memory of the process, present and future. Call before the threads are made.
pub fn lock_memory(config: &RealtimeConfig, granted: &mut Granted) {
    use nix::sys::mman::{MlockAllFlags, mlockall};
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if !config.lock_memory {
        return;
    }
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK) {
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard);
    }
    // An ordinary user has a limit; locking future memory under it would make later allocations fail.
    let root = nix::unistd::geteuid().is_root();
    let unlimited = getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft == nix::libc::RLIM_INFINITY);
    if !root && !unlimited {
        granted.refused.push(
            "memory is not locked: the limit for locked memory is too low; run as root, or set LimitMEMLOCK=infinity"
                .into(),
        );
        return;
    }
    match mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE) {
        Ok(()) => granted.locked = true,
        Err(errno) => granted.refused.push(format!("memory is not locked: {}", errno.desc())),
    }
}

/// Gives the calling thread SCHED_FIFO at `priority` and the configured processors.
pub fn arm_thread(config: &RealtimeConfig, priority: u8) -> Result<u8, String> {
    if !config.cpus.is_empty() {
        let mut set = nix::sched::CpuSet::new();
        for cpu in &config.cpus {
            set.set(usize::from(*cpu)).map_err(|_| format!("there is no processor {cpu}"))?;
        }
        nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)
            .map_err(|errno| format!("processors {:?} are not available: {}", config.cpus, errno.desc()))?;
    }
    sys::set_scheduler(nix::libc::SCHED_FIFO, priority, true).map(|()| priority).map_err(|error| {
        format!(
            "no real-time priority: {error}; run as root, or set LimitRTPRIO={priority} (or CAP_SYS_NICE); hangs are \
             found, but later when the processor is busy"
        )
    })
}
