//! The ways to a target. Each is one try; time-outs and repetitions are above.

use std::path::PathBuf;
use std::process::Stdio;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use lettre::message::Mailbox;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::{Mail, Message, Security, Target};
use crate::outward::{Secret, tls_client};

type Outcome = Result<(), String>;

/// How a target is reached.
#[derive(Debug)]
pub(super) enum Way {
    Command(Vec<String>),
    Post { uri: Uri, host: String, port: u16, tls: bool, ca: PathBuf, authorization: Secret },
    Mail { mail: Mail, from: Mailbox, to: Vec<Mailbox>, ca: PathBuf },
}

impl Way {
    /// The one that the configuration asks for.
    pub(super) fn of(target: &Target) -> Result<Self, String> {
        let set = [!target.command.is_empty(), !target.url.is_empty(), !target.mail.server.is_empty()];
        match set {
            [true, false, false] if target.command[0].is_empty() => {
                Err("command: its first word may not be empty".into())
            }
            [true, false, false] => Ok(Self::Command(target.command.clone())),
            [false, true, false] => post(target),
            [false, false, true] => mail(target),
            _ => Err("command: exactly one of command, url and mail.server is needed".into()),
        }
    }

    pub(super) async fn deliver(&self, message: &Message) -> Outcome {
        match self {
            Self::Command(words) => run(words, message).await,
            Self::Post { uri, host, port, tls, ca, authorization } => {
                let stream =
                    TcpStream::connect((host.as_str(), *port)).await.map_err(|e| format!("{host}:{port}: {e}"))?;
                if *tls {
                    let name = ServerName::try_from(host.clone()).map_err(|_| format!("{host:?} is no name"))?;
                    let connector = TlsConnector::from(tls_client(ca)?);
                    let stream = connector.connect(name, stream).await.map_err(|e| format!("{host}:{port}: {e}"))?;
                    send(TokioIo::new(stream), uri, authorization, message).await
                } else {
                    send(TokioIo::new(stream), uri, authorization, message).await
                }
            }
            Self::Mail { mail, from, to, ca } => send_mail(mail, from, to, ca, message).await,
        }
    }
}

fn body(message: &Message) -> String {
    json!({ "site": message.site, "text": message.text(), "suppressed": message.suppressed, "event": message.event })
        .to_string()
}

/// A program with the event on its standard input. It and all it started are killed when nobody waits any more.
async fn run(words: &[String], message: &Message) -> Outcome {
    let program = &words[0];
    let failed = |error: &dyn std::fmt::Display| format!("{program}: {error}");
    let mut command = tokio::process::Command::new(program);
    command.args(&words[1..]).env_clear().process_group(0).kill_on_drop(true);
    // Not what this process was given by the daemon: a heartbeat is nobody else's.
    let passed_on = ["PATH", "HOME", "LANG", "TZ"];
    command.envs(passed_on.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    let _group = Group(child.id().and_then(|id| i32::try_from(id).ok()));
    if let Some(mut input) = child.stdin.take() {
        // One that does not read is free to.
        let text = serde_json::to_string(&message.event).unwrap_or_default() + "\n";
        let _ = input.write_all(text.as_bytes()).await;
    }
    let status = child.wait().await.map_err(|error| failed(&error))?;
    if status.success() { Ok(()) } else { Err(failed(&status)) }
}

/// The process group of a command, which ends with its use.
struct Group(Option<i32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            // The leader may have been collected; its number stays taken for as long as somebody is in the group.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

fn post(target: &Target) -> Result<Way, String> {
    // The text of an error might hold a URL with a secret in it.
    let uri: Uri = target.url.parse().map_err(|_| "url: expected http:// or https:// with a name".to_owned())?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err("url: expected http:// or https://".into()),
    };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    if host.is_empty() {
        return Err("url: it names no server".into());
    }
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let (ca, authorization) = (target.ca.clone(), target.authorization.clone());
    Ok(Way::Post { uri, host, port, tls, ca, authorization })
}

async fn send<T>(stream: TokioIo<T>, uri: &Uri, authorization: &Secret, message: &Message) -> Outcome
where
    TokioIo<T>: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let host = uri.authority().map_or("", |authority| authority.as_str());
    // Not a name and a password that stand in front.
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::post(path)
        .header("host", host)
        .header("content-type", "application/json")
        .header("user-agent", concat!("multus-control/", env!("CARGO_PKG_VERSION")));
    if !authorization.is_empty() {
        request = request.header("authorization", authorization.reveal());
    }
    let request = request.body(Full::new(Bytes::from(body(message)))).map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        if status.is_success() { Ok(()) } else { Err(format!("the server said {status}")) }
    };
    // What else comes does not matter: the connection ends with the answer.
    tokio::pin!(exchange, connection);
    tokio::select! {
        outcome = &mut exchange => outcome,
        // The answer may have come before the connection broke.
        ended = &mut connection => exchange.await.map_err(|reason| ended.map_or_else(|e| e.to_string(), |()| reason)),
    }
}

fn mail(target: &Target) -> Result<Way, String> {
    let mail = target.mail.clone();
    let address = |text: &str| text.parse::<Mailbox>().map_err(|error| format!("{text:?}: {error}"));
    let from = address(&mail.from).map_err(|error| format!("mail.from: {error}"))?;
    let to: Vec<Mailbox> =
        mail.to.iter().map(|to| address(to)).collect::<Result<_, _>>().map_err(|error| format!("mail.to: {error}"))?;
    if to.is_empty() {
        return Err("mail.to: at least one address is needed".into());
    }
    if mail.security == Security::None && !mail.user.is_empty() {
        return Err("mail.security: a password is not sent in the clear: use starttls or tls".into());
    }
    Ok(Way::Mail { mail, from, to, ca: target.ca.clone() })
}

async fn send_mail(mail: &Mail, from: &Mailbox, to: &[Mailbox], ca: &PathBuf, message: &Message) -> Outcome {
    let mut letter = lettre::Message::builder().from(from.clone()).subject(message.subject());
    for to in to {
        letter = letter.to(to.clone());
    }
    let letter = letter.body(message.text() + "\n").map_err(|error| error.to_string())?;
    let parameters = || -> Result<TlsParameters, String> {
        let mut parameters = TlsParameters::builder(mail.server.clone());
        if !ca.as_os_str().is_empty() {
            let pem = std::fs::read(ca).map_err(|error| format!("{}: {error}", ca.display()))?;
            let trusted = Certificate::from_pem(&pem).map_err(|error| format!("{}: {error}", ca.display()))?;
            parameters = parameters.add_root_certificate(trusted);
        }
        parameters.build_rustls().map_err(|error| error.to_string())
    };
    let (tls, port) = match mail.security {
        Security::Starttls => (Tls::Required(parameters()?), 587),
        Security::Tls => (Tls::Wrapper(parameters()?), 465),
        Security::None => (Tls::None, 25),
    };
    let port = if mail.port == 0 { port } else { mail.port };
    let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&mail.server).port(port).tls(tls);
    if !mail.user.is_empty() {
        let password = mail.password.or_file(&mail.password_file)?;
        transport = transport.credentials(Credentials::new(mail.user.clone(), password.reveal().to_owned()));
    }
    let sent = transport.build().send(letter).await;
    sent.map(drop).map_err(|error| match std::error::Error::source(&error) {
        Some(source) => format!("{}: {error}: {source}", mail.server),
        None => format!("{}: {error}", mail.server),
    })
}
