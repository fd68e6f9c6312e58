//! One bounded turn of reading a child's pipe.

use std::os::fd::AsFd;

use nix::errno::Errno;

/// How much one turn reads at most: what a Linux pipe holds by default (pipe(7)), so that one turn empties a full pipe
/// and a child that writes without end cannot keep the log thread from the other children.
pub const DRAIN_BYTES: usize = 64 * 1024;

/// What one turn of [`drain`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes handed to the sink.
    pub bytes: usize,
    /// Nobody has the write end any more (or the descriptor is broken, see `error`): close it.
    pub eof: bool,
    /// The bound was reached and there may be more: with edge-triggered polling, call again without waiting for an event.
    pub more: bool,
    /// Why reading failed, when it did; `eof` is set as well.
    pub error: Option<Errno>,
}

/// Reads `fd` until it would block, ends, or [`DRAIN_BYTES`] are read, and hands each piece to `sink`.
///
/// `fd` must be non-blocking, otherwise this waits for the child.
pub fn drain(fd: impl AsFd, mut sink: impl FnMut(&[u8])) -> Progress {
    let mut buffer = [0; 16 * 1024];
    let mut progress = Progress { bytes: 0, eof: false, more: false, error: None };
    while progress.bytes < DRAIN_BYTES {
        match nix::unistd::read(&fd, &mut buffer) {
            Ok(0) => return Progress { eof: true, ..progress },
            Ok(length) => {
                sink(&buffer[..length]);
                progress.bytes += length;
            }
            Err(Errno::EAGAIN) => return progress,
            Err(Errno::EINTR) => {}
            Err(errno) => return Progress { eof: true, error: Some(errno), ..progress },
        }
    }
    Progress { more: true, ..progress }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;

    use nix::fcntl::OFlag;

    use super::*;

    #[test]
    fn reads_what_is_there_then_sees_the_end() {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).unwrap();
        let nothing = Progress { bytes: 0, eof: false, more: false, error: None };
        assert_eq!(drain(&reader, |_| panic!("the pipe is empty")), nothing);

        let mut writer = File::from(writer);
        writer.write_all(b"abc").unwrap();
        let mut got = Vec::new();
        assert_eq!(drain(&reader, |bytes| got.extend_from_slice(bytes)), Progress { bytes: 3, ..nothing });
        assert_eq!(got, b"abc");

        drop(writer);
        assert_eq!(drain(&reader, |_| panic!("nothing left")), Progress { eof: true, ..nothing });
    }

    #[test]
    fn one_turn_is_bounded_and_says_that_there_is_more() {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).unwrap();
        let mut writer = File::from(writer);
        writer.write_all(&[b'x'; DRAIN_BYTES]).unwrap();
        let progress = drain(&reader, |_| {});
        assert_eq!((progress.bytes, progress.more), (DRAIN_BYTES, true));
        let progress = drain(&reader, |_| {});
        assert_eq!((progress.bytes, progress.more, progress.eof), (0, false, false));
    }

    #[test]
    fn a_broken_descriptor_counts_as_ended() {
        let directory = File::open("/").unwrap();
        let progress = drain(&directory, |_| {});
        assert!(progress.eof);
        assert_eq!(progress.error, Some(Errno::EISDIR));
    }
}
