//! How far each target has been told, also by the process before this one: a fault of this very program is told, too, what
//! waits when the program ends is told by the next one, and nothing is told twice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use multus_ipc::MonoNs;
use serde::{Deserialize, Serialize};

/// How far, by target.
#[derive(Debug)]
pub(super) struct Ledger {
    file: PathBuf,
    boot: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    targets: BTreeMap<String, Reached>,
    /// What the file says.
    written: String,
}

/// Events by their time, ns of `CLOCK_MONOTONIC`.
#[derive(Debug)]
struct Reached {
    /// The last one that was looked at.
    seen: u64,
    /// Of those the ones that are still to be told.
    open: BTreeSet<u64>,
}

/// As it is in the file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    /// The start of the machine that the times count from.
    boot: String,
    /// All up to this time is done.
    targets: BTreeMap<String, u64>,
}

impl Ledger {
    /// Goes on where the process before this one was; a target that is new is told what happens from now on.
    pub(super) fn load<'a>(file: &Path, names: impl Iterator<Item = &'a String>) -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let stored: Option<Stored> = serde_json::from_str(&text).ok();
        let now = MonoNs::now().0;
        let seen = |name: &String| match &stored {
            // The machine was started anew: everything since then is new.
            Some(Stored { boot: then, .. }) if *then != boot => 0,
            Some(Stored { targets, .. }) => targets.get(name).copied().unwrap_or(now),
            None => now,
        };
        let targets = names.map(|name| (name.clone(), Reached { seen: seen(name), open: BTreeSet::new() })).collect();
        let state = State { targets, written: text };
        let ledger = Self { file: file.to_owned(), boot, state: Mutex::new(state) };
        ledger.save(&mut ledger.lock());
        ledger
    }

    /// Whether a target has not looked at an event of this time yet; from now on it has.
    pub(super) fn is_new(&self, target: &str, mono_ns: u64) -> bool {
        let mut state = self.lock();
        let Some(reached) = state.targets.get_mut(target).filter(|reached| reached.seen < mono_ns) else {
            return false;
        };
        reached.seen = mono_ns;
        true
    }

    /// It is to be told, and not done before that.
    pub(super) fn open(&self, target: &str, mono_ns: u64) {
        if let Some(reached) = self.lock().targets.get_mut(target) {
            reached.open.insert(mono_ns);
        }
    }

    /// It is told together with an earlier one, or not at all.
    pub(super) fn joins(&self, target: &str, mono_ns: u64) {
        let mut state = self.lock();
        if let Some(reached) = state.targets.get_mut(target) {
            reached.open.remove(&mono_ns);
        }
        self.save(&mut state);
    }

    /// All that was to be told up to this time is told, or given up.
    pub(super) fn done(&self, target: &str, mono_ns: u64) {
        let mut state = self.lock();
        if let Some(reached) = state.targets.get_mut(target) {
            reached.open.retain(|open| *open > mono_ns);
        }
        self.save(&mut state);
    }

    fn save(&self, state: &mut State) {
        let done = |reached: &Reached| reached.open.first().map_or(reached.seen, |first| first.saturating_sub(1));
        let targets = state.targets.iter().map(|(name, reached)| (name.clone(), done(reached))).collect();
        let text = serde_json::to_string(&Stored { boot: self.boot.clone(), targets }).unwrap_or_default();
        if text == state.written {
            return;
        }
        // Without it, something might be told again; that is no reason to tell less.
        match std::fs::write(&self.file, &text) {
            Ok(()) => state.written = text,
            Err(error) => log::debug!("{}: {error}", self.file.display()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_new_again_after_a_restart_and_what_was_told_is_not() {
        let temp = tempfile::tempdir().expect("a temporary directory can be made");
        let file = temp.path().join("notified");
        let names = ["a", "b"].map(str::to_owned);
        let start = || Ledger::load(&file, names.iter());
        let base = MonoNs::now().0 + 1_000_000_000_000;
        let first = start();
        assert!(!first.is_new("a", 1), "it happened before there was a file");
        for n in 1..=5 {
            assert!(first.is_new("a", base + n) && first.is_new("b", base + n) && !first.is_new("b", base + n));
            first.open("a", base + n);
            first.open("b", base + n);
        }
        first.done("a", base + 5);
        // Told with the one before.
        first.joins("b", base + 3);
        first.done("b", base + 1);
        let second = start();
        assert!(!second.is_new("a", base + 5) && second.is_new("a", base + 6));
        assert!(!second.is_new("b", base + 1) && second.is_new("b", base + 2) && second.is_new("b", base + 3));

        // One that is passed over is done with as well.
        assert!(second.is_new("a", base + 7));
        second.joins("a", base + 7);
        assert!(!start().is_new("a", base + 7));

        let names = ["a", "new"].map(str::to_owned);
        let third = Ledger::load(&file, names.iter());
        assert!(third.is_new("new", base) && !third.is_new("new", 5) && !third.is_new("nobody", base));
        let text = std::fs::read_to_string(&file).expect("it was written");
        std::fs::write(&file, text.replace(&third.boot, "another start")).expect("own file");
        assert!(start().is_new("a", 1), "the machine was started anew");
    }
}
