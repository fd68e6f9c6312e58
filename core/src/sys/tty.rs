//! The size of a terminal: the one thing about terminals for which there is no safe call at hand.

use std::os::fd::{AsFd, AsRawFd};

/// Columns and rows of the terminal behind `fd`; `None` when it is no terminal or does not know.
pub fn size(fd: impl AsFd) -> Option<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `fd` is borrowed, so it stays open during the call. TIOCGWINSZ writes one `winsize` to the address given and
    // keeps none of it (ioctl_tty(2)); `size` is such a value, and writable. A descriptor that is no terminal is refused
    // with ENOTTY.
    let rc = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (rc == 0 && size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_no_terminal_has_no_size() {
        let file = std::fs::File::open("/dev/null").expect("it is always there");
        assert_eq!(super::size(&file), None);
    }
}
