//! The last answers of one target: latency and loss.

use std::collections::VecDeque;
use std::time::Duration;

/// Of how many questions the answers are remembered.
pub const REMEMBERED: usize = 100;

/// What became of the last [`REMEMBERED`] questions. An answer may be without a time.
#[derive(Clone, Debug, Default)]
pub struct Window {
    answers: VecDeque<Option<Option<Duration>>>,
}

/// Times of the answers in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    pub shortest: Duration,
    pub mean: Duration,
    pub longest: Duration,
}

impl Window {
    /// One more question: `None` was not answered, `Some(None)` was, without a time.
    pub fn add(&mut self, answer: Option<Option<Duration>>) {
        if self.answers.len() == REMEMBERED {
            self.answers.pop_front();
        }
        self.answers.push_back(answer);
    }

    pub fn len(&self) -> usize {
        self.answers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Questions without an answer, 0 to 100 percent; 0 when there was no question.
    pub fn loss_percent(&self) -> f64 {
        let lost = self.answers.iter().filter(|answer| answer.is_none()).count();
        if self.is_empty() { 0.0 } else { 100.0 * lost as f64 / self.len() as f64 }
    }

    /// `None`: no answer had a time.
    pub fn latency(&self) -> Option<Latency> {
        let times = || self.answers.iter().filter_map(|answer| answer.flatten());
        let number = u32::try_from(times().count()).ok().filter(|number| *number > 0)?;
        let sum: Duration = times().sum();
        Some(Latency { shortest: times().min()?, mean: sum / number, longest: times().max()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_and_loss_are_those_of_what_is_remembered() {
        let ms = Duration::from_millis;
        let mut window = Window::default();
        assert_eq!((window.latency(), window.loss_percent()), (None, 0.0));
        for answer in [None, Some(Some(ms(10))), Some(Some(ms(30))), Some(None)] {
            window.add(answer);
        }
        assert_eq!(window.loss_percent(), 25.0);
        let latency = Latency { shortest: ms(10), mean: ms(20), longest: ms(30) };
        assert_eq!(window.latency(), Some(latency));
        for _ in 0..REMEMBERED {
            window.add(Some(Some(ms(5))));
        }
        assert_eq!((window.len(), window.loss_percent()), (REMEMBERED, 0.0));
        assert_eq!(window.latency().map(|latency| latency.longest), Some(ms(5)), "older ones are forgotten");
    }
}
