//! Is the order of checkpoints kept, and do they come in time? Deadline supervision and logical supervision, beside the
//! alive supervision of beats. One tracker per child; the pages are allegations, as with beats.

use multus_ipc::MonoNs;
use multus_ipc::checkpoint::{self, MAX_DEADLINES, MAX_SECTIONS, Reader};

use crate::policy::List;

/// The limits from one checkpoint to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Limits {
    /// Shortest time, ns.
    pub min_ns: u64,
    /// Longest time, ns; 0: any.
    pub max_ns: u64,
}

/// What is supervised in a child beyond its beats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Checkpoints {
    /// How many sections its page has.
    pub sections: u8,
    /// The deadlines of its page, in their order there.
    pub deadlines: List<Limits, MAX_DEADLINES>,
}

/// What is wrong with a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// It was passed after one that it must not follow.
    Order(checkpoint::Disorder),
    /// It came too soon: number of the deadline, the time it took and the shortest allowed, ns.
    Early(usize, u64, u64),
    /// It came too late, or has not come yet: number of the deadline, the time it took and the longest allowed, ns.
    Late(usize, u64, u64),
}

/// What was judged before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Tracker {
    disorder: [u64; MAX_SECTIONS],
    outside: [u64; MAX_DEADLINES],
    /// Lateness of the loop that is granted, ns, and until when.
    late_ns: u64,
    late_until: u64,
}

impl Tracker {
    /// The first thing that is wrong and was not told before.
    ///
    /// # Real time
    /// O(16).
    pub(crate) fn judge(&mut self, page: Reader<'_>, now: MonoNs, what: &Checkpoints) -> Option<Violation> {
        for section in 0..usize::from(what.sections).min(MAX_SECTIONS) {
            let word = page.disorder(section);
            if word != self.disorder[section] {
                self.disorder[section] = word;
                return Some(Violation::Order(checkpoint::disorder(word)));
            }
        }
        let late = self.granted(now);
        for (number, limits) in what.deadlines.as_slice().iter().enumerate() {
            let word = page.outside(number);
            if word != self.outside[number] {
                self.outside[number] = word;
                let took = checkpoint::outside_ns(word);
                if took < limits.min_ns {
                    return Some(Violation::Early(number, took, limits.min_ns));
                }
                if limits.max_ns > 0 && took > limits.max_ns.saturating_add(late) {
                    return Some(Violation::Late(number, took, limits.max_ns));
                }
            }
            if let Some(begun) = page.begun(number).filter(|_| limits.max_ns > 0) {
                let took = now.0.saturating_sub(begun.0);
                if took >= limits.max_ns.saturating_add(late) {
                    return Some(Violation::Late(number, took, limits.max_ns));
                }
            }
        }
        None
    }

    /// When to look again: at the end of a deadline that runs, or early enough for one that may begin meanwhile.
    pub(crate) fn due(&self, page: Reader<'_>, now: MonoNs, what: &Checkpoints) -> MonoNs {
        let late = self.granted(now);
        let mut due = MonoNs::NEVER;
        for (number, limits) in what.deadlines.as_slice().iter().enumerate().filter(|(_, l)| l.max_ns > 0) {
            let end = match page.begun(number).filter(|begun| *begun < now) {
                Some(begun) => begun.0.saturating_add(limits.max_ns).saturating_add(late),
                None => now.0.saturating_add(limits.max_ns),
            };
            due = due.min(MonoNs(end));
        }
        due
    }

    /// The loop woke late: if the whole machine stood still, so did the child, and it needs time to run before it is
    /// judged: half the lateness, at most the longest deadline, as with beats.
    pub(crate) fn grant(&mut self, now: MonoNs, late_ns: u64, what: &Checkpoints) {
        let longest = what.deadlines.as_slice().iter().map(|l| l.max_ns).max().unwrap_or(0);
        self.late_ns = self.granted(now).max(late_ns.saturating_add((late_ns / 2).min(longest)));
        self.late_until = now.0.saturating_add(longest.saturating_mul(2));
    }

    fn granted(&self, now: MonoNs) -> u64 {
        if now.0 < self.late_until { self.late_ns } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicU64;

    use multus_ipc::checkpoint::{Plan, WORDS, Writer};
    use multus_ipc::text::Text;

    use super::*;

    const MS: u64 = 1_000_000;

    fn page() -> (Vec<AtomicU64>, Checkpoints) {
        let mut plan = Plan::default();
        let main = plan.section("").unwrap();
        let [read, write] = ["read", "write"].map(|name| plan.checkpoint(main, name).unwrap());
        plan.order(read, &[write], true);
        plan.order(write, &[read], false);
        plan.deadline(read, write, 2 * MS, 10 * MS).unwrap();
        let words = plan.words().iter().copied().chain(core::iter::repeat(0));
        let deadlines = [Limits { min_ns: 2 * MS, max_ns: 10 * MS }].into_iter().collect();
        (words.take(WORDS).map(AtomicU64::new).collect(), Checkpoints { sections: 1, deadlines })
    }

    #[test]
    fn each_violation_is_told_once() {
        let (page, what) = page();
        let (writer, reader) = (Writer::new(&page), Reader::new(&page));
        let [read, write] = ["read", "write"].map(|name| writer.find(&Text::EMPTY, name).unwrap());
        let mut tracker = Tracker::default();
        let at = |checkpoint, ms: u64| writer.pass(checkpoint, MonoNs(ms * MS));
        at(read, 100);
        assert_eq!(tracker.judge(reader, MonoNs(105 * MS), &what), None);
        assert_eq!(tracker.due(reader, MonoNs(105 * MS), &what), MonoNs(110 * MS));
        at(write, 106);
        assert_eq!(tracker.judge(reader, MonoNs(115 * MS), &what), None);
        assert_eq!(tracker.due(reader, MonoNs(115 * MS), &what), MonoNs(125 * MS), "one may begin meanwhile");

        at(read, 200);
        at(write, 201);
        assert_eq!(tracker.judge(reader, MonoNs(202 * MS), &what), Some(Violation::Early(0, MS, 2 * MS)));
        assert_eq!(tracker.judge(reader, MonoNs(203 * MS), &what), None);
        at(read, 300);
        assert_eq!(tracker.judge(reader, MonoNs(310 * MS), &what), Some(Violation::Late(0, 10 * MS, 10 * MS)));
        at(write, 311);
        assert_eq!(tracker.judge(reader, MonoNs(312 * MS), &what), Some(Violation::Late(0, 11 * MS, 10 * MS)));
        at(write, 320);
        let order = Violation::Order(checkpoint::Disorder { from: Some(1), to: 1 });
        assert_eq!(tracker.judge(reader, MonoNs(321 * MS), &what), Some(order));
        assert_eq!(tracker.judge(reader, MonoNs(322 * MS), &what), None);
    }

    #[test]
    fn a_standstill_is_granted_for_a_while() {
        let (page, what) = page();
        let (writer, reader) = (Writer::new(&page), Reader::new(&page));
        let [read, write] = ["read", "write"].map(|name| writer.find(&Text::EMPTY, name).unwrap());
        let mut tracker = Tracker::default();
        writer.pass(read, MonoNs(100 * MS));
        tracker.grant(MonoNs(5_110 * MS), 5_000 * MS, &what);
        assert_eq!(tracker.judge(reader, MonoNs(5_109 * MS), &what), None);
        writer.pass(write, MonoNs(5_107 * MS));
        assert_eq!(
            tracker.judge(reader, MonoNs(5_115 * MS), &what),
            None,
            "5007 ms, of which 5000 were no fault of it"
        );
        writer.pass(read, MonoNs(6_000 * MS));
        assert!(matches!(tracker.judge(reader, MonoNs(6_010 * MS), &what), Some(Violation::Late(0, _, _))));
    }
}
