//! The command line.

use std::path::PathBuf;

use lexopt::prelude::*;

pub(crate) const USAGE: &str = "\
usage: latency [OPTIONS]

Supervises real processes with multusd, lets them fail, and compares what multusd did with the least that the machine
needs for it, measured in turns with it. As root, or with the right to real-time priority, on an otherwise idle machine.

  --multusd PATH             the daemon; default: multusd beside this program
  --repetitions N            failures of each kind under each load; default 200
  --quick                    20 repetitions, 200 children, 12 s of waiting for false alarms
  --children N               children whose cost is measured; default 1000
  --false-alarm-minutes M    how long 100 children are watched under load; default 10
  --only PART,PART           hang, crash, fast, adapters, io, mirror, pages, modbus, memory, cost, alarms,
                             beat;
                             default: all of them
  --json FILE                every value; default: bench/latency.json in the target directory
  --help                     this text";

/// Parts of the run.
pub(crate) const PARTS: [&str; 12] =
    ["hang", "crash", "fast", "adapters", "io", "mirror", "pages", "modbus", "memory", "cost", "alarms", "beat"];

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) multusd: Option<PathBuf>,
    pub(crate) repetitions: u64,
    pub(crate) children: usize,
    pub(crate) false_alarm_minutes: f64,
    pub(crate) only: Vec<String>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) help: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            multusd: None,
            repetitions: 200,
            children: 1000,
            false_alarm_minutes: 10.0,
            only: Vec::new(),
            json: None,
            help: false,
        }
    }
}

impl Options {
    pub(crate) fn parse(mut parser: lexopt::Parser) -> Result<Self, lexopt::Error> {
        let mut options = Self::default();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("multusd") => options.multusd = Some(parser.value()?.into()),
                Long("repetitions") => options.repetitions = parser.value()?.parse()?,
                Long("quick") => {
                    options.repetitions = 20;
                    options.children = 200;
                    options.false_alarm_minutes = 0.2;
                }
                Long("children") => options.children = parser.value()?.parse()?,
                Long("false-alarm-minutes") => options.false_alarm_minutes = parser.value()?.parse()?,
                Long("only") => {
                    let parts = parser.value()?.string()?;
                    options.only = parts.split(',').map(str::to_owned).collect();
                    if let Some(part) = options.only.iter().find(|p| !PARTS.contains(&p.as_str())) {
                        return Err(format!("there is no part {part:?}, only {}", PARTS.join(", ")).into());
                    }
                }
                Long("json") => options.json = Some(parser.value()?.into()),
                Long("help") | Short('h') => options.help = true,
                other => return Err(other.unexpected()),
            }
        }
        if options.repetitions == 0 || options.children == 0 {
            return Err("at least one repetition and one child are needed".into());
        }
        Ok(options)
    }

    pub(crate) fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|p| p == part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, lexopt::Error> {
        Options::parse(lexopt::Parser::from_args(arguments))
    }

    #[test]
    fn later_flags_win_over_quick() {
        let options = parse(&["--quick", "--children", "1000", "--only", "hang,cost"]).expect("good flags");
        assert_eq!((options.repetitions, options.children), (20, 1000));
        assert!(options.wants("cost") && !options.wants("beat"));
        assert!(Options::default().wants("beat"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [&["--only", "sleep"][..], &["--repetitions", "0"], &["--children", "x"], &["extra"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
