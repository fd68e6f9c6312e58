//! Pages of inputs and outputs on their way to those who use them: the image to every child, a request page to each process
//! that owns outputs, and to multus-io word of all request pages there are.
//!
//! multus-io may be started anew at any time, and then is told of all pages again. One that does not take them out of its
//! socket holds up nobody: what it has not been told waits here.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use multus_ipc::descriptor::{self, Introduction};
use multus_ipc::io::{OPERATOR, REQUEST_WORDS, request_header};
use multus_ipc::map;
use multus_ipc::text::Name;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::guard::Shared;

/// The pages, and the way to multus-io.
#[derive(Debug)]
pub struct Lines {
    /// The image, for writing.
    pub image: OwnedFd,
    /// The image, for reading only.
    pub view: OwnedFd,
    /// The force page, sealed against writing.
    pub force: OwnedFd,
    /// The request page of people.
    pub operator: OwnedFd,
    /// Who has the native outputs open.
    pub guard: Arc<Shared>,
    socket: Option<OwnedFd>,
    waiting: VecDeque<(Introduction, Option<OwnedFd>)>,
}

impl Lines {
    /// Of these pages; multus-io is not there yet.
    pub fn new(image: OwnedFd, view: OwnedFd, force: OwnedFd, operator: OwnedFd, guard: Arc<Shared>) -> Self {
        Self { image, view, force, operator, guard, socket: None, waiting: VecDeque::new() }
    }

    /// The native outputs for a new multus-io; /dev/null if there are none to give.
    pub(super) fn outputs(&self) -> io::Result<OwnedFd> {
        match self.guard.hand_out() {
            Some(outputs) => Ok(outputs),
            None => Ok(File::open("/dev/null")?.into()),
        }
    }

    /// A new way to multus-io; returns its end. Whoever was there before is told nothing any more.
    pub(super) fn connect(&mut self) -> io::Result<OwnedFd> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        self.socket = Some(ours);
        self.waiting.clear();
        let people = Introduction { slot: u32::MAX, generation: 1, name: Name::new(OPERATOR) };
        self.waiting.push_back((people, Some(self.operator.try_clone()?)));
        Ok(theirs)
    }

    /// Tells multus-io, as far as it listens.
    pub(super) fn introduce(&mut self, pages: impl IntoIterator<Item = (Introduction, Option<OwnedFd>)>) {
        if self.socket.is_some() {
            self.waiting.extend(pages);
            self.send();
        }
    }

    /// Goes on with what could not be sent.
    pub(super) fn send(&mut self) {
        let Some(socket) = &self.socket else { return };
        while let Some((introduction, page)) = self.waiting.front() {
            match descriptor::send(socket.as_fd(), introduction, page.as_ref().map(AsFd::as_fd)) {
                Ok(()) => {
                    self.waiting.pop_front();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // It is gone; the next one is told everything anew.
                Err(_) => {
                    self.socket = None;
                    self.waiting.clear();
                    return;
                }
            }
        }
    }

    /// Whether something waits.
    pub(super) fn lags(&self) -> bool {
        !self.waiting.is_empty()
    }
}

/// A process has this page.
pub(super) fn introduction(
    slot: usize,
    name: &str,
    generation: u32,
    page: &OwnedFd,
) -> (Introduction, Option<OwnedFd>) {
    let slot = u32::try_from(slot).unwrap_or(u32::MAX);
    (Introduction { slot, generation: generation.into(), name: Name::new(name) }, page.try_clone().ok())
}

/// The process is gone.
pub(super) fn farewell(slot: usize, name: &str) -> (Introduction, Option<OwnedFd>) {
    let slot = u32::try_from(slot).unwrap_or(u32::MAX);
    (Introduction { slot, generation: 0, name: Name::new(name) }, None)
}

/// An empty request page.
///
/// # Errors
/// No memory, no descriptors.
pub fn request_page() -> io::Result<OwnedFd> {
    let page = File::from(map::memfd(c"multus-requests", REQUEST_WORDS)?);
    let bytes: Vec<u8> = request_header().iter().flat_map(|word| word.to_le_bytes()).collect();
    page.write_all_at(&bytes, 0)?;
    Ok(page.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_scanner_is_told_of_people_first_and_of_every_page() {
        let page = || request_page().expect("memory");
        let mut lines = Lines::new(page(), page(), page(), page(), Arc::default());
        lines.introduce([farewell(1, "led")]);
        assert!(!lines.lags(), "nobody is there to be told");
        let theirs = lines.connect().expect("a pair");
        let own = page();
        lines.introduce([introduction(3, "modbus", 7, &own), farewell(3, "modbus")]);
        let told = || descriptor::receive(theirs.as_fd()).expect("a message").expect("one is there");
        let (people, page_of_people) = told();
        assert_eq!((people.name, page_of_people.is_some()), (Name::new(OPERATOR), true));
        let (modbus, page_of_modbus) = told();
        assert_eq!((modbus.slot, modbus.generation, page_of_modbus.is_some()), (3, 7, true));
        assert_eq!(told().0.generation, 0);
        drop(theirs);
        lines.introduce([farewell(3, "modbus")]);
        assert!(!lines.lags());
    }
}
