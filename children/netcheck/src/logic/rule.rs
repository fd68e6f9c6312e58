//! How many answers make a good round.

/// How many of those that are asked must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// One is enough.
    Any,
    /// Every one.
    All,
    /// So many.
    AtLeast(usize),
}

impl Rule {
    /// Whether `good` answers of `asked` are enough. Where nobody was asked, nobody answered.
    pub fn is_met(self, good: usize, asked: usize) -> bool {
        good >= match self {
            Self::Any => 1,
            Self::All => asked.max(1),
            Self::AtLeast(number) => number.max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_good_when_enough_have_answered() {
        for (rule, good, asked, expected) in [
            (Rule::Any, 0, 3, false),
            (Rule::Any, 1, 3, true),
            (Rule::All, 2, 3, false),
            (Rule::All, 3, 3, true),
            (Rule::AtLeast(2), 1, 3, false),
            (Rule::AtLeast(2), 2, 3, true),
            (Rule::AtLeast(4), 3, 3, false),
            (Rule::AtLeast(0), 0, 3, false),
            (Rule::Any, 0, 0, false),
            (Rule::All, 0, 0, false),
        ] {
            assert_eq!(rule.is_met(good, asked), expected, "{rule:?} {good} of {asked}");
        }
    }
}
