//! Faults that nobody ordered: is the daemon wrong, or the machine too slow?

use multus_bench::board::Slot;
use multus_contract::api::event::Event;
use multus_ipc::words::FaultKind;

use crate::report::duration;
use crate::stats::ns_between;

/// Faults that nobody ordered, judged by what the writer noted about its own beats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    /// A beat was made in time.
    pub(crate) wrong: u64,
    /// No beat was made in time.
    pub(crate) writer_late: u64,
}

impl Faults {
    /// Takes in a fault of the child in `slot`.
    pub(crate) fn take(&mut self, event: &Event, slot: Slot<'_>) {
        let (last, deadline) = (event.last_beat_ns.unwrap_or(0), event.deadline_ns.unwrap_or(u64::MAX));
        let life = slot.life_at(event.detected_ns.unwrap_or(u64::MAX));
        let next = slot.first_beat_after(life, last);
        let wrong = event.fault_kind() != Some(FaultKind::Hang) || next.is_some_and(|beat| beat <= deadline);
        let (count, why) = if wrong {
            (&mut self.wrong, "WRONG: it had beaten in time".to_owned())
        } else {
            let late = next.map_or("never".to_owned(), |beat| format!("{} late", duration(ns_between(deadline, beat))));
            (&mut self.writer_late, format!("right: the next beat came {late}"))
        };
        *count += 1;
        let child = event.child.as_deref().unwrap_or("?");
        eprintln!("latency: fault of {child}, not on order: {} ({why})", event.detail.replace('\n', "; "));
    }

    /// As the measured side of a figure.
    pub(crate) fn to_text(self) -> String {
        match self.writer_late {
            0 => format!("{} wrong faults", self.wrong),
            late => format!("{} wrong faults; {late} right ones: the machine ran the writer too late", self.wrong),
        }
    }
}

#[cfg(test)]
mod tests {
    use multus_bench::board::Board;
    use multus_ipc::MonoNs;

    use super::*;

    #[test]
    fn a_fault_is_wrong_when_the_writer_had_beaten_in_time() {
        let board = Board::create(1).expect("memory");
        let slot = board.slot(0).expect("a slot");
        let life = slot.born(MonoNs(10));
        let event = Event {
            fault: Some("hang".to_owned()),
            last_beat_ns: Some(51),
            deadline_ns: Some(100),
            detected_ns: Some(130),
            ..Event::default()
        };
        let mut faults = Faults::default();
        slot.beats(life, 0, MonoNs(50));
        faults.take(&event, slot);
        slot.beats(life, 1, MonoNs(140));
        faults.take(&event, slot);
        assert_eq!(faults, Faults { wrong: 0, writer_late: 2 });
        slot.beats(life, 2, MonoNs(99));
        faults.take(&event, slot);
        assert_eq!(faults, Faults { wrong: 1, writer_late: 2 });
    }
}
