//! Whether a name can be resolved, found out beside everything else: the system may take half a minute to say no, and cannot be
//! interrupted. A receiver has one such question under way at most, so that it takes no thread from the others.

use std::io;
use std::net::ToSocketAddrs as _;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

/// The name of one receiver.
#[derive(Debug)]
pub(super) struct Name {
    /// Host and port.
    address: String,
    /// What the system was asked.
    question: Option<JoinHandle<io::Result<()>>>,
}

impl Clone for Name {
    /// The same name; nobody has asked for it yet.
    fn clone(&self) -> Self {
        Self::new(&self.address)
    }
}

impl Name {
    pub(super) fn new(address: &str) -> Self {
        Self { address: address.to_owned(), question: None }
    }

    /// # Errors
    /// It cannot be resolved, or not within `patience`; for people.
    pub(super) async fn resolve(&mut self, patience: Duration) -> Result<(), String> {
        let address = self.address.clone();
        self.ask(patience, move || address.to_socket_addrs().map(drop)).await
    }

    async fn ask(
        &mut self,
        patience: Duration,
        ask: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<(), String> {
        let question = self.question.get_or_insert_with(|| spawn_blocking(ask));
        let Ok(answer) = timeout(patience, question).await else {
            return Err("its name is not resolved in time".into());
        };
        self.question = None;
        match answer {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("its name cannot be resolved: {error}")),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_name_that_takes_its_time_is_asked_for_once() {
        let mut name = Name::new("nobody.example:1");
        let (answer, answered) = mpsc::channel::<()>();
        let slow = move || answered.recv().map_err(io::Error::other);
        let short = Duration::from_millis(1);
        assert!(name.ask(short, slow).await.is_err_and(|reason| reason.contains("in time")));
        for _ in 0..3 {
            let again = name.ask(short, || unreachable!("one question at a time")).await;
            assert!(again.is_err_and(|reason| reason.contains("in time")));
        }
        answer.send(()).expect("somebody waits");
        let long = Duration::from_secs(60);
        assert_eq!(name.ask(long, || unreachable!("the answer to the first is enough")).await, Ok(()));
        let refused = name.ask(long, || Err(io::ErrorKind::NotFound.into())).await;
        assert!(refused.is_err_and(|reason| reason.starts_with("its name cannot be resolved")));
        assert_eq!(Name::new("127.0.0.1:1").resolve(long).await, Ok(()));
    }
}
