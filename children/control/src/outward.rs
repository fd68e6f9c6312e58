//! What all parts share that connect to other machines: secrets, certificates, and how long to wait after a failure.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use multus_contract::api::event::Event;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use crate::service::queue::{Next, Receiver};

/// A password, token or the like: never shown, not in a log either.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The secret itself.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether none is set.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// This one, or if none is set the first line of `file`, if one is named.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn or_file(&self, file: &Path) -> Result<Self, String> {
        if !self.is_empty() || file.as_os_str().is_empty() {
            return Ok(self.clone());
        }
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(Self(text.lines().next().unwrap_or_default().to_owned()))
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "none" } else { "set" })
    }
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "password", "writeOnly": true })
    }
}

/// What a TLS client trusts: the authorities in the PEM file `ca`, or without one those of the system.
///
/// # Errors
/// There is none, or the file cannot be read.
pub(crate) fn tls_client(ca: &Path) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    if ca.as_os_str().is_empty() {
        let system = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(system.certs);
        if roots.is_empty() {
            return Err(
                "this system has no certificate authorities: install ca-certificates, or name a file (ca)".into()
            );
        }
    } else {
        let failed = |error: &dyn fmt::Display| format!("{}: {error}", ca.display());
        for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| failed(&error))? {
            roots.add(certificate.map_err(|error| failed(&error))?).map_err(|error| failed(&error))?;
        }
        if roots.is_empty() {
            return Err(format!("{}: no certificate in it", ca.display()));
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Events as they happen, or other news, for code that must not wait.
pub(crate) struct Events<T = Event> {
    receiver: Receiver<Arc<T>>,
    changed: Arc<Notify>,
}

impl<T> Events<T> {
    pub(crate) fn new(receiver: Receiver<Arc<T>>) -> Self {
        let changed = Arc::new(Notify::new());
        let wake = Arc::clone(&changed);
        receiver.on_change(move || wake.notify_one());
        Self { receiver, changed }
    }

    /// The next, or what happened instead; never [`Next::Empty`]. May be broken off and called again.
    pub(crate) async fn next(&self) -> Next<Arc<T>> {
        loop {
            match self.receiver.try_next() {
                Next::Empty => self.changed.notified().await,
                next => return next,
            }
        }
    }
}

/// What a part sent to others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Whether the last try went well.
    pub up: bool,
    /// Messages that arrived.
    pub sent: u64,
    /// Messages given up, or without room.
    pub lost: u64,
    /// Tries that failed.
    pub failures: u64,
    /// Messages that wait.
    pub queued: u64,
}

/// How long to wait after failures in a row: doubled each time, up to a bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    next: Duration,
    first: Duration,
    longest: Duration,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, first, longest }
    }

    /// It failed: the time to wait now.
    pub(crate) fn failed(&mut self) -> Duration {
        let now = self.next;
        self.next = self.next.saturating_mul(2).min(self.longest);
        now
    }

    /// It went well.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown_and_may_stand_in_a_file() {
        let secret = Secret::from("hunter2");
        assert_eq!(format!("{secret:?} {:?}", Secret::default()), "set none");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "from file\nmore\n").expect("written");
        assert_eq!(Secret::default().or_file(file.path()).expect("readable").reveal(), "from file");
        assert_eq!(secret.or_file(file.path()).expect("not even read").reveal(), "hunter2");
        assert!(Secret::default().or_file(Path::new("/nonexistent/x")).is_err());
    }

    #[test]
    fn the_wait_doubles_up_to_its_bound_and_starts_again() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let waits: Vec<u64> = (0..5).map(|_| backoff.failed().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
        backoff.reset();
        assert_eq!(backoff.failed().as_secs(), 1);
    }

    #[test]
    fn authorities_must_be_there() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(tls_client(file.path()).expect_err("nothing in it").contains("no certificate"));
    }
}
