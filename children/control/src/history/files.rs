//! The event files of multusd: what happened while nobody followed it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Seek as _};
use std::path::{Path, PathBuf};

use multus_contract::api::event::Event;
use multus_contract::api::time::{format_rfc3339, parse_rfc3339};

/// Hands out all events of the files in `state` that come after the one with this time and number (`None`, or it is not
/// there: all), oldest first, in batches of `batch`. Lines that are no events are passed over.
///
/// # Errors
/// That of `take`. What cannot be read counts as not there: the daemon may still have it.
pub(super) fn after<E>(
    state: &Path,
    last: Option<(u64, u64)>,
    batch: usize,
    take: &mut dyn FnMut(&[Event]) -> Result<(), E>,
) -> Result<(), E> {
    let mut files = open(&state.join(LIVE));
    let (file, line) = last.and_then(|last| find(&mut files, last)).map_or((0, 0), |(file, line)| (file, line + 1));
    let mut events = Vec::new();
    for (number, reader) in files.iter_mut().enumerate().skip(file) {
        let mut skip = if number == file { line } else { 0 };
        if reader.rewind().is_err() {
            continue;
        }
        while let Ok(Some(text)) = next(reader) {
            if skip > 0 {
                skip -= 1;
                continue;
            }
            if let Ok(event) = serde_json::from_slice::<Event>(&text) {
                events.push(event);
            }
            if events.len() >= batch {
                take(&events)?;
                events.clear();
            }
        }
    }
    if events.is_empty() { Ok(()) } else { take(&events) }
}

/// All files, oldest first. They are opened from the youngest on: one that is put aside meanwhile is then met twice,
/// not missed.
fn open(live: &Path) -> Vec<BufReader<File>> {
    let aside = |number: u32| {
        let mut name = live.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    let mut files: Vec<BufReader<File>> = File::open(live).ok().map(BufReader::new).into_iter().collect();
    files.extend((1..=MOST_FILES).map_while(|number| File::open(aside(number)).ok()).map(BufReader::new));
    files.reverse();
    files
}

/// File and line of the event with this time and number, the last if there are several.
fn find(files: &mut [BufReader<File>], (time, seq): (u64, u64)) -> Option<(usize, usize)> {
    let text = format_rfc3339(time);
    for (number, reader) in files.iter_mut().enumerate().rev() {
        let (mut found, mut line) = (None, 0);
        while let Ok(Some(bytes)) = next(reader) {
            // Only a line that holds the time is worth being read.
            if bytes.windows(text.len()).any(|window| window == text.as_bytes())
                && let Ok(event) = serde_json::from_slice::<Event>(&bytes)
                && event.seq == seq
                && parse_rfc3339(&event.time) == Some(time)
            {
                found = Some(line);
            }
            line += 1;
        }
        if let Some(line) = found {
            return Some((number, line));
        }
    }
    None
}

/// The next line; of one that is too long, and so no event, only the beginning.
fn next(reader: &mut BufReader<File>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.len() as u64 == LONGEST_LINE && line.last() != Some(&b'\n') {
        skip_line(reader)?;
    }
    Ok(Some(line))
}

fn skip_line(reader: &mut BufReader<File>) -> io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        if let Some(end) = buffer.iter().position(|&byte| byte == b'\n') {
            reader.consume(end + 1);
            return Ok(());
        }
        let all = buffer.len();
        reader.consume(all);
    }
}

const LIVE: &str = "events.jsonl";
/// multusd keeps no more.
const MOST_FILES: u32 = 100;
const LONGEST_LINE: u64 = 64 * 1024;
