//! Request pages come from the core over a socket: one for each process that owns outputs, when it is made, and word when it
//! is gone. All that takes time (mapping, unmapping) is done here, on a thread of its own.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::Duration;

use multus_ipc::descriptor;
use multus_ipc::io::RequestReader;
use multus_ipc::map::Mapping;
use rtrb::{Consumer, Producer};

/// An owner's new page, or none: its process is gone.
#[derive(Debug)]
pub struct Arrival {
    /// Number of the owner.
    pub owner: usize,
    /// Its page, checked.
    pub page: Option<Mapping>,
}

/// The scan's end.
#[derive(Debug)]
pub struct Pages {
    /// Pages that arrived.
    pub arrivals: Consumer<Arrival>,
    /// Pages that are no longer used, to be unmapped elsewhere.
    pub graveyard: Producer<Mapping>,
}

/// Takes pages from now on. `owners` are the names of the child instances that own outputs.
///
/// # Errors
/// No thread to be had.
pub fn start(socket: OwnedFd, owners: Vec<String>) -> io::Result<Pages> {
    let (mut arrived, arrivals) = rtrb::RingBuffer::new(ROOM);
    let (graveyard, mut dead) = rtrb::RingBuffer::<Mapping>::new(ROOM);
    thread::Builder::new().name("requests".into()).spawn(move || {
        loop {
            let received = descriptor::receive(socket.as_fd());
            while dead.pop().is_ok() {}
            let (introduction, page) = match received {
                Ok(Some(message)) => message,
                Ok(None) => {
                    log::warn!("multusd has closed the socket for request pages");
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    log::warn!("from multusd: {error}");
                    continue;
                }
                Err(error) => {
                    log::error!("no further request pages: {error}");
                    return;
                }
            };
            let name = introduction.name.to_string();
            let Some(owner) = owners.iter().position(|owner| *owner == name) else { continue };
            let page = page.filter(|_| introduction.generation != 0);
            let page = page.and_then(|page| match mapped(&page) {
                Ok(page) => Some(page),
                Err(error) => {
                    log::error!("the request page of {name}: {error}; its requests are not seen");
                    None
                }
            });
            let mut arrival = Arrival { owner, page };
            // The scan empties it every turn.
            while let Err(rtrb::PushError::Full(back)) = arrived.push(arrival) {
                arrival = back;
                thread::sleep(Duration::from_millis(1));
            }
        }
    })?;
    Ok(Pages { arrivals, graveyard })
}

fn mapped(page: &OwnedFd) -> io::Result<Mapping> {
    let page = Mapping::read_only(page.as_fd())?;
    RequestReader::new(page.words()).map_err(|refused| io::Error::new(io::ErrorKind::InvalidData, refused))?;
    Ok(page)
}

const ROOM: usize = 64;
