//! A port that stays open when the configuration is read anew: whoever connects meanwhile waits, and a configuration whose port is
//! taken by somebody else does not cost the one that works.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::Error;

/// A port on which connections are taken.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    /// `None`: it is to be opened when the one before it is closed.
    listener: Option<TcpListener>,
}

impl Port {
    /// Opens it.
    ///
    /// # Errors
    /// It is taken, or the address is not one of this machine.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let mut port = Self { address, listener: None };
        port.open_now()?;
        Ok(port)
    }

    /// The port of a new configuration while that of the old one is open: the same, another, or, where both cannot be open at one
    /// time (another address and the same number), one that is due.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn after(old: Option<&Self>, address: SocketAddr) -> io::Result<Self> {
        if let Some(listener) = old.filter(|old| old.address == address).and_then(|old| old.listener.as_ref()) {
            return Ok(Self { address, listener: Some(listener.try_clone()?) });
        }
        let is_old = old.is_some_and(|old| old.address.port() == address.port());
        match Self::open(address) {
            Err(error) if is_old && error.kind() == io::ErrorKind::AddrInUse => Ok(Self { address, listener: None }),
            opened => opened,
        }
    }

    /// Hands over to the port of the next configuration, which may be due. `false`: that is taken, which is told, and the own one is
    /// open again.
    ///
    /// # Errors
    /// The own one cannot be opened again.
    pub fn hand_over(own: &mut Option<Self>, next: &mut Option<Self>) -> Result<bool, Error> {
        let Some(next) = next.as_mut().filter(|next| next.is_due()) else { return Ok(true) };
        own.iter_mut().for_each(Self::close);
        let Err(error) = next.open_now() else { return Ok(true) };
        log::error!("cannot listen on {}: {error}; going on with the previous configuration", next.address);
        if let Some(own) = own {
            own.open_now().map_err(|error| format!("cannot listen on {}: {error}", own.address))?;
        }
        Ok(false)
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it is to be opened when the one before it is closed.
    fn is_due(&self) -> bool {
        self.listener.is_none()
    }

    /// Opens it, if it is not open.
    fn open_now(&mut self) -> io::Result<()> {
        if self.listener.is_none() {
            let listener = TcpListener::bind(self.address)?;
            listener.set_nonblocking(true)?;
            self.listener = Some(listener);
        }
        Ok(())
    }

    /// Closes it, as far as nobody else holds it.
    fn close(&mut self) {
        self.listener = None;
    }

    /// What takes the connections, for asynchronous use.
    ///
    /// # Errors
    /// It is not open, or there is no file descriptor.
    pub fn listener(&self) -> io::Result<TcpListener> {
        self.listener.as_ref().ok_or(io::ErrorKind::NotConnected)?.try_clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn the_same_port_stays_open_and_another_one_is_opened_beside_it() {
        let old = Port::open(here(0)).expect("a free port");
        let number = old.listener().and_then(|listener| listener.local_addr()).expect("bound").port();
        let old = Port { address: here(number), ..old };
        let same = Port::after(Some(&old), here(number)).expect("the same");
        drop(old);
        std::net::TcpStream::connect(here(number)).expect("it was never closed");
        let other = Port::after(Some(&same), here(0)).expect("another");
        assert!(!other.is_due() && other.address() == here(0));
        assert!(Port::after(Some(&other), here(number)).is_err(), "somebody else has it");
        assert!(Port::after(None, here(number)).is_err());
    }

    #[test]
    fn another_address_of_the_same_number_has_its_turn_when_the_old_one_is_closed() {
        let mut old = Port::open(here(0)).expect("a free port");
        let number = old.listener().and_then(|listener| listener.local_addr()).expect("bound").port();
        old.address = here(number);
        let all = SocketAddr::from(([0, 0, 0, 0], number));
        let mut new = Port::after(Some(&old), all).expect("later");
        assert!(new.is_due() && new.listener().is_err() && new.open_now().is_err());
        old.close();
        assert!(old.is_due());
        new.open_now().expect("free");
        assert!(!new.is_due() && old.open_now().is_err());
        std::net::TcpStream::connect(here(number)).expect("open");
    }

    #[test]
    fn a_port_that_is_taken_meanwhile_leaves_the_old_one_open() {
        let number = |listener: &TcpListener| listener.local_addr().expect("bound").port();
        let first = Port::open(here(0)).expect("a free port");
        let own = number(&first.listener().expect("open"));
        let mut old = Some(Port { address: here(own), ..first });
        assert!(Port::hand_over(&mut old, &mut None).expect("nothing is due"));
        // Due, and taken by somebody else than the one before.
        let taken = TcpListener::bind(here(0)).expect("a free port");
        let address = here(number(&taken));
        let mut next = Some(Port { address, listener: None });
        assert!(!Port::hand_over(&mut old, &mut next).expect("the old one is open again"));
        std::net::TcpStream::connect(here(own)).expect("open");
        drop(taken);
        assert!(Port::hand_over(&mut old, &mut next).expect("free"));
        assert!(next.is_some_and(|next| !next.is_due()) && old.is_some_and(|old| old.is_due()));
    }
}
