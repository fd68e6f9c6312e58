//! Starts the parts, and turns the loop that beats.

use std::time::Duration;

use multus_child::{Context, Error, Wake};
use multus_contract::dirs::{DirFlags, Dirs};
use multus_ipc::io_child::Io;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::config::Config;
use crate::service::{LANE_DEADLINE, Service, Settings};

/// Tells the parts of the program to end.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// Asks the parts to end; they are asked as well when this is dropped.
#[derive(Debug)]
pub struct StopSender(watch::Sender<bool>);

/// A pair of ends.
pub fn stop() -> (StopSender, Stop) {
    let (sender, receiver) = watch::channel(false);
    (StopSender(sender), Stop(receiver))
}

impl Stop {
    /// Waits until the program is to end.
    pub async fn requested(&self) {
        let mut asked = self.0.clone();
        // An error means that whoever could ask is gone.
        let _ = asked.wait_for(|asked| *asked).await;
    }

    /// Whether the program is to end.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}

impl StopSender {
    /// Asks all parts to end.
    pub fn stop(&self) {
        let _ = self.0.send(true);
    }
}

/// Works until it is asked to end.
pub(crate) fn run(config: Config, context: &Context) -> Result<(), Error> {
    let settings = Settings {
        settle: config.configuration.settle.duration(),
        auto_roll_back: config.configuration.auto_roll_back,
        text_folders: config.configuration.text_folders.clone(),
    };
    let service = Service::new(Dirs::resolve(&DirFlags::default()), settings);
    let lane = |name| context.lane(name, Some(LANE_DEADLINE));
    service.start(Some(lane("events")?), Some(lane("changes")?))?;
    let image = Io::from_env();
    if image.is_there() {
        service.watch_lines(image, Some(lane("lines")?))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("blocking")
        .build()?;
    let result = runtime.block_on(async {
        let (stopper, stop) = stop();
        let mut tasks = JoinSet::new();
        tasks.spawn(crate::grpc::serve(config.grpc.clone(), service.clone(), stop.clone()));
        tasks.spawn(crate::web::serve(config.web.clone(), service.clone(), stop.clone()));
        tasks.spawn(crate::history::serve(config.history.clone(), service.clone(), stop.clone()));
        tasks.spawn(crate::metrics::serve(service.clone(), stop.clone()));
        tasks.spawn(crate::mqtt::serve(config.mqtt.clone(), service.clone(), stop.clone()));
        tasks.spawn(crate::notify::serve(config.notify.clone(), service.clone(), stop.clone()));
        context.ready();
        let result = turn(context, &mut tasks).await;
        stopper.stop();
        let end = Instant::now() + GOOD_ORDER;
        while let Ok(Some(_)) = timeout_at(end, tasks.join_next()).await {}
        result
    });
    // Calls that still block end with the process.
    runtime.shutdown_background();
    result
}

/// Beats until there is a reason to end. The loop that serves all connections gives the beat: when that stands still, so
/// does the beat.
async fn turn(context: &Context, tasks: &mut JoinSet<Result<(), Error>>) -> Result<(), Error> {
    let deadline = context.deadline().unwrap_or(LONGEST_TURN);
    let mut turns = interval((deadline / BEATS).clamp(SHORTEST_TURN, LONGEST_TURN));
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = turns.tick() => {}
            // A part that has nothing to do ends at once and in order.
            Some(ended) = tasks.join_next() => ended??,
        }
        context.beat();
        match context.wait(Duration::ZERO) {
            Wake::Elapsed => {}
            Wake::Reload => {
                return Err("the configuration is read at the start only: ending, to be started again".into());
            }
            Wake::Stop => return Ok(()),
        }
    }
}

/// Beats in a deadline.
const BEATS: u32 = 20;
/// From beat to beat at least: what is more often costs more than it tells.
const SHORTEST_TURN: Duration = Duration::from_millis(50);
/// At most: an order to end is seen with the next one.
const LONGEST_TURN: Duration = Duration::from_millis(250);
/// Threads for calls that block: the daemon, the disk.
const BLOCKING_THREADS: usize = 16;
/// Connections have this long to end.
const GOOD_ORDER: Duration = Duration::from_secs(1);
