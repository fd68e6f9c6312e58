//! Whether something is up, slow to change its mind.

/// ```text
///              first round good                  `down_after` bad rounds in a row
///   Unknown ------------------------> Up { bad } ------------------------------> Down { good }
///      |                                  ^                                        |   ^
///      |                                  +-- `up_after` good rounds in a row -----+   |
///      +---------------------------- first round bad ----------------------------------+
/// ```
/// What is certain at once (a cable is pulled) goes to `Down` from everywhere, see [`Health::lose`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There was no round yet.
    Unknown,
    /// It is there; so many rounds in a row were bad.
    Up { bad: u32 },
    /// It is not; so many rounds in a row were good.
    Down { good: u32 },
}

/// A change that somebody may want to know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    CameUp,
    WentDown,
}

/// State and how many rounds it takes to change it.
#[derive(Clone, Copy, Debug)]
pub struct Health {
    state: State,
    down_after: u32,
    up_after: u32,
}

impl Health {
    /// Both from 1; 0 counts as 1.
    pub fn new(down_after: u32, up_after: u32) -> Self {
        Self { state: State::Unknown, down_after: down_after.max(1), up_after: up_after.max(1) }
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// Whether the last round spoke against the state: then the next one should come soon.
    pub fn is_in_doubt(&self) -> bool {
        matches!(self.state, State::Up { bad: 1.. } | State::Down { good: 1.. })
    }

    /// One more round.
    pub fn record(&mut self, is_good: bool) -> Option<Change> {
        let (state, change) = match (self.state, is_good) {
            (State::Unknown, true) => (State::Up { bad: 0 }, Some(Change::CameUp)),
            (State::Unknown, false) => (State::Down { good: 0 }, Some(Change::WentDown)),
            (State::Up { .. }, true) => (State::Up { bad: 0 }, None),
            (State::Down { .. }, false) => (State::Down { good: 0 }, None),
            (State::Up { bad }, false) if bad + 1 < self.down_after => (State::Up { bad: bad + 1 }, None),
            (State::Up { .. }, false) => (State::Down { good: 0 }, Some(Change::WentDown)),
            (State::Down { good }, true) if good + 1 < self.up_after => (State::Down { good: good + 1 }, None),
            (State::Down { .. }, true) => (State::Up { bad: 0 }, Some(Change::CameUp)),
        };
        self.state = state;
        change
    }

    /// It is certainly not there: no further rounds are waited for.
    pub fn lose(&mut self) -> Option<Change> {
        let was_down = matches!(self.state, State::Down { .. });
        self.state = State::Down { good: 0 };
        (!was_down).then_some(Change::WentDown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+` a good round, `-` a bad one, `!` a loss; what comes out: `U` came up, `D` went down, `.` nothing.
    fn play(down_after: u32, up_after: u32, rounds: &str) -> String {
        let mut health = Health::new(down_after, up_after);
        let mut told = |round| match round {
            '!' => health.lose(),
            round => health.record(round == '+'),
        };
        let letter = |change| match change {
            None => '.',
            Some(Change::CameUp) => 'U',
            Some(Change::WentDown) => 'D',
        };
        rounds.chars().map(|round| letter(told(round))).collect()
    }

    #[test]
    fn it_takes_so_many_rounds_in_a_row_to_change() {
        for (down_after, up_after, rounds, expected) in [
            (1, 1, "+-+-", "UDUD"),
            (3, 1, "+--+--+---", "U........D"),
            (3, 2, "+---+-++", "U..D...U"),
            (2, 3, "-+++--+++", "D..U.D..U"),
            (3, 3, "+!+++", "UD..U"),
            (3, 3, "!!+++!", "D...UD"),
            (0, 0, "+-+", "UDU"),
            (u32::MAX, u32::MAX, "+----", "U...."),
        ] {
            assert_eq!(play(down_after, up_after, rounds), expected, "{down_after} {up_after} {rounds}");
        }
    }

    #[test]
    fn doubt_begins_with_the_first_round_that_speaks_against_the_state() {
        let mut health = Health::new(3, 3);
        let mut doubts = |is_good| {
            health.record(is_good);
            health.is_in_doubt()
        };
        assert_eq!(
            [true, false, false, false, false, true, true, true].map(&mut doubts),
            [false, true, true, false, false, true, true, false]
        );
    }
}
