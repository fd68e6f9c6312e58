//! Checks that need no command of the user's: `multusd --probe ...` asks once and ends, exit code 0 for yes. It is run
//! like any check command, so that time limit, kill, log and user are the same, and nobody waits for it.
//!
//! What it finds wrong it prints, which lands in the log of the child.

use std::fmt;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use multus_contract::config::{Endpoint, Probe, format_duration, parse_duration};

/// The first argument of a multusd that is a probe.
pub const ARGUMENT: &str = "--probe";
/// Longest first line of an answer that is read, bytes; `HTTP/1.1 200 OK` has 15.
const LONGEST_STATUS_LINE: u64 = 1024;

/// What stands on the command line of a probe, behind [`ARGUMENT`]. Empty for a command, which is no probe of ours.
pub fn arguments(probe: &Probe) -> Vec<String> {
    match probe {
        Probe::Command(_) => Vec::new(),
        Probe::Tcp(server) => vec!["tcp".into(), server.to_string()],
        Probe::Http { server, target, status } => {
            let status = status.map_or_else(|| "2xx".to_owned(), |status| status.to_string());
            vec!["http".into(), server.to_string(), target.clone(), status]
        }
        Probe::File { path, max_age } => vec!["file".into(), path.display().to_string(), format_duration(*max_age)],
    }
}

/// Asks as the command line says.
pub fn run(arguments: impl Iterator<Item = String>) -> ExitCode {
    let arguments: Vec<String> = arguments.collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let Some(probe) = read(&words) else {
        eprintln!("multusd: {ARGUMENT} is for multusd itself; write a [check] instead");
        return ExitCode::from(2);
    };
    match ask(&probe) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("check: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn read(words: &[&str]) -> Option<Probe> {
    let server = |text: &str| Endpoint::parse(text, None).ok();
    Some(match words {
        ["tcp", address] => Probe::Tcp(server(address)?),
        ["http", address, target, status] => {
            let status = if *status == "2xx" { None } else { Some(status.parse().ok()?) };
            Probe::Http { server: server(address)?, target: (*target).to_owned(), status }
        }
        ["file", path, age] => Probe::File { path: path.into(), max_age: parse_duration(age).ok()? },
        _ => return None,
    })
}

fn ask(probe: &Probe) -> Result<(), String> {
    match probe {
        Probe::Command(_) => Err("a command is run by the launcher".into()),
        Probe::Tcp(server) => connect(server).map(|_| ()),
        Probe::Http { server, target, status } => {
            let got = get(server, target)?;
            let good = status.map_or((200..300).contains(&got), |status| got == status);
            let wanted = status.map_or_else(|| "200 to 299".to_owned(), |status| status.to_string());
            if good { Ok(()) } else { Err(format!("http://{server}{target}: status {got}, expected {wanted}")) }
        }
        Probe::File { path, max_age } => young_enough(path, *max_age),
    }
}

/// Connects to the first address of the host that answers. Without a time limit: who runs this has one.
fn connect(server: &Endpoint) -> Result<TcpStream, String> {
    let told = |error: &dyn fmt::Display| format!("tcp {server}: {error}");
    let addresses = (server.host.as_str(), server.port).to_socket_addrs().map_err(|e| told(&e))?;
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect(address) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(told(&last))
}

/// The status of a page. Redirects are an answer like any other and not followed; the page itself is not read.
fn get(server: &Endpoint, target: &str) -> Result<u16, String> {
    let mut stream = connect(server)?;
    let told = |error: io::Error| format!("http://{server}{target}: {error}");
    let version = env!("CARGO_PKG_VERSION");
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {server}\r\nUser-Agent: multusd/{version}\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(told)?;
    let mut line = Vec::new();
    let mut bytes = io::BufReader::with_capacity(LONGEST_STATUS_LINE as usize, stream.take(LONGEST_STATUS_LINE));
    io::BufRead::read_until(&mut bytes, b'\n', &mut line).map_err(told)?;
    status_of(&line).ok_or_else(|| format!("http://{server}{target}: the answer is no HTTP"))
}

/// The status in the first line of an answer.
fn status_of(line: &[u8]) -> Option<u16> {
    let line = line.strip_suffix(b"\n")?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let [b'0'..=b'9', b' ', code @ ..] = rest else { return None };
    let (digits, after) = code.split_at_checked(3)?;
    let status: u16 =
        std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
    ((after.is_empty() || after[0] == b' ') && (100..600).contains(&status)).then_some(status)
}

fn young_enough(path: &Path, max_age: Duration) -> Result<(), String> {
    let told = |error: io::Error| format!("{}: {error}", path.display());
    let changed = fs::metadata(path).and_then(|data| data.modified()).map_err(told)?;
    let now = SystemTime::now();
    // The clock may have been set back since: a time far in the future says no more than one far in the past.
    let age = now.duration_since(changed).unwrap_or_else(|future| future.duration());
    if age <= max_age {
        return Ok(());
    }
    let side = if changed > now { "lies in the future by" } else { "is older than" };
    Err(format!("{}: its last change {side} {}", path.display(), format_duration(max_age)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_command_line_is_read_back_as_it_was_written() {
        let server = || Endpoint { host: "::1".into(), port: 80 };
        for probe in [
            Probe::Tcp(server()),
            Probe::Http { server: server(), target: "/a?b=c".into(), status: Some(204) },
            Probe::Http { server: server(), target: "/".into(), status: None },
            Probe::File { path: "/run/x y".into(), max_age: Duration::from_millis(1500) },
        ] {
            let words = arguments(&probe);
            assert_eq!(read(&words.iter().map(String::as_str).collect::<Vec<_>>()), Some(probe));
        }
        for words in
            [&[][..], &["tcp"], &["tcp", "x"], &["http", "a:1", "/", "x"], &["file", "/x", "5"], &["ftp", "a:1"]]
        {
            assert_eq!(read(words), None, "{words:?}");
        }
    }

    #[test]
    fn the_status_is_in_the_first_line() {
        for (line, status) in [
            ("HTTP/1.1 200 OK\r\n", Some(200)),
            ("HTTP/1.0 404 Not Found\n", Some(404)),
            ("HTTP/1.1 503\r\n", Some(503)),
            ("HTTP/1.1 200 OK", None),
            ("HTTP/1.1 2000 OK\r\n", None),
            ("HTTP/1.1 +20 OK\r\n", None),
            ("HTTP/1.1 099 OK\r\n", None),
            ("HTTP/2 200\r\n", None),
            ("HTTP/1.1  200\r\n", None),
            ("SSH-2.0-OpenSSH\r\n", None),
            ("\r\n", None),
            ("", None),
        ] {
            assert_eq!(status_of(line.as_bytes()), status, "{line:?}");
        }
        let mut x = 88_172_645_463_325_252u64;
        for _ in 0..10_000 {
            let soup: Vec<u8> = (0..24)
                .map(|_| {
                    x ^= x << 13;
                    x ^= x >> 7;
                    x ^= x << 17;
                    b"HTP/1. 0259\r\n\xff"[(x % 14) as usize]
                })
                .collect();
            assert!(status_of(&soup).is_none_or(|status| (100..600).contains(&status)));
        }
    }

    /// Serves one connection with these bytes.
    fn server(answer: &'static [u8]) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0u8; 1024]);
            let _ = stream.write_all(answer);
        });
        Endpoint { host: "127.0.0.1".into(), port }
    }

    #[test]
    fn servers_are_asked() {
        let http = |answer, status| ask(&Probe::Http { server: server(answer), target: "/".into(), status });
        assert_eq!(http(b"HTTP/1.1 204 No Content\r\n\r\n", None), Ok(()));
        assert_eq!(http(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", Some(302)), Ok(()));
        for (answer, status, reason) in [
            (&b"HTTP/1.1 500 Oh\r\n\r\n"[..], None, "status 500, expected 200 to 299"),
            (b"HTTP/1.1 201 Made\r\n\r\n", Some(200), "status 201, expected 200"),
            (b"hello\r\n", None, "no HTTP"),
            (b"", None, "no HTTP"),
            (&[b'x'; 100_000], None, "no HTTP"),
        ] {
            let error = http(answer, status).unwrap_err();
            // A server that is not read to its end may reset the connection.
            assert!(error.contains(reason) || error.contains("reset"), "{error}");
        }
        assert_eq!(ask(&Probe::Tcp(server(b""))), Ok(()));
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        assert!(ask(&Probe::Tcp(Endpoint { host: "127.0.0.1".into(), port: gone })).is_err());
    }

    #[test]
    fn files_are_young_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let second = Duration::from_secs(1);
        assert!(young_enough(&path, second).unwrap_err().contains("No such file"));
        let file = fs::File::create(&path).unwrap();
        assert_eq!(young_enough(&path, 3600 * second), Ok(()));
        file.set_modified(SystemTime::now() - 7200 * second).unwrap();
        assert!(young_enough(&path, 3600 * second).unwrap_err().contains("older than 1h"));
        file.set_modified(SystemTime::now() + 7200 * second).unwrap();
        assert!(young_enough(&path, 3600 * second).unwrap_err().contains("in the future by 1h"));
    }
}
