//! `multusctl`: the command line of multusd.
//!
//! It talks to the daemon over `control.sock` and reads log and configuration files itself, so that `logs` and `check` work
//! while no daemon runs. Text and `--json` are made from the same value.
//!
//! Exit codes: 0 done, 1 refused or failed (stderr says why), 2 the command line was not understood.

mod advise;
mod beat;
mod check;
mod children;
mod events;
mod fault;
mod io;
mod last_reset;
mod logs;
mod new;
mod output;
mod passwd;
mod reboot;
mod status;
mod token;
mod top;
mod view;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use multus_contract::api::command::{Client, ClientError, Request};
use multus_contract::api::exit;
use multus_contract::api::status::Status;
use multus_contract::config::parse_duration;
use multus_contract::dirs::{CONFIG_VARIABLE, DirFlags, Dirs, LOG_VARIABLE, STATE_VARIABLE};

use output::Failure;

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let context = Context::new(cli.dirs.into());
    match run(&context, cli.command) {
        Ok(()) => ExitCode::from(exit::DONE),
        Err(failure) => failure.end(),
    }
}

/// Checks the configuration in `config_dir` as `multusctl check` does: every mistake goes to stdout.
///
/// For `multusd --check`. The exit code is 0 without mistakes and 1 otherwise.
pub fn check(config_dir: &std::path::Path) -> ExitCode {
    match check::run(config_dir, false) {
        Ok(()) => ExitCode::from(exit::DONE),
        Err(failure) => failure.end(),
    }
}

fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Status { name, json } => status::status(context, name.as_deref(), json),
        Command::Start { names } => children::each(context, &names, children::Order::Start),
        Command::Stop { names } => children::each(context, &names, children::Order::Stop),
        Command::Restart { names } => children::each(context, &names, children::Order::Restart),
        Command::Enable { names } => children::each(context, &names, children::Order::Enable),
        Command::Disable { names } => children::each(context, &names, children::Order::Disable),
        Command::Snooze { name, duration } => children::each(context, &[name], children::Order::Snooze(duration)),
        Command::Events { name, follow, since, json } => {
            events::events(context, &events::Wanted { name, follow, since, json })
        }
        Command::Logs { name, follow, lines } => logs::logs(context, &name, lines, follow),
        Command::Advise { name, json } => advise::advise(context, &name, json),
        Command::Fault { name, number } => fault::fault(context, &name, number),
        Command::Beat => beat::say(&beat::Word::Beat),
        Command::Ready => beat::say(&beat::Word::Ready),
        Command::Say { text } => beat::say(&beat::Word::Say(text)),
        Command::Notice { text } => beat::say(&beat::Word::Notice(text)),
        Command::Check { json } => check::run(&context.config_dir(), json),
        Command::Reload { json } => children::reload(context, json),
        Command::Reboot { ahead, cancel } => reboot::reboot(context, ahead, cancel),
        Command::Io { order } => io_order(context, order),
        Command::LastReset { json } => last_reset::last_reset(context, json),
        Command::Passwd(user) => passwd::passwd(context, &user.into()),
        Command::Token { order: TokenOrder::Add { name, level, expires } } => {
            token::add(context, &name, level, expires)
        }
        Command::Token { order: TokenOrder::List { json } } => token::list(context, json),
        Command::Token { order: TokenOrder::Remove { name } } => token::remove(context, &name),
        Command::New { name, dir, source } => new::new(&name, &dir, source.as_deref()),
        Command::Top => top::top(context),
        Command::Completion { shell } => {
            // Into memory first: the generator cannot report that its output is closed.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "multusctl", &mut script);
            output::print(|out| out.write_all(&script))
        }
    }
}

fn io_order(context: &Context, order: IoOrder) -> Result<(), Failure> {
    match order {
        IoOrder::List { names, json } => io::list(context, &names, json),
        IoOrder::Watch { names, json } => io::watch(context, &names, json),
        IoOrder::Set { name, value } => io::order(context, &Request::IoSet { name, value }, "asked for"),
        IoOrder::Force { name, value } => {
            let done = format!("{name} is held at {value} until \"multusctl io release {name}\", or multusd ends");
            io::order(context, &Request::IoForce { name, value }, &done)
        }
        IoOrder::Release { name } => io::order(context, &Request::IoRelease { name }, "released"),
        IoOrder::Test { outputs, wires } => io::test(context, &outputs, &wires),
    }
}

/// Looks after the children that multusd supervises.
#[derive(Debug, Parser)]
#[command(name = "multusctl", version, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, 1 refused or failed, 2 usage.")]
struct Cli {
    #[command(flatten)]
    dirs: DirArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct DirArgs {
    /// Where the configuration is [environment: MULTUSD_CONFIG_DIR] [default: /etc/multusd]
    #[arg(long, global = true, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    config_dir: Option<PathBuf>,
    /// Where the control socket is [environment: MULTUSD_RUNTIME_DIR] [default: /run/multusd]
    #[arg(long, global = true, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    runtime_dir: Option<PathBuf>,
    /// Where the logs are [environment: MULTUSD_LOG_DIR] [default: /var/log/multusd]
    #[arg(long, global = true, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    log_dir: Option<PathBuf>,
    /// Where the event files are [environment: MULTUSD_STATE_DIR] [default: /var/lib/multusd]
    #[arg(long, global = true, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    state_dir: Option<PathBuf>,
}

impl From<DirArgs> for DirFlags {
    fn from(args: DirArgs) -> Self {
        Self { config: args.config_dir, runtime: args.runtime_dir, logs: args.log_dir, state: args.state_dir }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what the daemon and every child are doing; with NAME, everything about that child
    Status {
        /// A child, or one instance of it
        name: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Start stopped children; those in back-off at once
    Start {
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Stop children until they are started again or the daemon is
    Stop {
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Stop children in order and start them again
    Restart {
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Let children run, now and for good (changes their configuration files)
    Enable {
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Keep children from running, now and for good (changes their configuration files)
    Disable {
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Work on a child: faults are reported, but nobody is killed until the time is over
    Snooze {
        name: String,
        /// How long, such as 15m or 1h30min; "off" or 0 ends it
        #[arg(value_parser = children::parse_snooze)]
        duration: Duration,
    },
    /// Show what happened
    Events {
        /// Only events of this child instance
        name: Option<String>,
        /// Go on as they happen; without --since from now on
        #[arg(long, short)]
        follow: bool,
        /// From this number on
        #[arg(long, value_name = "SEQ")]
        since: Option<u64>,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show what a child wrote to stdout and stderr; "multusd" for the daemon's own log
    Logs {
        name: String,
        /// Go on as lines are written
        #[arg(long, short)]
        follow: bool,
        /// How many of the last lines
        #[arg(long, short = 'n', default_value_t = 50)]
        lines: usize,
    },
    /// Say which deadline suits a child, from the intervals between its beats
    Advise {
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what was found out about a fault: threads, stacks, what they waited for, the last lines of the log
    Fault {
        name: String,
        /// Which one, counted from the latest
        #[arg(default_value_t = 1, value_name = "N")]
        number: usize,
    },
    /// In a script that multusd runs: one heartbeat
    Beat,
    /// In a script that multusd runs: set-up is done
    Ready,
    /// In a script that multusd runs: how it is, in a line that is shown with its state
    Say { text: String },
    /// In a script that multusd runs: something that happened, for the record of events
    Notice { text: String },
    /// Show inputs and outputs, and set, hold and test them
    Io {
        #[command(subcommand)]
        order: IoOrder,
    },
    /// Check all configuration files and report every mistake at once
    Check {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Let the daemon read its configuration again; only children whose files changed are restarted
    Reload {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Stop all children in order, then start the machine anew
    Reboot {
        /// How long from now, such as 300s, up to 24h; a later order replaces an earlier one
        #[arg(long = "in", value_name = "DURATION", default_value = "0", value_parser = parse_duration)]
        ahead: Duration,
        /// Do not, if there is time left
        #[arg(long, conflicts_with = "ahead")]
        cancel: bool,
    },
    /// Say why the machine last restarted, and how often it did for which cause
    LastReset {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a user of the pages and the API, or give one another password
    Passwd(Passwd),
    /// Tokens: what programs show to multus-control (gRPC, JSON API) instead of a password
    Token {
        #[command(subcommand)]
        order: TokenOrder,
    },
    /// Make the crate of a new child from the template
    New {
        /// Name of the child and of its crate
        name: String,
        /// Where to make it; must be empty or not exist
        #[arg(value_hint = clap::ValueHint::DirPath)]
        dir: PathBuf,
        /// The source tree of multusd, which has the child library [environment: MULTUSD_SOURCE]
        #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::DirPath)]
        source: Option<PathBuf>,
    },
    /// Watch the children in a live view
    Top,
    /// Print the completion script for a shell
    Completion { shell: clap_complete::Shell },
}

#[derive(Debug, Args)]
struct Passwd {
    /// Letters, digits and . _ - @
    name: String,
    /// Right level: 0 may do everything, 10 change configurations, 30 start and stop children, 100 look [default: as it is;
    /// of a new user 100, of the first 10]
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=100))]
    level: Option<u32>,
    /// Let the user change nothing, whatever the level
    #[arg(long, value_name = "YES", num_args = 0..=1, default_missing_value = "true")]
    read_only: Option<bool>,
    /// Take the password from standard input, one line, instead of asking for it
    #[arg(long)]
    stdin: bool,
    /// Take the user away
    #[arg(long, conflicts_with_all = ["level", "read_only", "stdin"])]
    remove: bool,
}

impl From<Passwd> for passwd::Wanted {
    fn from(Passwd { name, level, read_only, stdin, remove }: Passwd) -> Self {
        Self { name, level, read_only, stdin, remove }
    }
}

#[derive(Debug, Subcommand)]
enum IoOrder {
    /// Show all lines, or those that are named
    List {
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show every change as it happens
    Watch {
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Ask for a value of an output that no child owns; on a simulated board, drive an input
    Set {
        name: String,
        /// "on", "off" or a number
        #[arg(value_parser = io::parse_value, allow_hyphen_values = true)]
        value: f64,
    },
    /// Hold an output at a value, whatever its owner asks for; a safe state goes before it
    Force {
        name: String,
        /// "on", "off" or a number
        #[arg(value_parser = io::parse_value, allow_hyphen_values = true)]
        value: f64,
    },
    /// Hold an output no longer
    Release { name: String },
    /// Check the board: does multus-io scan in time, are all lines good
    Test {
        /// Also hold this output at either end of its range for a moment. THE PLANT BEHIND IT MOVES
        #[arg(long = "output", value_name = "NAME")]
        outputs: Vec<String>,
        /// The same with an output that is wired to an input, which has to follow
        #[arg(long = "wire", value_name = "OUTPUT=INPUT", value_parser = parse_wire)]
        wires: Vec<(String, String)>,
    },
}

fn parse_wire(text: &str) -> Result<(String, String), String> {
    let (output, input) = text.split_once('=').ok_or("expected OUTPUT=INPUT")?;
    Ok((output.to_owned(), input.to_owned()))
}

#[derive(Debug, Subcommand)]
enum TokenOrder {
    /// Make a token and print it; it is not kept and cannot be shown again
    Add {
        /// Whose it is; one token for each name
        name: String,
        /// Right level: 0 may do everything, 10 change configurations, 30 start and stop children, 100 look
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=100))]
        level: u32,
        /// Let it count for so long only, such as 90d
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        expires: Option<Duration>,
    },
    /// Show whose tokens there are
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a token away; it no longer counts within a second
    Remove { name: String },
}

/// Where the daemon is and where its files are.
#[derive(Debug)]
struct Context {
    dirs: Dirs,
    logs_given: bool,
    config_given: bool,
    state_given: bool,
}

impl Context {
    fn new(flags: DirFlags) -> Self {
        let given = |flag: &Option<PathBuf>, variable| flag.is_some() || std::env::var_os(variable).is_some();
        Self {
            logs_given: given(&flags.logs, LOG_VARIABLE),
            config_given: given(&flags.config, CONFIG_VARIABLE),
            state_given: given(&flags.state, STATE_VARIABLE),
            dirs: Dirs::resolve(&flags),
        }
    }

    fn client(&self) -> Result<Client, ClientError> {
        Client::connect(&self.dirs.control_socket())
    }

    /// The log directory: as given, else as the running daemon has it, else the fixed place.
    fn log_dir(&self) -> PathBuf {
        let fixed = self.dirs.logs.clone();
        if self.logs_given { fixed } else { self.of_daemon(|status| status.daemon.log_dir, fixed) }
    }

    /// The configuration directory, found in the same way.
    fn config_dir(&self) -> PathBuf {
        let fixed = self.dirs.config.clone();
        if self.config_given { fixed } else { self.of_daemon(|status| status.daemon.config_dir, fixed) }
    }

    /// The state directory, found in the same way.
    fn state_dir(&self) -> PathBuf {
        let fixed = self.dirs.state.clone();
        if self.state_given { fixed } else { self.of_daemon(|status| status.daemon.state_dir, fixed) }
    }

    fn of_daemon(&self, pick: impl Fn(Status) -> String, fixed: PathBuf) -> PathBuf {
        // Nobody waits long for a convenience.
        let patience = Duration::from_millis(500);
        let asked = Client::connect_within(&self.dirs.control_socket(), patience)
            .and_then(|mut client| client.request_as::<Status>(&Request::Status { name: None }));
        asked.ok().map(pick).filter(|dir| !dir.is_empty()).map_or(fixed, PathBuf::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn directories_may_stand_behind_the_command() {
        let cli = Cli::try_parse_from(["multusctl", "logs", "io", "--log-dir", "/x", "-n", "5", "-f"]).expect("good");
        assert_eq!(cli.dirs.log_dir, Some("/x".into()));
        assert!(matches!(cli.command, Command::Logs { lines: 5, follow: true, .. }));
        for bad in
            [&["multusctl"][..], &["multusctl", "start"], &["multusctl", "snooze", "io", "soon"], &["multusctl", "fly"]]
        {
            assert_eq!(Cli::try_parse_from(bad).expect_err("bad usage").exit_code(), 2, "{bad:?}");
        }
    }
}
