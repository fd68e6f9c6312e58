//! `multusctl beat`, `ready`, `say` and `notice`: the heartbeat of a shell script.
//!
//! Works for a child with a heartbeat page (the script passes its descriptor on to what it calls, as shells do) and for one
//! that speaks sd_notify. In a script that nobody supervises all do nothing, so that it also runs by hand.

use std::os::unix::net::UnixDatagram;

use multus_ipc::child::Heartbeat;

use super::output::Failure;

/// What is said.
#[derive(Debug)]
pub(crate) enum Word {
    /// The work loop has come round.
    Beat,
    /// Set-up is done.
    Ready,
    /// How it is.
    Say(String),
    /// What happened.
    Notice(String),
}

pub(crate) fn say(word: &Word) -> Result<(), Failure> {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET") {
        if let Word::Notice(_) = word {
            return Err(Failure::Message(
                "sd_notify has no notices: use method = \"shared-memory\", or multusctl say".to_owned(),
            ));
        }
        return notify(&socket, word)
            .map_err(|error| Failure::Message(format!("NOTIFY_SOCKET={}: {error}", socket.display())));
    }
    let heartbeat = Heartbeat::try_from_env().map_err(|error| {
        Failure::Message(format!(
            "{error}; call multusctl from the script that multusd started, not from a subprocess \
                                  that closes its descriptors"
        ))
    })?;
    match word {
        Word::Beat => heartbeat.beat(),
        Word::Ready => heartbeat.ready(),
        Word::Say(text) => heartbeat.voice().status(text),
        Word::Notice(text) => heartbeat.voice().notice(text),
    }
    Ok(())
}

fn notify(socket: &std::ffi::OsStr, word: &Word) -> std::io::Result<()> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::ffi::OsStrExt as _;
    let text = match word {
        Word::Beat => "WATCHDOG=1".to_owned(),
        Word::Ready => "READY=1".to_owned(),
        Word::Say(text) | Word::Notice(text) => format!("STATUS={}", text.replace('\n', " ")),
    };
    let text = text.as_bytes();
    let sender = UnixDatagram::unbound()?;
    match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => {
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            sender.send_to_addr(text, &address)?;
        }
        None => {
            sender.send_to(text, socket)?;
        }
    }
    Ok(())
}
