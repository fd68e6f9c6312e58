//! How long one message is tried: a line to the world may be down for hours. Pure: its age comes in.

use std::time::Duration;

use crate::outward::Backoff;

/// What is left of the patience with one message.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    retries: u32,
    give_up_after: Duration,
    backoff: Backoff,
}

impl Patience {
    pub(super) const fn new(retries: u32, give_up_after: Duration) -> Self {
        Self { retries, give_up_after, backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT) }
    }

    /// A try failed: how long to wait before the next one; `None`: there is none. `age`: since it happened.
    pub(super) fn failed(&mut self, age: Duration) -> Option<Duration> {
        self.retries = self.retries.checked_sub(1)?;
        let left = self.give_up_after.checked_sub(age).filter(|left| !left.is_zero())?;
        Some(self.backoff.failed().min(left))
    }
}

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::super::Target;
    use super::*;

    /// Age at each try.
    fn tries(target: &Target) -> Vec<Duration> {
        let mut patience = Patience::new(target.retries, target.give_up_after.duration());
        let mut tries = vec![Duration::ZERO];
        while let Some(wait) = patience.failed(*tries.last().expect("one at least")) {
            tries.push(*tries.last().expect("one at least") + wait);
        }
        tries
    }

    #[test]
    fn a_message_outlives_an_outage_of_a_day() {
        let tries = tries(&Target::default());
        let waits: Vec<Duration> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(waits[..4], [1, 2, 4, 8].map(Duration::from_secs));
        assert!(waits.iter().all(|wait| *wait <= LONGEST_WAIT));
        assert_eq!(tries.last(), Some(&Duration::from_secs(86_400)), "and no longer");
    }

    #[test]
    fn number_and_age_are_bounded() {
        assert_eq!(tries(&Target { retries: 0, ..Target::default() }).len(), 1);
        assert_eq!(tries(&Target { retries: 5, ..Target::default() }).len(), 6);
        let short = Target { give_up_after: Duration::from_secs(5).into(), ..Target::default() };
        assert_eq!(tries(&short), [0, 1, 3, 5].map(Duration::from_secs));
        assert_eq!(Patience::new(9, Duration::from_secs(5)).failed(Duration::from_secs(6)), None, "it is old already");
    }
}
