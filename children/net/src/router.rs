//! Whether a router is there.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use multus_child::Interval;
use tokio::time::timeout;

use crate::icmp;
use crate::netlink::{self, Neighbour, Router};

/// Asks a router: it answers a ping (the time is told), or at least its address is resolved anew (there are some that answer no
/// ping). Takes up to `patience` for the ping and 9 s for the address.
///
/// # Errors
/// Why it counts as absent, for people.
pub async fn ask(router: &Router, patience: Duration) -> Result<Option<Duration>, String> {
    let address = match router.address {
        IpAddr::V6(address) if address.is_unicast_link_local() => SocketAddrV6::new(address, 0, 0, router.index).into(),
        address => SocketAddr::new(address, 0),
    };
    let interface = (!router.interface.is_empty()).then_some(router.interface.as_str());
    let refused = match timeout(patience, icmp::ping(address, interface)).await {
        Ok(Ok(time)) => return Ok(Some(time)),
        Ok(Err(reason)) => reason,
        Err(_) => format!("no answer within {}", Interval::from(patience)),
    };
    let end = Instant::now() + NEIGHBOUR_PATIENCE;
    loop {
        // Sending the ping made the kernel find out whether the neighbour is still there.
        match netlink::neighbour(router.address, router.index) {
            Ok(Neighbour::Confirmed) => return Ok(None),
            Ok(Neighbour::InQuestion) if Instant::now() < end => tokio::time::sleep(NEIGHBOUR_LOOK).await,
            Ok(Neighbour::InQuestion) => return Err(refused),
            Ok(Neighbour::Absent) => return Err(format!("{refused}, and its address is not resolved")),
            Err(error) => return Err(format!("{refused}; the neighbour table cannot be read: {error}")),
        }
    }
}

/// A stale entry is first trusted for 5 s (delay_first_probe_time), then asked for three times in 3 s, see arp(7).
const NEIGHBOUR_PATIENCE: Duration = Duration::from_secs(9);
const NEIGHBOUR_LOOK: Duration = Duration::from_millis(500);
