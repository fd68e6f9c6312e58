//! The daemon's own threads are watched like children: each is a lane of a page in the same table.

use multus_ipc::MonoNs;
use multus_ipc::heartbeat::Reader;
use multus_supervisor::Beats;
use multus_supervisor::watch::Lane;

/// A helper thread. The numbers appear in events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Helper {
    /// Makes and ends processes.
    Launcher = 0,
    /// Collects evidence.
    Evidence = 1,
    /// Writes logs.
    Log = 2,
    /// Serves the control socket and reads the configuration.
    Control = 3,
    /// Turns notices of programs into beats.
    Adapters = 4,
    /// Writes the safe values of outputs when multus-io does not.
    Guard = 5,
}

/// How often a helper that can be replaced is replaced.
pub const SPARES: usize = 2;

impl Helper {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Launcher, Self::Evidence, Self::Log, Self::Control, Self::Adapters, Self::Guard];

    /// Its name, as in the name of the thread.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Launcher => "launcher",
            Self::Evidence => "evidence",
            Self::Log => "log",
            Self::Control => "control",
            Self::Adapters => "adapters",
            Self::Guard => "guard",
        }
    }

    /// The lane of its n-th thread in the daemon's own page, 1 to 10.
    pub const fn lane(self, spare: usize) -> usize {
        match self {
            Self::Launcher => 1,
            Self::Control => 2,
            Self::Adapters => 3,
            Self::Guard => 4,
            Self::Evidence => 5 + spare,
            Self::Log => 5 + SPARES + 1 + spare,
        }
    }

    /// Silence longer than this means stuck. All beat twice a second; the limits leave room for a machine under full
    /// load (ordinary threads) and for an SD card that stalls for seconds (those who touch files).
    pub const fn deadline_ns(self) -> u64 {
        const S: u64 = 1_000_000_000;
        match self {
            Self::Launcher | Self::Evidence | Self::Adapters => 10 * S,
            // A bus that hangs may take a second for each of its chips.
            Self::Log | Self::Control | Self::Guard => 30 * S,
        }
    }

    const fn spares(self) -> usize {
        match self {
            Self::Launcher | Self::Control | Self::Adapters | Self::Guard => 0,
            Self::Evidence | Self::Log => SPARES,
        }
    }
}

/// What is to be done about a stuck helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Start the n-th spare.
    Replace { helper: Helper, spare: usize },
    /// The spare that took its place works.
    Recovered { helper: Helper },
    /// Nobody can take its place.
    End { helper: Helper },
}

#[derive(Debug)]
pub(super) struct Helpers {
    watched: [Watched; 6],
    stuck: u64,
}

#[derive(Debug)]
struct Watched {
    helper: Helper,
    spare: usize,
    lane: Lane,
    ended: bool,
    /// It took the place of another and has not beaten yet.
    unproved: bool,
}

impl Helpers {
    pub(super) fn new(now: MonoNs) -> Self {
        let watched = |helper| Watched { helper, spare: 0, lane: Lane::new(now), ended: false, unproved: false };
        Self { watched: Helper::ALL.map(watched), stuck: 0 }
    }

    /// When to check next.
    pub(super) fn next(&self) -> MonoNs {
        let due = |w: &Watched| if w.ended { MonoNs::NEVER } else { w.lane.due(w.helper.deadline_ns()) };
        self.watched.iter().map(due).min().unwrap_or(MonoNs::NEVER)
    }

    /// Bit n: helper n was found stuck, and nothing works in its place yet.
    pub(super) fn stuck(&self) -> u64 {
        self.stuck
    }

    /// The first helper that is stuck now.
    ///
    /// # Real time
    /// Five looks.
    pub(super) fn check(&mut self, now: MonoNs, page: Reader<'_>) -> Option<Verdict> {
        for w in self.watched.iter_mut().filter(|w| !w.ended) {
            let deadline_ns = w.helper.deadline_ns();
            if now < w.lane.due(deadline_ns) {
                continue;
            }
            let beats = Beats { deadline_ns, min_interval_ns: 0, warn_ns: 0 };
            let lane = w.helper.lane(w.spare);
            if page.has_left(lane) {
                w.ended = true;
                continue;
            }
            // Its writer is ours; a violation could only be a bug, and shows as silence.
            let _ = w.lane.judge(page.look(lane), MonoNs::now(), &beats);
            if now < w.lane.due(deadline_ns) {
                if std::mem::take(&mut w.unproved) {
                    self.stuck &= !(1 << (w.helper as u8));
                    return Some(Verdict::Recovered { helper: w.helper });
                }
                continue;
            }
            // A machine that stood still, or a daemon that was stopped, grants its threads the same as any child.
            let late = now.since(w.lane.due(deadline_ns)).as_nanos() as u64;
            if late >= 1_000_000 {
                w.lane.grant(now, late, deadline_ns);
                if now < w.lane.due(deadline_ns) {
                    continue;
                }
            }
            self.stuck |= 1 << (w.helper as u8);
            if w.spare < w.helper.spares() {
                let spare = w.spare + 1;
                *w = Watched { helper: w.helper, spare, lane: Lane::new(now), ended: false, unproved: true };
                return Some(Verdict::Replace { helper: w.helper, spare });
            }
            w.ended = true;
            return Some(Verdict::End { helper: w.helper });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use multus_ipc::heartbeat::{self, PageWriter};
    use multus_ipc::sync::AtomicU64;

    /// The daemon's own page, before anybody beats.
    fn own_page() -> Vec<AtomicU64> {
        let header = heartbeat::header(1, 0).into_iter().chain(std::iter::repeat(0));
        header.take(heartbeat::WORDS).map(AtomicU64::new).collect()
    }

    #[test]
    fn a_stuck_helper_is_replaced_as_often_as_there_are_spares_then_the_daemon_ends() {
        let words = own_page();
        let page = PageWriter::new(&words).unwrap();
        let reader = Reader::new(&words);
        let s = 1_000_000_000u64;
        let mut helpers = Helpers::new(MonoNs(0));
        let mut verdicts = Vec::new();
        for second in 1..100 {
            let now = MonoNs(second * s);
            for helper in [Helper::Launcher, Helper::Log, Helper::Control, Helper::Adapters, Helper::Guard] {
                page.lane(helper.lane(0)).beat_at(now);
            }
            verdicts.extend(std::iter::from_fn(|| helpers.check(now, reader)).map(|v| (second, v)));
        }
        let helper = Helper::Evidence;
        assert_eq!(
            verdicts,
            [
                (10, Verdict::Replace { helper, spare: 1 }),
                (20, Verdict::Replace { helper, spare: 2 }),
                (30, Verdict::End { helper }),
            ]
        );
        assert_eq!(helpers.stuck(), 1 << 1);
    }

    #[test]
    fn a_spare_that_beats_is_told_about() {
        let words = own_page();
        let page = PageWriter::new(&words).unwrap();
        let reader = Reader::new(&words);
        let s = 1_000_000_000u64;
        let mut helpers = Helpers::new(MonoNs(0));
        let mut verdicts = Vec::new();
        for second in 1..60 {
            let now = MonoNs(second * s);
            for helper in Helper::ALL {
                let spare = usize::from(helper == Helper::Evidence);
                page.lane(helper.lane(spare)).beat_at(now);
            }
            verdicts.extend(std::iter::from_fn(|| helpers.check(now, reader)));
        }
        let helper = Helper::Evidence;
        assert_eq!(verdicts, [Verdict::Replace { helper, spare: 1 }, Verdict::Recovered { helper }]);
        assert_eq!(helpers.stuck(), 0);
    }

    #[test]
    fn lanes_do_not_overlap() {
        let mut lanes: Vec<usize> =
            Helper::ALL.iter().flat_map(|h| (0..=h.spares()).map(|spare| h.lane(spare))).collect();
        lanes.sort_unstable();
        assert_eq!(lanes, (1..=10).collect::<Vec<_>>());
    }
}
