//! Names become addresses. The resolver of the system may take its time and cannot be called off: who asks has a time-out, the
//! question goes on in a thread of its own. So for each name there is one at most, whose answer is for all who wait for it.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::target::Host;

type Found = Result<IpAddr, String>;

/// Questions under way, by name.
struct Lookups(Mutex<BTreeMap<String, watch::Receiver<Option<Found>>>>);

static LOOKUPS: Lookups = Lookups::new();

/// Waits for as long as the resolver of the system does.
///
/// # Errors
/// The name is not known; for people.
pub(super) async fn resolve(host: &Host) -> Found {
    match host {
        Host::Address(address) => Ok(*address),
        Host::Name(name) => LOOKUPS.find(name, system(name.clone())).await,
    }
}

async fn system(name: String) -> Found {
    let found = tokio::net::lookup_host((name.as_str(), 0)).await;
    let mut found = found.map_err(|error| format!("{name} cannot be resolved: {error}"))?;
    found.next().map(|found| found.ip()).ok_or_else(|| format!("{name} has no address"))
}

impl Lookups {
    const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, watch::Receiver<Option<Found>>>> {
        // Nothing in there panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(
        &'static self,
        name: &str,
        lookup: impl Future<Output = Found> + Send + 'static,
    ) -> watch::Receiver<Option<Found>> {
        let mut lookups = self.lock();
        if let Some(known) = lookups.get(name) {
            return known.clone();
        }
        let (sender, answer) = watch::channel(None);
        lookups.insert(name.to_owned(), answer.clone());
        let name = name.to_owned();
        tokio::spawn(async move {
            let found = lookup.await;
            self.lock().remove(&name);
            sender.send_replace(Some(found));
        });
        answer
    }

    /// The answer of `lookup`, or of the one for this name that is under way already.
    async fn find(&'static self, name: &str, lookup: impl Future<Output = Found> + Send + 'static) -> Found {
        let mut answer = self.begin(name, lookup);
        let found = answer.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
        found.unwrap_or_else(|| Err(format!("{name} was not resolved to the end")))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn a_name_is_looked_up_once_at_a_time_however_often_it_is_given_up() {
        static LOOKUPS: Lookups = Lookups::new();
        let (begun, gate) = (Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(0)));
        let lookup = |name: &'static str| {
            let (begun, gate) = (Arc::clone(&begun), Arc::clone(&gate));
            LOOKUPS.find(name, async move {
                begun.fetch_add(1, Ordering::Relaxed);
                gate.acquire().await.expect("open").forget();
                Ok(IpAddr::from([192, 0, 2, 1]))
            })
        };
        // Nobody answers, and whoever asks gives up: each is dropped when it has waited once.
        for _ in 0..10 {
            let mut asked = Box::pin(lookup("vpn.example"));
            tokio::select! {
                biased;
                _ = &mut asked => panic!("there is no answer yet"),
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(begun.load(Ordering::Relaxed), 1);
        let waiting = tokio::spawn(lookup("vpn.example"));
        tokio::task::yield_now().await;
        gate.add_permits(1);
        assert_eq!(waiting.await.expect("it ends"), Ok([192, 0, 2, 1].into()));
        assert_eq!(begun.load(Ordering::Relaxed), 1, "the answer is for all");
        gate.add_permits(2);
        assert!(lookup("vpn.example").await.is_ok() && lookup("other.example").await.is_ok());
        assert_eq!(begun.load(Ordering::Relaxed), 3, "what is over is asked anew");
    }
}
