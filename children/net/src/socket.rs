//! Sockets that send through one interface only.

use std::io;
use std::net::SocketAddr;

/// A socket that sends to `address`, and through `interface` only where one is given. Waits for nothing.
///
/// # Errors
/// No such socket, no such interface, or no route; the text says which.
pub fn bound(
    address: SocketAddr,
    kind: socket2::Type,
    protocol: socket2::Protocol,
    interface: Option<&str>,
) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), kind.nonblocking(), Some(protocol))?;
    if interface.is_some() {
        let bound = socket.bind_device(interface.map(str::as_bytes));
        bound.map_err(|error| io::Error::new(error.kind(), not_through(interface, &error)))?;
    }
    socket.connect(&address.into())?;
    Ok(socket)
}

/// Why nothing can be sent through an interface, in words.
pub fn not_through(interface: Option<&str>, error: &io::Error) -> String {
    let interface = interface.unwrap_or_default();
    // ENODEV, see socket(7) and errno(3).
    if error.raw_os_error() == Some(19) {
        format!("there is no interface {interface}")
    } else {
        format!("cannot send through {interface}: {error}")
    }
}
