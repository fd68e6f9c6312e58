//! The words of sd_notify(3), as far as they concern a supervisor. Pure: bytes in, notices out.

/// Longest datagram that is looked at; systemd allows 4096 bytes and descriptors beside them.
pub const MAX_DATAGRAM: usize = 4096;
/// Longest status text that is kept, bytes.
pub const MAX_STATUS: usize = 256;

/// One line of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// `READY=1`
    Ready,
    /// `WATCHDOG=1`
    Beat,
    /// `WATCHDOG=trigger`
    Trigger,
    /// `WATCHDOG_USEC=n`: the deadline from now on, microseconds.
    Deadline(u64),
    /// `EXTEND_TIMEOUT_USEC=n`: starting or stopping may take until so many microseconds from now.
    Extend(u64),
    /// `STATUS=text`
    Status(String),
    /// `STOPPING=1`
    Stopping,
    /// `RELOADING=1`
    Reloading,
    /// `ERRNO=n`
    Errno(i32),
    /// `MAINPID=n`; `None` when that is no process id at all.
    MainPid(Option<i32>),
}

/// The notices of a datagram, in its order. What is unknown or malformed is left out, as systemd does: a newer program
/// may say more than we know.
pub fn parse(datagram: &[u8]) -> Vec<Notice> {
    let mut notices = Vec::new();
    for line in datagram.split(|b| *b == b'\n') {
        let Some(equals) = line.iter().position(|b| *b == b'=') else { continue };
        let (key, value) = (&line[..equals], &line[equals + 1..]);
        let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
        let notice = match (key, value) {
            (b"READY", b"1") => Some(Notice::Ready),
            (b"WATCHDOG", b"1") => Some(Notice::Beat),
            (b"WATCHDOG", b"trigger") => Some(Notice::Trigger),
            (b"STOPPING", b"1") => Some(Notice::Stopping),
            (b"RELOADING", b"1") => Some(Notice::Reloading),
            (b"WATCHDOG_USEC", _) => number().map(Notice::Deadline),
            (b"EXTEND_TIMEOUT_USEC", _) => number().map(Notice::Extend),
            (b"ERRNO", _) => number().and_then(|n| i32::try_from(n).ok()).map(Notice::Errno),
            (b"MAINPID", _) => Some(Notice::MainPid(number().and_then(|n| i32::try_from(n).ok()).filter(|n| *n > 1))),
            (b"STATUS", text) => {
                let text: String = String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect();
                let end = (0..=MAX_STATUS.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
                Some(Notice::Status(text[..end].to_owned()))
            }
            _ => None,
        };
        notices.extend(notice);
    }
    notices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_documents_is_understood() {
        let text = b"READY=1\nSTATUS=Serving 3 clients\nWATCHDOG=1\nWATCHDOG_USEC=20000\nMAINPID=7\nX=y\nnonsense\n";
        assert_eq!(
            parse(text),
            [
                Notice::Ready,
                Notice::Status("Serving 3 clients".into()),
                Notice::Beat,
                Notice::Deadline(20_000),
                Notice::MainPid(Some(7))
            ]
        );
        for nonsense in ["", "x", "-7", "0", "1", "7 8", "2147483648", "1000000000000000000000000000000"] {
            assert_eq!(parse(format!("MAINPID={nonsense}").as_bytes()), [Notice::MainPid(None)], "{nonsense}");
        }
        assert_eq!(parse(b"WATCHDOG=trigger"), [Notice::Trigger]);
        assert_eq!(
            parse(b"EXTEND_TIMEOUT_USEC=5\nSTOPPING=1\nRELOADING=1\nERRNO=2"),
            [Notice::Extend(5), Notice::Stopping, Notice::Reloading, Notice::Errno(2)]
        );
    }

    #[test]
    fn garbage_is_left_out() {
        for text in
            [&b""[..], b"=", b"READY=2", b"WATCHDOG_USEC=-1", b"WATCHDOG_USEC=99999999999999999999999", b"\xff=\xfe"]
        {
            assert_eq!(parse(text), [], "{text:?}");
        }
        let Some(Notice::Status(text)) = parse(&[b"STATUS=", "ä\u{7}".repeat(4000).as_bytes()].concat()).pop() else {
            panic!("a status")
        };
        assert!(text.len() <= MAX_STATUS && text.chars().all(|c| c == 'ä'));
        let mut x = 88172645463325252u64;
        for _ in 0..2000 {
            let bytes: Vec<u8> = (0..64)
                .map(|_| {
                    x ^= x << 13;
                    x ^= x >> 7;
                    x ^= x << 17;
                    (x & 0x7f) as u8
                })
                .collect();
            let _ = parse(&bytes);
        }
    }
}
