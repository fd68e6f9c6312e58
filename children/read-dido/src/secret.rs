//! Tokens, certificates and keys: read at the start and when the configuration is read anew. What is secret is never shown, and
//! a file that others may read is refused.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use multus_child::{Context, Error, TextFile};
use subtle::ConstantTimeEq as _;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::config::{Receiver, Remote};

/// What both ends know.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Token {
    /// `None`: none is named.
    ///
    /// # Errors
    /// The file cannot be read, others may read it, or it is no token.
    pub(crate) fn load(key: &str, file: &TextFile, context: &Context) -> Result<Option<Self>, Error> {
        let Some(path) = file.path(context) else { return Ok(None) };
        let text = secret(key, &path)?;
        let token = text.trim_ascii();
        let is_good = (16..=256).contains(&token.len()) && token.bytes().all(|letter| letter.is_ascii_graphic());
        if !is_good {
            let wanted = "expected one line of 16 to 256 letters, digits and signs";
            return Err(format!("{key}: {}: {wanted}", path.display()).into());
        }
        Ok(Some(Self(token.to_owned())))
    }

    /// Those of all senders that are known.
    ///
    /// # Errors
    /// One of them cannot be used.
    pub(crate) fn of_senders(config: &Receiver, context: &Context) -> Result<Vec<Option<Self>>, Error> {
        let senders = config.senders.iter().enumerate();
        senders
            .map(|(index, known)| Self::load(&format!("receiver.senders[{index}].token"), &known.token, context))
            .collect()
    }

    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Whether somebody shows it. Takes as long for any other of the same length.
    pub(crate) fn is(&self, shown: &str) -> bool {
        self.0.as_bytes().ct_eq(shown.as_bytes()).into()
    }

    /// For the header that shows it.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// For a connection to this receiver; `None`: plain text.
///
/// # Errors
/// A file cannot be read, or others may read the key.
pub(crate) fn client_tls(key: &str, remote: &Remote, context: &Context) -> Result<Option<ClientTlsConfig>, Error> {
    let Some(ca) = remote.ca.path(context) else { return Ok(None) };
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(text(&format!("{key}.ca"), &ca)?));
    if !remote.server_name.is_empty() {
        tls = tls.domain_name(&remote.server_name);
    }
    if let (Some(certificate), Some(private)) = (remote.certificate.path(context), remote.key.path(context)) {
        let certificate = text(&format!("{key}.certificate"), &certificate)?;
        tls = tls.identity(Identity::from_pem(certificate, secret(&format!("{key}.key"), &private)?));
    }
    Ok(Some(tls))
}

/// For connections of senders; `None`: plain text.
///
/// # Errors
/// A file cannot be read, others may read the key, or certificate and key do not belong together.
pub(crate) fn acceptor(config: &Receiver, context: &Context) -> Result<Option<TlsAcceptor>, Error> {
    let (Some(own), Some(private)) = (config.certificate.path(context), config.key.path(context)) else {
        return Ok(None);
    };
    let chain = certificates("receiver.certificate", &own)?;
    let in_key = |error: &dyn fmt::Display| format!("receiver.key: {}: {error}", private.display());
    let pem = secret("receiver.key", &private)?;
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| in_key(&error))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match config.client_ca.path(context) {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let wrong = |error: &dyn fmt::Display| format!("receiver.client_ca: {}: {error}", ca.display());
            let mut roots = RootCertStore::empty();
            for root in certificates("receiver.client_ca", &ca)? {
                roots.add(root).map_err(|error| wrong(&error))?;
            }
            // A sender without a certificate may be known by a token.
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated();
            builder.with_client_cert_verifier(verifier.build().map_err(|error| wrong(&error))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| in_key(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = text(key, path)?;
    let all = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|error| format!("{key}: {}: {error}", path.display()))?;
    if all.is_empty() {
        return Err(format!("{key}: {}: there is no certificate in it", path.display()).into());
    }
    Ok(all)
}

fn text(key: &str, path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|error| format!("{key}: {}: cannot be read: {error}", path.display()).into())
}

fn secret(key: &str, path: &Path) -> Result<String, Error> {
    let mode = fs::metadata(path).map_or(0, |data| data.permissions().mode());
    if mode & 0o077 != 0 {
        let path = path.display();
        return Err(format!("{key}: {path}: others may read it (mode {:04o}); chmod 600 {path}", mode & 0o7777).into());
    }
    text(key, path)
}
