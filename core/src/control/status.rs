//! The Status JSON, made from the shared pages and the configuration. Reads what anybody may read; asks nobody.

use std::collections::BTreeMap;

use multus_contract::api::status::{ChildStatus, DaemonStatus, ForcedOutput, LastFault, LoopStatus, Spread, Status};
use multus_contract::api::time::{Clock, format_rfc3339};
use multus_contract::dirs::Dirs;
use multus_ipc::heartbeat::Reader as HeartbeatReader;
use multus_ipc::map::Table;
use multus_ipc::status::{DaemonRecord, Reader, SlotRecord, flag};
use multus_ipc::text::Name;
use multus_ipc::time::unix_ns;
use multus_ipc::words::StateCode;
use multus_ipc::{MonoNs, force};

use super::oversight::Oversight;
use super::roster::Roster;
use crate::realtime::Granted;
use crate::{advise, describe};

/// What a status is made from.
#[derive(Debug)]
pub(super) struct Sources<'a> {
    pub(super) status: Reader<'a>,
    pub(super) force: force::Reader<'a>,
    pub(super) table: &'a Table,
    pub(super) dirs: &'a Dirs,
    pub(super) granted: &'a Granted,
    pub(super) notes: &'a [String],
    pub(super) oversight: &'a Oversight,
}

impl Sources<'_> {
    /// The status of the daemon and of the instances that `names` lists (all without).
    pub(super) fn status(&self, roster: &Roster, names: Option<&[String]>) -> Status {
        let now = Clock { mono: MonoNs::now().0, unix: unix_ns() };
        let daemon = self.status.daemon().unwrap_or_default();
        let wanted = |name: &str| names.is_none_or(|names| names.iter().any(|n| n == name));
        let mut children: Vec<(usize, ChildStatus)> = roster
            .instances
            .iter()
            .filter(|(name, _)| wanted(name))
            .filter_map(|(name, instance)| {
                let record = self.status.slot(instance.slot).ok().flatten()?;
                let child = roster.child_of(instance);
                let mut status = self.child(instance.slot, &record, now);
                status.name.clone_from(name);
                status.description = child.map(|c| c.description.clone()).unwrap_or_default();
                status.text = Some(instance.text.clone()).filter(|text| !text.is_empty());
                status.method = child.map_or("", |c| c.heartbeat.method.as_str()).to_owned();
                Some((instance.slot, status))
            })
            .collect();
        // After the slots: outputs are changed before a slot says so.
        let mut outputs = self.outputs();
        let owners: Vec<force::Owner> = self.force.owners().collect();
        let lines = roster.config.hardware.iter().flat_map(|hardware| &hardware.lines);
        for (slot, status) in &mut children {
            status.forced_outputs = outputs.remove(slot).unwrap_or_default();
            let forced = owners.iter().any(|o| o.forced_since.is_some() && o.name == Name::new(&status.name));
            // Those that it owns and does not name itself.
            for line in lines.clone().filter(|line| line.owner() == Some(&status.name)) {
                if status.forced_outputs.iter().all(|output| output.name != line.name) {
                    let name = line.name.clone();
                    status.forced_outputs.push(ForcedOutput { name, value: line.safe, forced });
                }
            }
        }
        let children = children.into_iter().map(|(_, status)| status).collect();
        Status { daemon: self.daemon(&daemon, roster, now), children }
    }

    fn daemon(&self, record: &DaemonRecord, roster: &Roster, now: Clock) -> DaemonStatus {
        let mut notes = self.granted.refused.clone();
        notes.extend_from_slice(self.notes);
        if record.stuck_helpers != 0 {
            notes.push("one of multusd's own threads was stuck; see the events".into());
        }
        if record.queue_overflows != 0 {
            notes.push(format!("{} orders found a full queue and were repeated", record.queue_overflows));
        }
        DaemonStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: self.status.pid(),
            site: roster.config.daemon.site.clone(),
            realtime: record.priority != 0,
            priority: Some(record.priority).filter(|p| *p != 0),
            locked: record.locked,
            uptime_s: MonoNs(now.mono).since(MonoNs(record.started_mono)).as_secs(),
            temperature_c: i64::try_from(record.temperature)
                .ok()
                .filter(|t| *t != 0 && roster.config.daemon.temperature.enabled)
                .map(|t| (t - (1 << 31)) as f64 / 1000.0),
            too_hot: record.too_hot,
            children: roster.instances.len(),
            watch_loop: LoopStatus {
                wakeups: record.wakeups,
                page_faults: record.page_faults,
                lateness_us: spread(record.lateness_ns),
            },
            last_reset: Some(self.oversight.last_reset().clone()),
            watchdogs: self.oversight.watchdogs().to_vec(),
            notes,
            config_dir: self.dirs.config.display().to_string(),
            log_dir: self.dirs.logs.display().to_string(),
            state_dir: self.dirs.state.display().to_string(),
        }
    }

    fn child(&self, slot: usize, record: &SlotRecord, now: Clock) -> ChildStatus {
        let running = record.state == StateCode::Running;
        let last_beat = if record.pid != 0 && !matches!(record.deadline_ns, 0 | u64::MAX) {
            // The page itself knows better than the last look of the watch loop, which may be a whole deadline ago. A time
            // in the future is the child's nonsense, and about to be found.
            HeartbeatReader::new(self.table.page(slot)).look(0).time.0
        } else {
            record.last_beat_mono
        };
        let deadline = Some(record.deadline_ns).filter(|ns| !matches!(*ns, 0 | u64::MAX));
        let advice = (running && deadline.is_some()).then(|| {
            let page = HeartbeatReader::new(self.table.page(slot));
            advise::advise(|bucket| page.bucket(0, bucket), page.max_gap_ns(0), deadline)
        });
        let age = |at: u64| MonoNs(now.mono).since(MonoNs(at)).as_micros() as u64;
        let has = |bit: u64| record.flags & bit != 0;
        ChildStatus {
            instance: record.instance,
            state: record.state.as_str().into(),
            pid: Some(record.pid).filter(|pid| *pid != 0),
            since: now.wall(record.since_mono),
            restarts: record.restarts,
            deadline_us: deadline.map(|ns| ns / 1000),
            last_beat_age_us: (last_beat != 0 && record.pid != 0).then(|| age(last_beat)),
            beat_interval_us: (record.interval_ns[2] != 0).then(|| spread(record.interval_ns)),
            advised_deadline_us: advice.as_ref().and_then(|a| a.advised_us).map(|us| us as u64),
            alarms_per_year: advice.as_ref().and_then(|a| a.alarms_per_year),
            safe_state: has(flag::SAFE_STATE),
            degraded: has(flag::DEGRADED),
            enabled: has(flag::ENABLED),
            snoozed_until: has(flag::SNOOZED).then(|| now.wall(record.snooze_until_mono)),
            blocked_by: self.blocked_by(record.blocked_by),
            restart_in_us: (record.restart_at_mono != 0)
                .then(|| MonoNs(record.restart_at_mono).since(MonoNs(now.mono)).as_micros() as u64),
            last_fault: record.fault.map(|kind| {
                let mut detail = describe::fault(kind, record.fault_args, 0, &record.fault_about.to_string());
                let evidence = record.evidence.to_string();
                if !evidence.is_empty() {
                    detail = format!("{detail}: {evidence}");
                }
                LastFault {
                    kind: kind.as_str().into(),
                    time: format_rfc3339(record.fault_unix),
                    detail,
                    count: record.faults,
                }
            }),
            ..ChildStatus::default()
        }
    }

    fn blocked_by(&self, word: u64) -> Option<String> {
        match word {
            0 => None,
            1 => Some("temperature".into()),
            slot => {
                let slot = usize::try_from(slot - 2).ok()?;
                self.status.slot(slot).ok().flatten().map(|r| r.name.to_string())
            }
        }
    }

    fn outputs(&self) -> BTreeMap<usize, Vec<ForcedOutput>> {
        let mut outputs: BTreeMap<usize, Vec<ForcedOutput>> = BTreeMap::new();
        for entry in self.force.entries() {
            let output =
                ForcedOutput { name: entry.name.to_string(), value: entry.value, forced: entry.forced_since.is_some() };
            outputs.entry(entry.slot as usize).or_default().push(output);
        }
        outputs
    }
}

fn spread(ns: [u64; 3]) -> Spread {
    let us = |ns: u64| ns as f64 / 1000.0;
    Spread { p50: Some(us(ns[0])).filter(|v| *v > 0.0), p99: Some(us(ns[1])).filter(|v| *v > 0.0), max: us(ns[2]) }
}
