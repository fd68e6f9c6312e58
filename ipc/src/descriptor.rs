//! Descriptors of pages on their way between processes: through the environment of a new one, or over a socket to one
//! that runs. One of the rooms of this crate with `unsafe`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::text::Name;

/// The descriptor whose number is in the environment variable `name`; `None` when it is not set.
///
/// It is duplicated, not taken, so that a number that belongs to somebody else in this process cannot be closed from here.
/// Both are closed on exec: the page is not for programs that this one starts.
///
/// # Errors
/// What stands there is no descriptor.
pub fn from_env(name: &str) -> io::Result<Option<OwnedFd>> {
    let Some(value) = std::env::var_os(name) else { return Ok(None) };
    let fd =
        value.to_str().and_then(|text| text.parse::<RawFd>().ok()).filter(|fd| *fd > 2).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is {value:?}, not a descriptor"))
        })?;
    // SAFETY: fcntl and dup touch no memory.
    let own = unsafe {
        libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3)
    };
    if own < 0 {
        let error = io::Error::last_os_error();
        return Err(io::Error::new(error.kind(), format!("{name}={fd}: {error}")));
    }
    // SAFETY: the kernel just made this descriptor for us.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(own) }))
}

/// Tells multus-io whose request page a descriptor is; 80 bytes as one message of a SOCK_SEQPACKET socket.
///
/// ```text
/// word     what
/// 0        "MULTUSRP"
/// 1        version: 1
/// 2        slot of the child instance
/// 3        generation of its process, from 1; 0 = the process is gone, no page comes with this
/// 4..10    name of the instance, 48 bytes
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// Slot of the child instance.
    pub slot: u32,
    /// Its how-many-th process; 0: its process is gone, and its requests with it.
    pub generation: u64,
    /// Name of the instance, as owners are named in `hardware.toml`.
    pub name: Name,
}

const LETTERS: u64 = u64::from_le_bytes(*b"MULTUSRP");
const WORDS: usize = 10;
const BYTES: usize = WORDS * 8;

impl Introduction {
    fn to_bytes(self) -> [u8; BYTES] {
        let mut words = [0; WORDS];
        words[..4].copy_from_slice(&[LETTERS, 1, self.slot.into(), self.generation]);
        words[4..].copy_from_slice(self.name.words());
        let mut bytes = [0; BYTES];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; BYTES]) -> Option<Self> {
        let word = |i: usize| bytes[8 * i..8 * i + 8].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        let slot = u32::try_from(word(2)).ok()?;
        let name = Name::from_words(core::array::from_fn(|i| word(4 + i)));
        (word(0) == LETTERS && word(1) == 1).then_some(Self { slot, generation: word(3), name })
    }
}

/// Sends an introduction, with the request page unless the generation is 0. Does not block.
///
/// # Errors
/// `WouldBlock` when the receiver does not keep up, and what else the system refuses.
pub fn send(socket: BorrowedFd<'_>, introduction: &Introduction, page: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut bytes = introduction.to_bytes();
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = Control([0; 64]);
    // SAFETY: all-zero is a valid msghdr; its pointers are set to live buffers of the lengths given. The control buffer is
    // aligned and large enough for one descriptor, so CMSG_FIRSTHDR is inside of it.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        if let Some(page) = page {
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(4) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(4) as _;
            libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(page.as_raw_fd());
        }
        libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Waits for the next introduction; `None` when the sender has closed its end.
///
/// # Errors
/// `InvalidData` for a message that is none (the next one may be one again), and what the system refuses.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<(Introduction, Option<OwnedFd>)>> {
    let mut bytes = [0; BYTES];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = Control([0; 64]);
    let mut page = None;
    // SAFETY: as in `send`. A control message is only looked at where the kernel says that one is; a descriptor in it was
    // just made for this process and is owned by nobody else. There is room for one, so the kernel passes no further ones.
    let (received, flags) = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(4) as _;
        let received = loop {
            let received = libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC);
            if received >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                break received;
            }
        };
        if received >= 0 {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            let is_page = |h: &libc::cmsghdr| h.cmsg_level == libc::SOL_SOCKET && h.cmsg_type == libc::SCM_RIGHTS;
            if header.as_ref().is_some_and(is_page) {
                let fd = libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned();
                page = Some(OwnedFd::from_raw_fd(fd));
            }
        }
        (received, message.msg_flags)
    };
    match received {
        ..0 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        _ => match Introduction::from_bytes(&bytes) {
            Some(introduction) if received.unsigned_abs() == BYTES && flags & libc::MSG_TRUNC == 0 => {
                Ok(Some((introduction, page)))
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a message that introduces no request page")),
        },
    }
}

/// Room for one descriptor, aligned as the kernel wants it.
#[repr(align(8))]
struct Control([u8; 64]);

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::map::{self, Mapping};
    use crate::sync::Ordering;

    fn pair() -> (OwnedFd, OwnedFd) {
        let mut fds = [0; 2];
        // SAFETY: two descriptors are written into an array of two.
        let rc =
            unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr()) };
        assert_eq!(rc, 0);
        // SAFETY: the kernel just made both.
        fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).into()
    }

    #[test]
    fn a_page_arrives_with_the_name_of_its_owner() {
        let (core, io) = pair();
        let fd = map::memfd(c"requests", 512).unwrap();
        let page = Mapping::writable(fd.as_fd()).unwrap();
        page.words()[9].store(42, Ordering::Relaxed);
        let introduction = Introduction { slot: 7, generation: 3, name: Name::new("modbus") };
        send(core.as_fd(), &introduction, Some(fd.as_fd())).unwrap();
        let gone = Introduction { generation: 0, ..introduction };
        send(core.as_fd(), &gone, None).unwrap();

        let (found, page) = receive(io.as_fd()).unwrap().unwrap();
        assert_eq!(found, introduction);
        let page = Mapping::read_only(page.unwrap().as_fd()).unwrap();
        assert_eq!(page.words()[9].load(Ordering::Relaxed), 42);
        let (found, page) = receive(io.as_fd()).unwrap().unwrap();
        assert!(found == gone && page.is_none());

        // SAFETY: a buffer of nine bytes is read.
        unsafe { libc::send(core.as_raw_fd(), b"something".as_ptr().cast(), 9, 0) };
        assert_eq!(receive(io.as_fd()).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(core);
        assert!(receive(io.as_fd()).unwrap().is_none());
    }

    #[test]
    fn a_receiver_that_does_not_keep_up_holds_up_nobody() {
        let (core, _io) = pair();
        let introduction = Introduction { slot: 7, generation: 0, name: Name::new("modbus") };
        let error = (0..100_000).find_map(|_| send(core.as_fd(), &introduction, None).err());
        assert_eq!(error.unwrap().kind(), io::ErrorKind::WouldBlock);
    }
}
