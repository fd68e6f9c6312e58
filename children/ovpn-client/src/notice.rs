//! What openvpn says on its management socket, see management-notes.txt of openvpn.

/// One line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// `>STATE:time,name,description,address,server,port,...`, or such a line as the answer to `state`.
    State { name: String, description: String, address: String, server: String },
    /// `>BYTECOUNT:in,out`
    Bytes { received: u64, sent: u64 },
    /// `>PASSWORD:Verification Failed: ...`
    AuthFailed { reason: String },
    /// `>PASSWORD:Need ...`: nobody is there to type it.
    PasswordNeeded { what: String },
    /// `>FATAL:...`
    Fatal { reason: String },
    /// Anything else: it is alive.
    Other,
}

/// Never fails: what is not understood is [`Notice::Other`].
pub fn parse(line: &str) -> Notice {
    let Some((kind, rest)) = line.strip_prefix('>').and_then(|line| line.split_once(':')) else {
        return Notice::Other;
    };
    match kind {
        "STATE" => {
            let mut fields = rest.split(',').skip(1).map(str::to_owned);
            let mut next = || fields.next().unwrap_or_default();
            let (name, description, address, server, port) = (next(), next(), next(), next(), next());
            let server = if server.is_empty() || port.is_empty() { server } else { format!("{server}:{port}") };
            Notice::State { name, description, address, server }
        }
        "BYTECOUNT" => match rest.split_once(',').map(|(received, sent)| (received.parse(), sent.parse())) {
            Some((Ok(received), Ok(sent))) => Notice::Bytes { received, sent },
            _ => Notice::Other,
        },
        "PASSWORD" => match rest.strip_prefix("Verification Failed: ") {
            Some(reason) => Notice::AuthFailed { reason: reason.to_owned() },
            None => match rest.strip_prefix("Need ") {
                Some(what) => Notice::PasswordNeeded { what: what.to_owned() },
                None => Notice::Other,
            },
        },
        "FATAL" => Notice::Fatal { reason: rest.to_owned() },
        _ => Notice::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_openvpn_are_understood_and_others_do_no_harm() {
        let state = |name: &str, description: &str, address: &str, server: &str| Notice::State {
            name: name.into(),
            description: description.into(),
            address: address.into(),
            server: server.into(),
        };
        for (line, expected) in [
            (
                ">STATE:1700000000,CONNECTED,SUCCESS,10.8.0.2,192.0.2.1,1194,,",
                state("CONNECTED", "SUCCESS", "10.8.0.2", "192.0.2.1:1194"),
            ),
            (">STATE:1700000000,RECONNECTING,ping-restart,,,,,", state("RECONNECTING", "ping-restart", "", "")),
            (">STATE:", state("", "", "", "")),
            (">BYTECOUNT:12,34", Notice::Bytes { received: 12, sent: 34 }),
            (">BYTECOUNT:-1,x", Notice::Other),
            (">PASSWORD:Verification Failed: 'Auth'", Notice::AuthFailed { reason: "'Auth'".into() }),
            (">PASSWORD:Need 'Private Key' password", Notice::PasswordNeeded { what: "'Private Key' password".into() }),
            (">FATAL:all TAP adapters are in use", Notice::Fatal { reason: "all TAP adapters are in use".into() }),
            (">HOLD:Waiting for hold release:0", Notice::Other),
            ("SUCCESS: pid=17", Notice::Other),
            ("", Notice::Other),
            (">", Notice::Other),
        ] {
            assert_eq!(parse(line), expected, "{line}");
        }
    }
}
