//! Who may set outputs: tokens, certificates, addresses.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::world::{Device, Plan, free_port, here, receiver, sender};

const TOKEN: &str = "0123456789abcdefghijklmnop";
const OTHER_TOKEN: &str = "0123456789abcdefghijklmnoq";

/// An authority of certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).expect("no names");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("random numbers");
        Self(CertifiedIssuer::self_signed(parameters, key).expect("a good request"))
    }

    fn pem(&self) -> String {
        self.0.as_ref().pem()
    }

    /// Certificate and key.
    fn issue(&self, common_name: &str) -> (String, String) {
        let mut parameters = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
        parameters.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().expect("random numbers");
        let certificate = parameters.signed_by(&key, &self.0).expect("a good request");
        (certificate.pem(), key.serialize_pem())
    }
}

/// A sender whose way to the receiver has further keys.
fn from(own: u16, other: u16, keys: &str) -> Plan {
    Plan::new(sender("pump", own, "multus", &[here(other)]) + keys)
}

#[test]
fn a_token_opens_and_a_wrong_one_does_not() {
    let port = free_port();
    let to = Device::new(Plan::new(receiver(port, "pump", "token = \"token\"")).file("token", &format!("{TOKEN}\n")));
    let keys = "token = \"token\"\n";
    for (text, reason) in [(Some(OTHER_TOKEN), "it shows a wrong token"), (None, "it shows no token")] {
        let own = free_port();
        let plan = match text {
            Some(text) => from(own, port, keys).file("token", text),
            None => from(own, port, ""),
        };
        let stranger = Device::new(plan);
        stranger.pull(1, true);
        let peer = stranger.until_peer(own, &here(port), "refused");
        assert_eq!(peer.detail, "the receiver knows no such sender, or not with what it shows");
        to.until_log(reason);
        assert_ne!(to.output(1), Some(true));
    }
    let own = free_port();
    let known = Device::new(from(own, port, keys).file("token", TOKEN));
    known.pull(1, true);
    to.until_output(1, true);
    for log in [to.log(), known.log()] {
        assert!(!log.contains(TOKEN) && !log.contains(OTHER_TOKEN), "{log}");
    }
}

#[test]
fn secrets_that_others_may_read_are_refused() {
    let mut plan = Plan::new(receiver(free_port(), "pump", "token = \"token\""));
    plan.files.push(("token".into(), TOKEN.into(), 0o644));
    let device = Device::start(plan);
    device.until_log("receiver.senders[0].token");
    device.until_log("others may read it (mode 0644); chmod 600");
    assert!(!device.log().contains(TOKEN));
    for text in ["short", "a token with blanks in it", ""] {
        let plan = Plan::new(receiver(free_port(), "pump", "token = \"token\"")).file("token", text);
        let device = Device::start(plan);
        device.until_log("expected one line of 16 to 256 letters, digits and signs");
    }
    let device = Device::start(Plan::new(receiver(free_port(), "pump", "token = \"token\"")));
    device.until_log("cannot be read: No such file or directory");
}

#[test]
fn certificates_of_both_sides_are_looked_at() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let port = free_port();
    let (certificate, key) = authority.issue("box");
    let parameters = receiver(port, "pump", "certificate = \"pump-house\"").replace(
        "[[receiver",
        "[receiver]\ncertificate = \"own.pem\"\nkey = \"own.key\"\nclient_ca = \"ca.pem\"\n[[receiver",
    );
    let to = Device::new(
        Plan::new(parameters).file("own.pem", &certificate).file("own.key", &key).file("ca.pem", &authority.pem()),
    );
    let keys = "ca = \"ca.pem\"\ncertificate = \"own.pem\"\nkey = \"own.key\"\n";
    let with = |own: u16, ca: &Authority, issuer: &Authority, name: &str| {
        let (certificate, key) = issuer.issue(name);
        from(own, port, keys).file("ca.pem", &ca.pem()).file("own.pem", &certificate).file("own.key", &key)
    };
    // The name of somebody else; none at all; in plain text.
    for (own, plan) in [free_port(), free_port(), free_port()].into_iter().zip(0..) {
        let plan = match plan {
            0 => with(own, &authority, &authority, "windmill"),
            1 => from(own, port, "ca = \"ca.pem\"\n").file("ca.pem", &authority.pem()),
            _ => from(own, port, ""),
        };
        let stranger = Device::new(plan);
        stranger.pull(1, true);
        stranger.until_peer(own, &here(port), "refused");
    }
    to.until_log("it does not show the certificate of this sender");
    // Somebody else's authority, of the sender and of the receiver.
    let own = free_port();
    let stranger = Device::new(with(own, &authority, &foreign, "pump-house"));
    to.until_log("came to nothing");
    stranger.until_peer(own, &here(port), "connecting");
    let own = free_port();
    let careful = Device::new(with(own, &foreign, &authority, "pump-house"));
    careful.until("it does not trust the receiver", |careful| {
        careful.peers(own).first().is_some_and(|peer| peer.detail.contains("invalid peer certificate"))
    });
    assert_ne!(to.output(1), Some(true));
    let own = free_port();
    let known = Device::new(with(own, &authority, &authority, "pump-house"));
    known.pull(1, true);
    to.until_output(1, true);
    known.pull(1, false);
    to.until_output(1, false);
}

#[test]
fn a_token_in_plain_text_is_refused_where_there_is_tls() {
    let authority = Authority::new();
    let port = free_port();
    let (certificate, key) = authority.issue("box");
    let parameters = receiver(port, "pump", "token = \"token\"")
        .replace("[[receiver", "[receiver]\ncertificate = \"own.pem\"\nkey = \"own.key\"\n[[receiver");
    let plan = Plan::new(parameters).file("own.pem", &certificate).file("own.key", &key).file("token", TOKEN);
    let to = Device::new(plan);
    let own = free_port();
    let plain = Device::new(from(own, port, "token = \"token\"\n").file("token", TOKEN));
    plain.pull(1, true);
    plain.until_peer(own, &here(port), "refused");
    to.until_log("it shows its token in plain text, and this port takes TLS");
    assert_ne!(to.output(1), Some(true));
    let own = free_port();
    let keys = "token = \"token\"\nca = \"ca.pem\"\n";
    let known = Device::new(from(own, port, keys).file("token", TOKEN).file("ca.pem", &authority.pem()));
    known.pull(1, true);
    to.until_output(1, true);
}

#[test]
fn another_name_and_another_protocol_are_strangers() {
    let port = free_port();
    let to = Device::new(Plan::new(receiver(port, "pump", "")));
    let own = free_port();
    let stranger = Device::new(Plan::new(sender("windmill", own, "multus", &[here(port)])));
    stranger.pull(1, true);
    stranger.until_peer(own, &here(port), "refused");
    to.until_log("says it is \"windmill\" and is refused: there is no sender of this name");
    let own = free_port();
    let old = Device::new(Plan::new(sender("pump", own, "legacy", &[here(port)])));
    old.pull(1, true);
    let peer = old.until_peer(own, &here(port), "refused");
    assert_eq!(peer.detail, "this address may not set anything here");
    assert_ne!(to.output(1), Some(true));
}
