//! What only the events tell: faults by kind, how late they were found, how long recovery took.

use std::collections::BTreeMap;

use multus_contract::api::event::Event;
use multus_ipc::words::EventKind;

use super::text::{Kind, Text};

/// Counts of the events of one daemon; they start anew with another.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// By child and kind.
    faults: BTreeMap<(String, String), u64>,
    overshoot: Histogram<12>,
    /// By child.
    recovery: BTreeMap<String, Histogram<15>>,
    missed: u64,
}

/// Counts up to limits; the last is for what is above all of them.
#[derive(Clone, Debug)]
struct Histogram<const N: usize> {
    counts: [u64; N],
    above: u64,
    sum: f64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self { counts: [0; N], above: 0, sum: 0.0 }
    }
}

impl<const N: usize> Histogram<N> {
    fn add(&mut self, limits: &[f64; N], value: f64) {
        match limits.iter().position(|limit| value <= *limit) {
            Some(place) => self.counts[place] += 1,
            None => self.above += 1,
        }
        self.sum += value;
    }

    fn write(&self, text: &mut Text, labels: &[(&str, &str)], limits: &[f64; N]) {
        let mut total = 0;
        for (limit, count) in limits.iter().zip(self.counts) {
            total += count;
            text.bucket(labels, Some(*limit), total);
        }
        total += self.above;
        text.bucket(labels, None, total);
        text.sample("_sum", labels, self.sum);
        text.sample("_count", labels, total as f64);
    }
}

impl Counted {
    /// Takes in the next event.
    pub fn add(&mut self, event: &Event) {
        let seconds = |from: Option<u64>, to: Option<u64>| Some(to?.checked_sub(from?)? as f64 / 1e9);
        let child = event.child.clone().unwrap_or_default();
        match event.event_kind() {
            Some(EventKind::DaemonStarted) => *self = Self { missed: self.missed, ..Self::default() },
            Some(EventKind::Fault) => {
                *self.faults.entry((child, event.fault.clone().unwrap_or_default())).or_default() += 1;
                if let Some(overshoot) = seconds(event.deadline_ns, event.detected_ns) {
                    self.overshoot.add(&OVERSHOOT, overshoot);
                }
            }
            Some(EventKind::Recovered) => {
                if let Some(recovery) = seconds(event.detected_ns, event.ready_ns) {
                    self.recovery.entry(child).or_default().add(&RECOVERY, recovery);
                }
            }
            _ => {}
        }
    }

    /// So many events were not seen.
    pub fn missed(&mut self, events: u64) {
        self.missed = self.missed.saturating_add(events);
    }

    pub(super) fn write(&self, text: &mut Text) {
        let help = "Faults of each kind since multusd started, as far as its events were seen.";
        text.family("multus_child_faults_by_kind", Kind::Counter, help);
        for ((child, kind), count) in &self.faults {
            text.sample("_total", &[("child", child), ("kind", kind)], *count as f64);
        }
        let help = "From the deadline of a beat to the moment its absence was detected.";
        text.family("multus_fault_overshoot_seconds", Kind::Histogram, help);
        self.overshoot.write(text, &[], &OVERSHOOT);
        let help = "From the moment a fault was detected to the moment the child was ready again.";
        text.family("multus_child_recovery_seconds", Kind::Histogram, help);
        for (child, recovery) in &self.recovery {
            recovery.write(text, &[("child", child)], &RECOVERY);
        }
        let help = "Events that were not counted here: they came too fast.";
        text.one("multus_control_events_missed", Kind::Counter, help, self.missed as f64);
    }
}

const OVERSHOOT: [f64; 12] =
    [0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1];
const RECOVERY: [f64; 15] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 300.0];
