//! From what the checks say to light. Pure: no clock, no socket.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

/// What is known of one check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Known {
    /// Nobody is asked.
    #[default]
    LeftOut,
    /// Who should know does not answer.
    Unreachable,
    /// There was no check yet.
    NotYet,
    Up,
    Down,
}

/// What is known of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Network {
    pub lan: Known,
    pub internet: Known,
    pub tunnel: Known,
}

/// What a lamp shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Shows {
    /// Internet and tunnel, as the original.
    Network,
    /// The local network alone.
    Lan,
    /// The internet alone.
    Internet,
    /// The tunnel alone.
    Tunnel,
}

/// What there is to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// A check does not answer.
    Error,
    /// It is not there; for the network as a whole: no internet.
    Down,
    /// The internet is there, the tunnel is not.
    NoTunnel,
    /// All is well.
    Good,
}

/// A pattern of light; it begins anew whenever the condition changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    Off,
    On,
    /// One second on, one second off.
    Fast,
    /// Three seconds on, three seconds off.
    Slow,
    /// A short flash every two seconds.
    Flash,
    /// Two short flashes every two seconds.
    DoubleFlash,
}

impl Shows {
    pub fn condition(self, network: Network) -> Condition {
        let Network { lan, internet, tunnel } = network;
        let alone = |known| match known {
            Known::LeftOut | Known::Unreachable => Condition::Error,
            Known::NotYet | Known::Down => Condition::Down,
            Known::Up => Condition::Good,
        };
        match self {
            Self::Lan => alone(lan),
            Self::Internet => alone(internet),
            Self::Tunnel => alone(tunnel),
            Self::Network => match (internet, tunnel) {
                (Known::LeftOut, Known::LeftOut) | (Known::Unreachable, _) | (_, Known::Unreachable) => {
                    Condition::Error
                }
                (Known::Down | Known::NotYet, _) => Condition::Down,
                (Known::Up | Known::LeftOut, Known::Down | Known::NotYet) => Condition::NoTunnel,
                (Known::Up | Known::LeftOut, Known::Up | Known::LeftOut) => Condition::Good,
            },
        }
    }
}

impl Pattern {
    /// Milliseconds of light and dark in turn.
    fn steps(self) -> &'static [u64] {
        match self {
            Self::Off | Self::On => &[],
            Self::Fast => &[1000, 1000],
            Self::Slow => &[3000, 3000],
            Self::Flash => &[100, 1900],
            Self::DoubleFlash => &[100, 200, 100, 1600],
        }
    }

    /// Whether there is light `time` after the pattern began, and how long it stays so; `None`: for ever.
    pub fn at(self, time: Duration) -> (bool, Option<Duration>) {
        let steps = self.steps();
        let round: u64 = steps.iter().sum();
        if round == 0 {
            return (self == Self::On, None);
        }
        let mut left = Duration::from_nanos((time.as_nanos() % u128::from(round * 1_000_000)) as u64);
        for (index, step) in steps.iter().enumerate() {
            let step = Duration::from_millis(*step);
            if left < step {
                return (index % 2 == 0, Some(step - left));
            }
            left -= step;
        }
        // What is left of a round is shorter than the round.
        (false, Some(Duration::ZERO))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_those_of_the_original_and_either_check_can_be_left_out() {
        use Condition::{Down as NoNet, Error, Good, NoTunnel};
        use Known::{Down, LeftOut, NotYet, Unreachable, Up};
        for (internet, tunnel, expected) in [
            (Up, Up, Good),
            (Up, Down, NoTunnel),
            (Up, NotYet, NoTunnel),
            (Down, Up, NoNet),
            (Down, Down, NoNet),
            (NotYet, Up, NoNet),
            (Unreachable, Up, Error),
            (Up, Unreachable, Error),
            (Down, Unreachable, Error),
            (Up, LeftOut, Good),
            (Down, LeftOut, NoNet),
            (LeftOut, Up, Good),
            (LeftOut, Down, NoTunnel),
            (LeftOut, Unreachable, Error),
            (LeftOut, LeftOut, Error),
        ] {
            let network = Network { lan: LeftOut, internet, tunnel };
            assert_eq!(Shows::Network.condition(network), expected, "{internet:?} {tunnel:?}");
        }
        let network = Network { lan: Up, internet: Down, tunnel: Unreachable };
        let alone = [Shows::Lan, Shows::Internet, Shows::Tunnel].map(|shows| shows.condition(network));
        assert_eq!(alone, [Good, NoNet, Error]);
    }

    #[test]
    fn patterns_repeat_and_say_how_long_they_stay() {
        let ms = Duration::from_millis;
        for (pattern, at, light, stays) in [
            (Pattern::Off, 12_345, false, None),
            (Pattern::On, 12_345, true, None),
            (Pattern::Fast, 0, true, Some(1000)),
            (Pattern::Fast, 999, true, Some(1)),
            (Pattern::Fast, 1000, false, Some(1000)),
            (Pattern::Fast, 2000, true, Some(1000)),
            (Pattern::Slow, 2999, true, Some(1)),
            (Pattern::Slow, 3000, false, Some(3000)),
            (Pattern::Slow, 600_000_000, true, Some(3000)),
            (Pattern::Flash, 100, false, Some(1900)),
            (Pattern::DoubleFlash, 350, true, Some(50)),
            (Pattern::DoubleFlash, 400, false, Some(1600)),
        ] {
            assert_eq!(pattern.at(ms(at)), (light, stays.map(ms)), "{pattern:?} at {at} ms");
        }
        for pattern in [Pattern::Fast, Pattern::Slow, Pattern::Flash, Pattern::DoubleFlash] {
            let _ = pattern.at(Duration::MAX);
        }
    }
}
