//! What the kernel counts about the daemon.

use std::fs;

use crate::world::Failure;

/// One thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Thread {
    pub(crate) id: u32,
    pub(crate) name: String,
    /// Real-time priority; 0 without.
    pub(crate) priority: u32,
    /// Time on a processor, ns.
    pub(crate) busy_ns: u64,
    /// Page faults, minor and major.
    pub(crate) page_faults: u64,
}

/// All threads of a process, the one with the highest real-time priority first.
pub(crate) fn threads(pid: u32) -> Result<Vec<Thread>, Failure> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let dir = entry?.path();
        let id = dir.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse().ok()).ok_or("no thread number")?;
        // A thread may end between the listing and here.
        let (Ok(stat), Ok(schedstat)) =
            (fs::read_to_string(dir.join("stat")), fs::read_to_string(dir.join("schedstat")))
        else {
            continue;
        };
        threads.extend(thread(id, &stat, &schedstat));
    }
    threads.sort_by_key(|t| (std::cmp::Reverse(t.priority), t.id));
    Ok(threads)
}

/// What Linux counts processor time of whole processes in (USER_HZ).
pub(crate) const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time of a process in ticks, that of threads that have ended included.
pub(crate) fn busy_ticks(pid: u32) -> Result<u64, Failure> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').ok_or("no name in stat")?;
    // Fields 14 and 15, utime and stime; `rest` begins with field 3.
    let fields: Vec<u64> = rest.split_ascii_whitespace().skip(11).take(2).filter_map(|f| f.parse().ok()).collect();
    Ok(fields.iter().sum())
}

/// Resident memory in KiB.
pub(crate) fn resident_kib(pid: u32) -> Result<u64, Failure> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Processor time of the whole machine in ticks: all of it, and what a virtual machine did not get.
pub(crate) fn processor_time() -> Option<(u64, u64)> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_ascii_whitespace();
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are counted in user.
    let fields: Vec<u64> = fields.take(8).filter_map(|f| f.parse().ok()).collect();
    Some((fields.iter().sum(), *fields.get(7)?))
}

/// From /proc/PID/task/TID/stat and schedstat, see proc_pid_stat(5).
fn thread(id: u32, stat: &str, schedstat: &str) -> Option<Thread> {
    let (head, rest) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    // `rest` begins with field 3.
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Thread {
        id,
        name: name.to_owned(),
        priority: u32::try_from(field(40)?).ok()?,
        busy_ns: schedstat.split_ascii_whitespace().next()?.parse().ok()?,
        page_faults: field(10)? + field(12)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_read_whatever_its_name() {
        let mut fields: Vec<String> = (3..=52).map(|n| n.to_string()).collect();
        fields[0] = "S".to_owned();
        let stat = format!("42 (a ) b) {}", fields.join(" "));
        let expected = Thread { id: 42, name: "a ) b".to_owned(), priority: 40, busy_ns: 123, page_faults: 22 };
        assert_eq!(thread(42, &stat, "123 4 5\n"), Some(expected));
        assert_eq!(thread(42, "42 (cut", ""), None);
    }

    #[test]
    fn this_process_has_a_thread_and_memory() {
        let pid = std::process::id();
        assert!(!threads(pid).expect("own threads").is_empty());
        assert!(resident_kib(pid).expect("own memory") > 0);
        let (all, stolen) = processor_time().expect("a first line of /proc/stat");
        assert!(all > stolen);
    }
}
