//! Starts the checks, and turns the loop that beats.

use std::time::Duration;

use multus_child::{About, Config, Context, Error, Voice, Wake};
use multus_contract::dirs::{DirFlags, Dirs};
use multus_net::netlink::{self, Links};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use crate::config::ProgramConfig;
use crate::serve::{Board, serve};
use crate::watch::{Clock, Watched};

/// The whole `main` of a check.
pub(crate) fn main<C: Config>(
    about: &About,
    valid: impl Fn(&C, std::path::PathBuf) -> Result<ProgramConfig, Error>,
) -> std::process::ExitCode {
    let valid = |config: &C| valid(config, Dirs::resolve(&DirFlags::default()).state);
    let check = |config: &C| valid(config).map(drop);
    multus_child::run_with_check(about, check, |config: C, context| {
        let config = valid(&config)?;
        // One thread for everything; those for blocking calls (resolving names, asking multusd) come and go.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_stack_size(BLOCKING_STACK_BYTES)
            .build()?;
        let done = runtime.block_on(work(config, context, &valid));
        // A name that is being resolved is not waited for.
        runtime.shutdown_background();
        done
    })
}

/// Checks until it is asked to end. The loop that serves all checks gives the beat: when that stands still, so does the beat.
async fn work<C: Config>(
    config: ProgramConfig,
    context: &Context,
    valid: &impl Fn(&C) -> Result<ProgramConfig, Error>,
) -> Result<(), Error> {
    let mut program = Program::new(context);
    program.take(config, context, true)?;
    context.ready();
    let mut turns = interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        program.tell();
        tokio::select! {
            _ = turns.tick() => {}
            Some(ended) = program.tasks.join_next() => match ended {
                // Of a former configuration.
                Err(error) if error.is_cancelled() => {}
                ended => {
                    ended?;
                    return Err("a part of the checks has ended by itself".into());
                }
            },
        }
        context.beat();
        match context.wait(Duration::ZERO) {
            Wake::Elapsed => {}
            Wake::Reload => {
                if let Some(new) = context.reload(|config: C| valid(&config)) {
                    program.take(new, context, false)?;
                }
            }
            Wake::Stop => return Ok(()),
        }
    }
}

/// All that is under way.
struct Program {
    clock: Clock,
    links: watch::Receiver<Links>,
    tasks: JoinSet<()>,
    checks: Vec<(Watched, Option<AbortHandle>)>,
    board: Board,
    server: Option<AbortHandle>,
    /// That of the server; 0: there is none.
    port: u16,
    voice: Voice,
    said: String,
}

impl Program {
    fn new(context: &Context) -> Self {
        let (sender, links) = watch::channel(netlink::links().unwrap_or_default());
        let mut tasks = JoinSet::new();
        tasks.spawn(follow(sender));
        let (clock, voice) = (Clock::start(), context.voice());
        let (checks, board, said) = (Vec::new(), Board::default(), String::new());
        Self { clock, links, tasks, checks, board, server: None, port: 0, voice, said }
    }

    /// Works with this configuration from now on. Checks that are the same as before go on with all they know; another one asks
    /// at once, unless the program has just been started.
    fn take(&mut self, config: ProgramConfig, context: &Context, is_start: bool) -> Result<(), Error> {
        let mut former = std::mem::take(&mut self.checks);
        for check in config.checks {
            if let Some(same) = former.iter().position(|(known, _)| *known.config == check) {
                self.checks.push(former.swap_remove(same));
                continue;
            }
            let first = if is_start { config.first_check } else { self.clock.now().mono };
            let watched = Watched::new(check, first, context.voice());
            let file = config.state.join(format!("{}-{}-actions", context.name(), watched.config.name));
            let run = watched.clone().run(self.clock, self.links.clone(), file);
            let task = watched.config.enabled.then(|| self.tasks.spawn(run));
            self.checks.push((watched, task));
        }
        former.into_iter().filter_map(|(_, task)| task).for_each(|task| task.abort());
        self.board.show(self.checks.iter().map(|(check, _)| check.clone()).collect(), config.version);
        if self.port != config.port {
            self.port = config.port;
            self.server.take().inspect(AbortHandle::abort);
            if config.port != 0 {
                let port = context.port(config.port)?;
                self.server = Some(self.tasks.spawn(serve(port, self.board.clone())));
            }
        }
        Ok(())
    }

    /// Tells in a line how all checks are, if that is new.
    fn tell(&mut self) {
        let checks = self.checks.iter().map(|(check, _)| check).filter(|check| check.config.enabled);
        let status = checks.map(Watched::status).collect::<Vec<_>>().join(", ");
        if status != self.said {
            self.voice.status(&status);
            self.said = status;
        }
    }
}

/// Without news of the interfaces the checks still work, only slower; so it is tried again.
async fn follow(sender: watch::Sender<Links>) {
    let mut told = false;
    loop {
        if let Err(error) = netlink::follow(sender.clone(), Some(LOOK)).await
            && !std::mem::replace(&mut told, true)
        {
            log::error!("interfaces cannot be followed, a pulled cable is seen by the next check only: {error}");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// From beat to beat.
const TURN: Duration = Duration::from_millis(200);
/// A pulled cable is to be seen within a second.
const LOOK: Duration = Duration::from_millis(250);
const AGAIN: Duration = Duration::from_secs(5);
const BLOCKING_THREADS: usize = 4;
const BLOCKING_STACK_BYTES: usize = 256 * 1024;
