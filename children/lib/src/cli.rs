//! The command line that all children share.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use multus_ipc::child::Heartbeat;

use crate::config::Source;
use crate::schema::Schema;
use crate::signals::Requests;
use crate::{About, Command, Config, Context, Error, logging};

/// The command line was wrong; as `multusctl` has it.
const USAGE: u8 = 2;

enum Action {
    Run,
    /// One of the program's own, by its place in the list.
    Own(usize),
    CheckConfig,
    PrintSchema,
    Help,
    Version,
}

struct Arguments {
    action: Action,
    config: Option<PathBuf>,
}

/// Does what the command line says; the return value is that of `main`.
pub(crate) fn main<C: Config>(
    about: &About,
    check: &dyn Fn(&C) -> Result<(), Error>,
    own: &[Command<C>],
    body: impl FnOnce(C, &Context) -> Result<(), Error>,
) -> ExitCode {
    let arguments = match parse(lexopt::Parser::from_env(), own) {
        Ok(arguments) => arguments,
        Err(error) => {
            complain(&format!("{}: {error}\nTry '{0} --help'.", about.name));
            return ExitCode::from(USAGE);
        }
    };
    let source = source(arguments.config);
    match arguments.action {
        Action::Help => say(&help::<C>(about, own)),
        Action::Version => say(&format!("{} {}\n", about.name, about.version)),
        Action::PrintSchema => say(&Schema::of::<C>().print(about)),
        Action::CheckConfig => check_config(&source, check),
        Action::Own(index) => match source.load_checked(check).map_err(Error::from).and_then(own[index].run) {
            Ok(told) => say(&told),
            Err(error) => {
                complain(&error.to_string());
                ExitCode::FAILURE
            }
        },
        Action::Run => work(about, source, check, body),
    }
}

fn parse<C>(mut parser: lexopt::Parser, own: &[Command<C>]) -> Result<Arguments, lexopt::Error> {
    use lexopt::prelude::{Long, Short, Value};

    let mut arguments = Arguments { action: Action::Run, config: None };
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => arguments.action = Action::Help,
            Short('V') | Long("version") => arguments.action = Action::Version,
            Long("print-schema") => arguments.action = Action::PrintSchema,
            Long("check-config") => {
                arguments.action = Action::CheckConfig;
                if let Some(file) = parser.optional_value() {
                    arguments.config = Some(file.into());
                }
            }
            Short('c') | Long("config") => arguments.config = Some(parser.value()?.into()),
            Value(file) if matches!(arguments.action, Action::CheckConfig) && arguments.config.is_none() => {
                arguments.config = Some(file.into());
            }
            Long(name) => match own.iter().position(|command| command.flag == name) {
                Some(index) => arguments.action = Action::Own(index),
                None => return Err(argument.unexpected()),
            },
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(arguments)
}

fn source(named: Option<PathBuf>) -> Source {
    match (named, std::env::var_os("MULTUS_CONFIG").filter(|path| !path.is_empty())) {
        (Some(path), _) => Source::Named(path),
        (None, Some(path)) => Source::Supervised(path.into()),
        (None, None) => Source::Defaults,
    }
}

fn help<C: Config>(about: &About, own: &[Command<C>]) -> String {
    let own: String = own.iter().map(|command| format!("      --{:<20} {}\n", command.flag, command.help)).collect();
    let keys = Schema::of::<C>().help();
    let keys = if keys.is_empty() { "  (none)\n".to_owned() } else { keys };
    let About { name, version, description } = about;
    format!(
        "{name} {version}: {description}\n\
         \n\
         Usage: {name} [--config FILE]\n\
         \n\
         \u{20} -c, --config FILE          read the configuration from FILE\n\
         \u{20}     --check-config [FILE]  say all that is wrong with the configuration, and end\n\
         \u{20}     --print-schema         print the JSON Schema of the configuration, and end\n\
         {own}\
         \u{20} -h, --help                 print this, and end\n\
         \u{20} -V, --version              print the version, and end\n\
         \n\
         Environment: MULTUS_CONFIG (configuration file; missing means defaults), MULTUS_NAME, MULTUS_INSTANCE,\n\
         MULTUS_LOG_LEVEL (off, error, warn, info, debug, trace), MULTUS_HEARTBEAT_FD (set by multusd),\n\
         MULTUSD_CONFIG_DIR, MULTUSD_RUNTIME_DIR, MULTUSD_LOG_DIR, MULTUSD_STATE_DIR (as those of multusd).\n\
         Signals: SIGTERM and SIGINT end in good order; SIGHUP reads the configuration again (in a terminal: ends).\n\
         \n\
         Keys of the configuration file (TOML) with their defaults:\n\
         {keys}"
    )
}

fn check_config<C: Config>(source: &Source, check: &dyn Fn(&C) -> Result<(), Error>) -> ExitCode {
    match source.load_checked(check) {
        Ok(_) => say(&format!("{source}: ok\n")),
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn work<C: Config>(
    about: &About,
    source: Source,
    check: &dyn Fn(&C) -> Result<(), Error>,
    body: impl FnOnce(C, &Context) -> Result<(), Error>,
) -> ExitCode {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let name = variable("MULTUS_NAME");
    logging::install(name.is_some(), variable("MULTUS_LOG_LEVEL").as_deref());
    let result = (|| {
        let requests = Requests::from_signals().map_err(|error| format!("cannot take signals: {error}"))?;
        let heartbeat = Heartbeat::from_env();
        let config = source.load_checked(check)?;
        let instance = instance(variable("MULTUS_INSTANCE").as_deref());
        log::info!("{} {} starts, configuration: {source}", about.name, about.version);
        let name = name.unwrap_or_else(|| about.name.to_owned());
        let context = Context::new(name, instance, heartbeat, requests, source);
        body(config, &context)
    })();
    match result {
        Ok(()) => {
            log::info!("ends as asked");
            ExitCode::SUCCESS
        }
        Err(error) => {
            error.to_string().lines().for_each(|line| log::error!("{line}"));
            ExitCode::FAILURE
        }
    }
}

fn instance(value: Option<&str>) -> u32 {
    let Some(value) = value else { return 0 };
    value.parse().unwrap_or_else(|_| {
        log::warn!("MULTUS_INSTANCE is {value:?}, expected a number; using 0");
        0
    })
}

/// Writes to standard output; a reader that has gone away (`--help | head -1`) is no error.
fn say(text: &str) -> ExitCode {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
