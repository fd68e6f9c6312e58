//! The loop that beats; it serves everything else as well.

use std::time::Duration;

use multus_child::{Context, Error, Wake};
use multus_net::netlink::{self, Links};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::{MissedTickBehavior, interval};

use crate::config::{Config, Valid};
use crate::keeper::{Confirmation, Keeper};
use crate::serve::{Board, serve};
use crate::shown::Shared;
use crate::store::Store;

pub(crate) fn run(config: Config, context: &Context) -> Result<(), Error> {
    let store = Store::open(context.name())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, work(config.valid()?, store, context))
}

async fn work(mut config: Valid, store: Store, context: &Context) -> Result<(), Error> {
    let journal = store.load()?;
    let shared = Shared::default();
    let (links_sender, links) = watch::channel(netlink::links()?);
    let (wanted_sender, wanted) = watch::channel((config.plan.clone(), config.trial));
    let (confirm, confirmations) = mpsc::channel(4);
    let follower = tokio::task::spawn_local(follow(links_sender));
    let keeper = Keeper::new(store, journal, shared.clone(), context.voice(), links, wanted, confirmations);
    let mut keeper = tokio::task::spawn_local(keeper.run());
    let mut server = listen(&config, &shared, &confirm, context)?;
    context.ready();
    let mut turns = interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = turns.tick() => {}
            ended = &mut keeper => {
                ended?;
                return Err("the keeper has ended by itself".into());
            }
        }
        context.beat();
        match context.wait(Duration::ZERO) {
            Wake::Elapsed => {}
            Wake::Stop => break,
            Wake::Reload => {
                let Some(new) = context.reload(|new: Config| new.valid()) else { continue };
                if (new.port, &new.version) != (config.port, &config.version) {
                    server.into_iter().for_each(|server| server.abort());
                    server = listen(&new, &shared, &confirm, context)?;
                }
                config = new;
                wanted_sender.send_replace((config.plan.clone(), config.trial));
            }
        }
    }
    // What was set stays.
    keeper.abort();
    follower.abort();
    Ok(())
}

fn listen(
    config: &Valid,
    shared: &Shared,
    confirm: &mpsc::Sender<Confirmation>,
    context: &Context,
) -> Result<Option<JoinHandle<()>>, Error> {
    if config.port == 0 {
        return Ok(None);
    }
    let port = context.port(config.port)?;
    let board = Board { shared: shared.clone(), confirm: confirm.clone() };
    Ok(Some(tokio::task::spawn_local(serve(port, board))))
}

/// By news of the kernel alone. Without them nothing of the interfaces would be seen, so it is tried again.
async fn follow(sender: watch::Sender<Links>) {
    let mut told = false;
    loop {
        if let Err(error) = netlink::follow(sender.clone(), None).await
            && !std::mem::replace(&mut told, true)
        {
            log::error!("interfaces cannot be followed: {error}");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// From beat to beat.
const TURN: Duration = Duration::from_millis(500);
const AGAIN: Duration = Duration::from_secs(5);
