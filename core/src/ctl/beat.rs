//! `multusctl beat` and `multusctl ready`: the heartbeat of a shell script.
//!
//! Works for a child with a heartbeat page (the script passes its descriptor on to what it calls, as shells do) and for one
//! that speaks sd_notify. In a script that nobody supervises both do nothing, so that it also runs by hand.

use std::os::unix::net::UnixDatagram;

use multus_ipc::child::Heartbeat;

use super::output::Failure;

/// What is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// The work loop has come round.
    Beat,
    /// Set-up is done.
    Ready,
}

pub(crate) fn say(word: Word) -> Result<(), Failure> {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET") {
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
    }
    Ok(())
}

fn notify(socket: &std::ffi::OsStr, word: Word) -> std::io::Result<()> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::ffi::OsStrExt as _;
    let text: &[u8] = match word {
        Word::Beat => b"WATCHDOG=1",
        Word::Ready => b"READY=1",
    };
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
