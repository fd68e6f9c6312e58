//! The thread that watches the process image: sleeps until something changes, tells those who listen, and has changes recorded.

use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use multus_child::Lane;
use multus_contract::api::io::{IoLine, IoStatus};
use multus_contract::api::time::parse_rfc3339;
use multus_ipc::io_child::Io;
use multus_ipc::time::unix_ns;

use super::super::Inner;
use super::ledger::Ledger;
use crate::history::{self, IoChange};

/// Starts the thread. It ends when the service is gone; a lane, where given, is beaten in every turn.
pub(crate) fn start(inner: Weak<Inner>, image: Io, lane: Option<Lane>) -> io::Result<()> {
    let mut watch = Watch {
        image,
        daemon: history::identity(std::os::unix::process::parent_id()),
        ledger: Ledger::default(),
        started: Instant::now(),
    };
    std::thread::Builder::new().name("lines".into()).spawn(move || {
        loop {
            if let Some(lane) = &lane {
                lane.beat();
            }
            // What changes after this ends the wait below at once.
            let seen = watch.image.changes();
            match inner.upgrade() {
                Some(inner) => watch.look(&inner),
                None => return,
            }
            watch.image.wait_change(seen, TURN);
            // What belongs together comes with the next scan, and a plant that chatters is looked at so often and no more: how
            // often a line changed between is counted by multus-io.
            std::thread::sleep(PAUSE);
        }
    })?;
    Ok(())
}

struct Watch {
    image: Io,
    /// Which multusd made the image: another one counts changes anew.
    daemon: String,
    ledger: Ledger,
    started: Instant,
}

impl Watch {
    fn look(&mut self, inner: &Inner) {
        // While lines are defined there are none; the next look is soon.
        let Some((layout, image)) = self.image.image().and_then(|image| Some((image.layout()?, image))) else { return };
        let IoStatus { fresh, lines, .. } = IoStatus::of(&image, super::now());
        if image.layout() != Some(layout) {
            return;
        }
        if let Some(history) = inner.history.get() {
            let image: Arc<str> = format!("{}/{layout}", self.daemon).into();
            let now = self.started.elapsed();
            for line in lines.iter().filter(|line| self.ledger.is_due(line, now)) {
                history.io_changed(change(line, &image));
            }
        }
        inner.io.looked(fresh, lines);
    }
}

/// As it is recorded.
fn change(line: &IoLine, image: &Arc<str>) -> IoChange {
    let changed = line.changed.as_deref().and_then(parse_rfc3339);
    let source = match (line.good, line.source.as_str()) {
        (false, _) => "bad",
        (true, "") => "read",
        (true, source) => source,
    };
    IoChange {
        time_unix_ns: unix_ns(),
        changed_unix_ns: changed,
        line: line.name.clone(),
        kind: line.kind.clone(),
        value: line.value.to_string(),
        source: source.to_owned(),
        changes: line.changes,
        image: Arc::clone(image),
        ..IoChange::default()
    }
}

/// From look to look at least.
const PAUSE: Duration = Duration::from_millis(10);
/// From look to look at most: a multus-io that is gone changes nothing.
const TURN: Duration = Duration::from_millis(500);
