//! Starts the checks, and turns the loop that beats.

use std::sync::Arc;
use std::time::Duration;

use multus_child::{About, Config, Context, Error, Wake};
use multus_contract::dirs::{DirFlags, Dirs};
use multus_net::netlink::{self, Links};
use tokio::sync::watch;
use tokio::task::JoinSet;
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
        let mut config = valid(&config)?;
        loop {
            // One thread for everything; those for blocking calls (resolving names, asking multusd) come and go.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(BLOCKING_THREADS)
                .thread_stack_size(BLOCKING_STACK_BYTES)
                .build()?;
            let is_to_go_on = runtime.block_on(work(config.clone(), context))?;
            // With it end all connections: they would show what was.
            runtime.shutdown_background();
            if !is_to_go_on {
                return Ok(());
            }
            if let Some(new) = context.reload(|config: C| valid(&config)) {
                config = new;
            }
        }
    })
}

/// Checks until it is asked to end (`false`), or to read its configuration again (`true`).
async fn work(config: ProgramConfig, context: &Context) -> Result<bool, Error> {
    let clock = Clock::start();
    let checks: Vec<Watched> =
        config.checks.into_iter().map(|check| Watched::new(check, config.first_check, context.voice())).collect();
    let checks = Arc::new(checks);
    let (sender, links) = watch::channel(netlink::links().unwrap_or_default());
    let mut tasks = JoinSet::new();
    tasks.spawn(follow(sender));
    for check in checks.iter().filter(|check| check.config.enabled) {
        let file = config.state.join(format!("{}-{}-actions", context.name(), check.config.name));
        tasks.spawn(check.clone().run(clock, links.clone(), file));
    }
    if config.port != 0 {
        let port = context.port(config.port)?;
        tasks.spawn(serve(port, Board { checks: Arc::clone(&checks), version: config.version }));
    }
    context.ready();
    turn(context, &checks, &mut tasks).await
}

/// Beats until there is a reason to end. The loop that serves all checks gives the beat: when that stands still, so does the
/// beat.
async fn turn(context: &Context, checks: &[Watched], tasks: &mut JoinSet<()>) -> Result<bool, Error> {
    let mut turns = interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (voice, mut said) = (context.voice(), String::new());
    loop {
        let status: Vec<String> = checks.iter().filter(|check| check.config.enabled).map(Watched::status).collect();
        let status = status.join(", ");
        if status != said {
            voice.status(&status);
            said = status;
        }
        tokio::select! {
            _ = turns.tick() => {}
            Some(ended) = tasks.join_next() => {
                ended?;
                return Err("a part of the checks has ended by itself".into());
            }
        }
        context.beat();
        match context.wait(Duration::ZERO) {
            Wake::Elapsed => {}
            Wake::Reload => return Ok(true),
            Wake::Stop => return Ok(false),
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
