//! The log of a child: one line for each record, on standard output; warnings and errors on standard error.
//!
//! multusd takes both, adds the time and keeps the files. By hand in a terminal the time is added here, as seconds since
//! the start.

use std::io::Write as _;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Log, Metadata, Record};
use multus_contract::api::time::format_rfc3339;

struct Lines {
    /// Somebody else adds the time.
    captured: bool,
}

/// From now on `log` writes lines. `level` is what `MULTUS_LOG_LEVEL` says; without it: info.
pub(crate) fn install(captured: bool, level: Option<&str>) {
    let parsed = level.map(str::parse::<LevelFilter>);
    static LINES: OnceLock<Lines> = OnceLock::new();
    let lines = LINES.get_or_init(|| Lines { captured });
    // Fails only when the child has installed a logger of its own: then that one is meant.
    if log::set_logger(lines).is_ok() {
        log::set_max_level(match &parsed {
            Some(Ok(level)) => *level,
            _ => LevelFilter::Info,
        });
    }
    if let Some(Err(_)) = parsed {
        log::warn!("MULTUS_LOG_LEVEL is not one of off, error, warn, info, debug, trace; using info");
    }
}

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = line(if self.captured { None } else { Some(now()) }, record);
        // One write for the whole line, so that lines of several threads do not mix. A log that cannot be written
        // must not stop the work.
        let _ = if record.level() <= Level::Warn {
            std::io::stderr().lock().write_all(line.as_bytes())
        } else {
            let mut out = std::io::stdout().lock();
            out.write_all(line.as_bytes()).and_then(|()| out.flush())
        };
    }

    fn flush(&self) {}
}

fn now() -> String {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format_rfc3339(u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX))
}

fn line(time: Option<String>, record: &Record<'_>) -> String {
    let text = record.args().to_string().replace('\n', "\\n");
    match time {
        Some(time) => format!("{time} {:5} {text}\n", record.level()),
        None => format!("{:5} {text}\n", record.level()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line() {
        let show =
            |time, text: &str| line(time, &Record::builder().level(Level::Warn).args(format_args!("{text}")).build());
        assert_eq!(show(None, "two\nlines"), "WARN  two\\nlines\n");
        assert_eq!(show(Some("12:00".into()), "hot"), "12:00 WARN  hot\n");
    }
}
