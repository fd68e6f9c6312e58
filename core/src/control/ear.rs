//! Hears what children say in words (`multus_ipc::voice`): how they are, and notices for the record of events. Believes
//! nothing: texts are made printable, and who talks without end is heard now and then.

use std::collections::BTreeMap;

use multus_ipc::MonoNs;
use multus_ipc::heartbeat::Reader;
use multus_ipc::text::Text;
use multus_ipc::voice::{KEPT, Words};

/// What is new of a child.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    /// How it is.
    Status(String),
    /// What happened, and how many notices before it were left out.
    Notice { text: Words, left_out: u64 },
}

/// What was heard so far, by slot.
#[derive(Debug, Default)]
pub(super) struct Ear(BTreeMap<usize, Heard>);

#[derive(Debug)]
struct Heard {
    generation: u64,
    made: u64,
    left_out: u64,
    status: Words,
    /// Notices that are taken at once, and since when the next one has been coming back.
    credit: u64,
    since: MonoNs,
}

impl Ear {
    /// Listens to the child in a slot.
    pub(super) fn listen(&mut self, slot: usize, page: Reader<'_>, now: MonoNs, say: &mut impl FnMut(Said)) {
        let heard = self.0.entry(slot).or_insert_with(|| Heard::new(now));
        if page.validate().is_err() {
            return;
        }
        let (voice, generation) = (page.voice(), page.generation());
        // Another process: its page began anew.
        if generation != heard.generation {
            (heard.generation, heard.made) = (generation, 0);
        }
        if let Some(status) = voice.status().filter(|status| *status != heard.status) {
            heard.status = status;
            say(Said::Status(printable(&status)));
        }
        let made = voice.made();
        // A count that runs backwards is taken as it is.
        let new = made.saturating_sub(heard.made);
        heard.made = made;
        heard.left_out = heard.left_out.saturating_add(new.saturating_sub(KEPT as u64));
        for back in (0..new.min(KEPT as u64)).rev() {
            match voice.notice(made - back).filter(|_| heard.may_speak(now)) {
                Some(text) => {
                    let left_out = std::mem::take(&mut heard.left_out);
                    say(Said::Notice { text: Text::new(&printable(&text)), left_out });
                }
                None => heard.left_out = heard.left_out.saturating_add(1),
            }
        }
    }
}

impl Ear {
    /// The child in this slot is gone: the next one there says everything anew.
    pub(super) fn forget(&mut self, slot: usize) {
        self.0.remove(&slot);
    }
}

impl Heard {
    fn new(now: MonoNs) -> Self {
        Self { generation: 0, made: 0, left_out: 0, status: Text::EMPTY, credit: AT_ONCE, since: now }
    }

    fn may_speak(&mut self, now: MonoNs) -> bool {
        let back = now.0.saturating_sub(self.since.0) / EVERY_NS;
        if back > 0 {
            self.credit = AT_ONCE.min(self.credit.saturating_add(back));
            self.since = if self.credit == AT_ONCE { now } else { MonoNs(self.since.0 + back * EVERY_NS) };
        }
        if self.credit == AT_ONCE {
            self.since = now;
        }
        self.credit.checked_sub(1).inspect(|left| self.credit = *left).is_some()
    }
}

/// On one line, without what a terminal would obey.
fn printable(text: &Words) -> String {
    text.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim_end().to_owned()
}

/// Notices of a child that are taken at once.
const AT_ONCE: u64 = 10;
/// After that, one in so many ns.
const EVERY_NS: u64 = 10_000_000_000;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering::Relaxed;

    use multus_ipc::heartbeat::{PageWriter, WORDS, header};

    use super::*;

    struct Child(Vec<AtomicU64>);

    impl Child {
        fn new(generation: u64) -> Self {
            let words: Vec<AtomicU64> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
            words.iter().zip(header(generation, 0)).for_each(|(word, value)| word.store(value, Relaxed));
            Self(words)
        }

        fn voice(&self) -> multus_ipc::voice::Writer<'_> {
            PageWriter::new(&self.0).unwrap().voice()
        }

        fn heard_by(&self, ear: &mut Ear, seconds: u64) -> Vec<Said> {
            let mut said = Vec::new();
            ear.listen(3, Reader::new(&self.0), MonoNs(seconds * 1_000_000_000), &mut |what| said.push(what));
            said
        }
    }

    fn notice(text: &str, left_out: u64) -> Said {
        Said::Notice { text: Text::new(text), left_out }
    }

    #[test]
    fn everything_is_heard_once_and_a_new_process_begins_anew() {
        let (mut ear, child) = (Ear::default(), Child::new(1));
        assert_eq!(child.heard_by(&mut ear, 0), []);
        child.voice().status("up");
        child.voice().notice("eth0 is\nup \u{1b}[31m");
        assert_eq!(child.heard_by(&mut ear, 1), [Said::Status("up".into()), notice("eth0 is up  [31m", 0)]);
        assert_eq!(child.heard_by(&mut ear, 1), []);
        let next = Child::new(2);
        next.voice().notice("again");
        assert_eq!(next.heard_by(&mut ear, 2), [Said::Status(String::new()), notice("again", 0)]);
    }

    #[test]
    fn who_talks_without_end_is_heard_now_and_then() {
        let (mut ear, child) = (Ear::default(), Child::new(1));
        (1..=5).for_each(|n| child.voice().notice(&n.to_string()));
        assert_eq!(child.heard_by(&mut ear, 0), [notice("3", 2), notice("4", 0), notice("5", 0)]);
        let mut heard = 3;
        for _ in 0..100 {
            child.voice().notice("more");
            heard += child.heard_by(&mut ear, 1).len();
        }
        assert_eq!(heard, 10);
        child.voice().notice("later");
        assert_eq!(child.heard_by(&mut ear, 12), [notice("later", 93)]);
        child.voice().notice("too soon");
        assert_eq!(child.heard_by(&mut ear, 13), []);
        child.voice().notice("calm");
        assert_eq!(child.heard_by(&mut ear, 10_000), [notice("calm", 1)]);
    }

    #[test]
    fn rubbish_is_harmless() {
        let (mut ear, child) = (Ear::default(), Child::new(1));
        for value in [u64::MAX, 5, 1 << 63, 0] {
            child.0[10].store(value, Relaxed);
            child.heard_by(&mut ear, 1);
        }
        child.0[0].store(7, Relaxed);
        assert_eq!(child.heard_by(&mut ear, 1), []);
    }
}
