//! Certificates of the servers: read at the start, and again when their files change, so that a renewed one needs no restart.
//!
//! New files that cannot be used are told of and leave the old certificate in force. Connections that are open keep theirs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use multus_child::Error;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// Where a server's certificate is.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// Begins every message: the part of the configuration, such as `web.tls`.
    pub(crate) part: &'static str,
    /// Chain of the server, PEM.
    pub(crate) certificate: PathBuf,
    /// Its private key, PEM.
    pub(crate) key: PathBuf,
    /// Authority of the certificates that clients may show; `None`: they show none.
    pub(crate) client_ca: Option<PathBuf>,
    /// What is spoken over it, as in ALPN.
    pub(crate) protocol: &'static [u8],
}

/// What accepts TLS connections, with the certificate as it is now.
pub(crate) struct Certificates {
    files: Files,
    current: RwLock<Arc<ServerConfig>>,
    looks: Mutex<Looks>,
}

#[derive(Debug, Default)]
struct Looks {
    /// The files that were read last, whether they could be used or not.
    tried: Vec<Stamp>,
    /// As they were at the last look: two files that are replaced one after the other are read when both have come to rest.
    seen: Vec<Stamp>,
}

/// Tells one state of a file from another; `None`: there is none.
type Stamp = Option<(SystemTime, u64, u64)>;

impl Certificates {
    /// # Errors
    /// A file cannot be read, or certificate and key do not belong together.
    pub(crate) fn load(files: Files) -> Result<Arc<Self>, Error> {
        let stamps = files.stamps();
        let current = RwLock::new(Arc::new(files.read()?));
        Ok(Arc::new(Self { files, current, looks: Mutex::new(Looks { tried: stamps.clone(), seen: stamps }) }))
    }

    /// For a connection that comes now.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Looks again and again, for ever.
    pub(crate) async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let own = Arc::clone(&self);
            // It only reads; were it to panic, the next look would come all the same.
            let _ = tokio::task::spawn_blocking(move || own.look()).await;
        }
    }

    /// Reads the files if they changed since they were read, and not since the last look.
    fn look(&self) {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.files.stamps();
        let at_rest = std::mem::replace(&mut looks.seen, now.clone()) == now;
        if !at_rest || looks.tried == now {
            return;
        }
        looks.tried = now;
        match self.files.read() {
            Ok(new) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                log::info!("{}: the certificate was renewed; new connections use it", self.files.part);
            }
            Err(error) => log::error!("{error}; the certificate that was read before stays in force"),
        }
    }
}

impl Files {
    /// Whether they can be used, as far as this user may look.
    ///
    /// # Errors
    /// As of [`Certificates::load`].
    pub(crate) fn check(&self) -> Result<(), Error> {
        let is_barred = |file: &PathBuf| {
            std::fs::File::open(file).is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
        };
        match self.all().any(is_barred) {
            true => Ok(()),
            false => self.read().map(drop),
        }
    }

    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()].into_iter().flatten()
    }

    fn stamps(&self) -> Vec<Stamp> {
        self.all().map(|file| stamp(file)).collect()
    }

    fn read(&self) -> Result<ServerConfig, Error> {
        let in_file = |path: &Path, error: &dyn fmt::Display| format!("{}: {}: {error}", self.part, path.display());
        let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, Error> {
            let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let all = all.map_err(|error| in_file(path, &error))?;
            if all.is_empty() {
                return Err(in_file(path, &"there is no certificate in it").into());
            }
            Ok(all)
        };
        let chain = certificates(&self.certificate)?;
        let private = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| in_file(&self.key, &error))?;
        let provider = Arc::new(ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                for root in certificates(ca)? {
                    roots.add(root).map_err(|error| in_file(ca, &error))?;
                }
                // A client without a certificate may be known by something else.
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| in_file(ca, &error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config =
            builder.with_single_cert(chain, private).map_err(|error| in_file(&self.certificate, &error))?;
        config.alpn_protocols = vec![self.protocol.to_vec()];
        Ok(config)
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("files", &self.files).finish_non_exhaustive()
    }
}

fn stamp(file: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt as _;
    let data = file.metadata().ok()?;
    Some((data.modified().ok()?, data.ino(), data.size()))
}

const LOOK: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::testing::{Authority, skip};

    fn files(dir: &Path) -> Files {
        let (certificate, key) = (dir.join("web.pem"), dir.join("web.key"));
        Files { part: "web.tls", certificate, key, client_ca: None, protocol: b"h2" }
    }

    #[test]
    fn files_that_would_end_the_program_are_found_by_the_check() {
        let temp = tempfile::tempdir().expect("a temporary directory can be made");
        let good = files(temp.path());
        let said = |files: &Files| files.check().expect_err("it cannot be used").to_string();
        assert!(said(&good).starts_with("web.tls: ") && said(&good).contains("web.pem"), "{}", said(&good));
        Authority::new("ours").sign(&good.certificate, &good.key);
        assert!(good.check().is_ok());
        let other = Files { key: temp.path().join("other.key"), ..good.clone() };
        Authority::new("ours").sign(&temp.path().join("other.pem"), &other.key);
        assert!(said(&other).contains("web.pem"), "they do not belong together: {}", said(&other));
        std::fs::write(&other.key, "nonsense").expect("own file");
        assert!(said(&other).contains("other.key"), "{}", said(&other));
        let ca = Files { client_ca: Some(temp.path().join("ca.pem")), ..good };
        assert!(said(&ca).contains("ca.pem"), "{}", said(&ca));
    }

    #[test]
    fn a_key_that_only_the_program_may_read_is_no_mistake() {
        let test = "a_key_that_only_the_program_may_read_is_no_mistake";
        if nix::unistd::Uid::effective().is_root() {
            return skip(test, "root may read everything");
        }
        let temp = tempfile::tempdir().expect("a temporary directory can be made");
        let files = files(temp.path());
        Authority::new("ours").sign(&files.certificate, &files.key);
        std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o0)).expect("own file");
        assert!(files.check().is_ok());
    }
}
