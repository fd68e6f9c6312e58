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
    if context.instance() > 0 {
        return Err("there is one multus-lan for a machine: set instances = 1 in its file of children/".into());
    }
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
    let keeper = Keeper::new(store, journal, shared.clone(), context.voice(), links, wanted);
    let mut keeper = tokio::task::spawn_local(keeper.run(confirmations));
    let mut server = listen(&config, &shared, &confirm);
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
                    server = listen(&new, &shared, &confirm);
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

fn listen(config: &Valid, shared: &Shared, confirm: &mpsc::Sender<Confirmation>) -> Option<JoinHandle<()>> {
    if config.port == 0 {
        return None;
    }
    let board = Board { shared: shared.clone(), confirm: confirm.clone() };
    Some(tokio::task::spawn_local(serve(config.port, board)))
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
