//! One receiver of the original: a call for each change, and one each interval.

use std::time::Duration;

use multus_proto::legacy::MessageDigitalStatus;
use multus_proto::legacy::g_rp_cmultus_read_dido_client::GRpCmultusReadDidoClient;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::transport::Channel;

use super::{End, LARGEST_MESSAGE, Way};
use crate::config::Line;
use crate::logic::backoff::Backoff;
use crate::logic::mapping::{Levels, to_legacy};

/// Sends for ever.
pub(super) async fn run(mut way: Way, lines: Vec<Line>, interval: Duration, mut levels: watch::Receiver<Levels>) {
    let mut backoff = Backoff::default();
    let mut sequence = 0;
    loop {
        let end = match way.connect().await {
            Ok(channel) => {
                let client = GRpCmultusReadDidoClient::new(channel).max_decoding_message_size(LARGEST_MESSAGE);
                mirror(&way, &lines, interval, &mut levels, client, &mut backoff, &mut sequence).await
            }
            Err(end) => end,
        };
        way.pause(end, &mut backoff).await;
    }
}

/// Sends until the connection ends.
async fn mirror(
    way: &Way,
    lines: &[Line],
    interval: Duration,
    levels: &mut watch::Receiver<Levels>,
    mut client: GRpCmultusReadDidoClient<Channel>,
    backoff: &mut Backoff,
    sequence: &mut u64,
) -> End {
    loop {
        // What changes while a call is under way goes with the next one, which then holds the newest.
        let message = message(&to_legacy(lines, &levels.borrow_and_update()));
        let sent = Instant::now();
        way.peer.state();
        let answered = match timeout(ANSWER, client.g_rpc_set_digital_outputs(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => Err(status.into()),
            Err(_) => Err(End::lost("the receiver does not answer")),
        };
        if let Err(end) = answered {
            way.peer.shown().lost += 1;
            return end;
        }
        backoff.succeeded();
        way.peer.connected("");
        *sequence += 1;
        way.peer.acknowledged((0, *sequence), Some(sent.elapsed()), &[]);
        tokio::select! {
            changed = levels.changed() => if changed.is_err() {
                return End::lost("this child ends");
            },
            () = sleep_until(sent + interval) => {}
        }
    }
}

fn message(&[di01, di02, di03, di04, di05, di06, di07, di08]: &[i32; 8]) -> MessageDigitalStatus {
    MessageDigitalStatus { di01, di02, di03, di04, di05, di06, di07, di08 }
}

/// How long the answer to a call may take.
const ANSWER: Duration = Duration::from_secs(5);
