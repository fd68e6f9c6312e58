//! The daemon. Everything it does lives in `multusd::daemon`; this reads the command line.

use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::*;
use multus_contract::dirs::{DirFlags, Dirs};
use multusd::daemon::{self, Options};
use multusd::launcher::spawner;
use multusd::{guard, probe, stage};

const HELP: &str = "\
multusd keeps processes alive and their outputs safe.

Usage: multusd [OPTIONS]

      --safe-state         set every output of hardware.toml (with an error in it: of the last one without) to its safe value
                           and end; needs no running multusd, and is what a service manager runs when multusd has died
                           (ExecStopPost)
      --check              check the configuration, report everything that is wrong, exit 1 if anything is
      --config-dir DIR     configuration [MULTUSD_CONFIG_DIR, /etc/multusd]
      --runtime-dir DIR    control socket, lock [MULTUSD_RUNTIME_DIR, /run/multusd]
      --log-dir DIR        logs [MULTUSD_LOG_DIR, /var/log/multusd]
      --state-dir DIR      events, reports of faults, the lines in force [MULTUSD_STATE_DIR, /var/lib/multusd]
  -v, --verbose            log to standard error as well
  -h, --help               this text
  -V, --version            version

It stays in the foreground. SIGTERM stops all children in order, SIGHUP reads the configuration again.
Exit codes: 0 stopped as asked, 1 could not start, check failed or not all outputs are safe, 2 usage, 70 one of its own threads was stuck.
";

enum Wanted {
    Run(Options),
    Check(PathBuf),
    SafeState(Dirs),
    Print(String),
}

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|a| a == spawner::ARGUMENT) {
        return ExitCode::from(u8::try_from(spawner::run()).unwrap_or(1));
    }
    if std::env::args_os().nth(1).is_some_and(|a| a == probe::ARGUMENT) {
        return probe::run(std::env::args().skip(2));
    }
    if std::env::args_os().nth(1).is_some_and(|a| a == stage::ARGUMENT) {
        return stage::run(std::env::args_os().nth(2).and_then(|text| text.into_string().ok()));
    }
    match arguments() {
        Err(error) => {
            eprintln!("multusd: {error}; --help tells what there is");
            ExitCode::from(2)
        }
        Ok(Wanted::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Wanted::Check(dir)) => multusd::ctl::check(&dir),
        Ok(Wanted::SafeState(dirs)) => match guard::apply(&dirs) {
            Ok(done) => {
                println!("{done}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("multusd: {error}");
                ExitCode::FAILURE
            }
        },
        Ok(Wanted::Run(options)) => match daemon::run(&options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("multusd: {error}");
                ExitCode::FAILURE
            }
        },
    }
}

fn arguments() -> Result<Wanted, lexopt::Error> {
    let (mut flags, mut check, mut safe_state, mut verbose) = (DirFlags::default(), false, false, false);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config-dir") => flags.config = Some(parser.value()?.into()),
            Long("runtime-dir") => flags.runtime = Some(parser.value()?.into()),
            Long("log-dir") => flags.logs = Some(parser.value()?.into()),
            Long("state-dir") => flags.state = Some(parser.value()?.into()),
            Long("check") => check = true,
            Long("safe-state") => safe_state = true,
            Short('v') | Long("verbose") => verbose = true,
            Short('h') | Long("help") => return Ok(Wanted::Print(HELP.into())),
            Short('V') | Long("version") => {
                return Ok(Wanted::Print(format!("multusd {}\n", env!("CARGO_PKG_VERSION"))));
            }
            other => return Err(other.unexpected()),
        }
    }
    let dirs = Dirs::resolve(&flags);
    if check {
        return Ok(Wanted::Check(dirs.config));
    }
    if safe_state {
        return Ok(Wanted::SafeState(dirs));
    }
    Ok(Wanted::Run(Options { dirs, program: "/proc/self/exe".into(), verbose }))
}
