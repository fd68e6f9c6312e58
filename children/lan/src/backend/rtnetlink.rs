//! This program itself, by netlink: for boards on which nobody else sets up the network. The addresses and default routes of
//! the interface are ours then; those that the kernel gives itself (of the link, advertised by routers) are left alone.

use std::future::pending;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use multus_net::address::{
    self, Address, DHCP, DefaultRoute, ROUTER_ADVERTISEMENT, STATIC, add_address, add_default_route, addresses,
    default_routes, delete_address, delete_default_route,
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::arp;
use crate::dhcp::Client;
use crate::files;
use crate::logic::cidr::Cidr;
use crate::logic::journal::{KeptAddress, KeptRoute, Now, Snapshot};
use crate::logic::plan::Plan;
use crate::logic::text::{self, Lease, NOTICE, Notice};

const RESOLV: &str = "/etc/resolv.conf";

#[derive(Debug, Default)]
pub(super) struct Rtnetlink {
    client: Option<Client>,
    lease: Option<Lease>,
    /// When a client that has ended is started again.
    again: Option<Instant>,
}

pub(super) fn snapshot(index: u32, now: &Now) -> Result<Snapshot, String> {
    let kept = |found: Address| KeptAddress {
        cidr: Cidr { address: found.address, prefix: found.prefix },
        valid_s: found.valid_s,
    };
    let found = addresses(index).map_err(|error| format!("addresses: {error}"))?;
    let routes = default_routes(index).map_err(|error| format!("routes: {error}"))?;
    Ok(Snapshot::Rtnetlink {
        boot: now.boot.clone(),
        addresses: found.into_iter().filter(is_ours).map(kept).collect(),
        routes: routes
            .into_iter()
            .filter(|route| route.protocol != ROUTER_ADVERTISEMENT)
            .map(|DefaultRoute { gateway, metric, protocol }| KeptRoute { gateway, metric, protocol })
            .collect(),
        resolv: if is_file(RESOLV) { files::read(Path::new(RESOLV))? } else { None },
    })
}

/// Those that nobody but us gives the interface.
fn is_ours(found: &Address) -> bool {
    // What routers advertise has an end.
    found.is_global && (found.address.is_ipv4() || found.valid_s.is_none())
}

impl Rtnetlink {
    pub(super) async fn apply(&mut self, plan: &Plan, index: u32) -> Result<(), String> {
        address::switch_on(index).map_err(|error| format!("{} cannot be switched on: {error}", plan.interface))?;
        if !plan.dhcp {
            self.end_client();
        }
        self.add(plan, index).await?;
        if plan.dhcp {
            tidy(index, false, &plan.addresses)?;
            self.start_client(&plan.interface)?;
        } else {
            tidy(index, true, &plan.addresses)?;
            tidy(index, false, &plan.addresses)?;
            set_routes(index, true, plan.gateway.map(IpAddr::V4).filter(|_| plan.is_default_way), STATIC)?;
        }
        if plan.of_family(false).next().is_some() {
            set_routes(index, false, plan.gateway_v6.map(IpAddr::V6).filter(|_| plan.is_default_way), STATIC)?;
        }
        set_resolv(&plan.name_servers)
    }

    /// Adds the addresses that are missing, after it was found out that nobody else has them.
    async fn add(&self, plan: &Plan, index: u32) -> Result<(), String> {
        let there = addresses(index).map_err(|error| format!("addresses: {error}"))?;
        for cidr in &plan.addresses {
            let is_there = |found: &Address| found.address == cidr.address && !found.is_duplicate;
            if there.iter().any(is_there) {
                continue;
            }
            if let IpAddr::V4(address) = cidr.address {
                match arp::who_has(&plan.interface, address).await {
                    Ok(None) => {}
                    Ok(Some(owner)) => return Err(format!("somebody else ({owner}) has the address {address}")),
                    Err(error) => return Err(format!("whether {address} is free cannot be found out: {error}")),
                }
            }
            set_address(index, *cidr, None)?;
            if let IpAddr::V4(address) = cidr.address {
                let interface = plan.interface.clone();
                tokio::spawn(async move {
                    if let Err(error) = arp::announce(&interface, address).await {
                        log::warn!("{address} cannot be announced: {error}");
                    }
                });
            }
        }
        until_unique(plan, index).await
    }

    pub(super) fn settled(&self, plan: &Plan) -> Result<(), String> {
        if plan.dhcp && self.lease.is_none() { Err("no DHCP server has answered".into()) } else { Ok(()) }
    }

    /// `known`: what the kernel had, if that was in this boot.
    pub(super) fn undo(
        &mut self,
        known: Option<(&Vec<KeptAddress>, &Vec<KeptRoute>)>,
        resolv: Option<&str>,
        plan: &Plan,
        index: Option<u32>,
    ) -> Result<(), String> {
        self.end_client();
        if let Some(index) = index {
            let (kept, routes) = known.map_or((&[][..], &[][..]), |(kept, routes)| (kept, routes));
            let of_plan = |found: &Address| plan.addresses.iter().any(|cidr| cidr.address == found.address);
            let is_kept = |found: &Address| kept.iter().any(|kept| kept.cidr.address == found.address);
            for found in addresses(index).map_err(|error| format!("addresses: {error}"))? {
                // Of another boot is known only what this plan has brought.
                let is_to_go = if known.is_some() { is_ours(&found) && !is_kept(&found) } else { of_plan(&found) };
                if is_to_go {
                    take_address(index, Cidr { address: found.address, prefix: found.prefix })?;
                }
            }
            for kept in kept {
                set_address(index, kept.cidr, kept.valid_s)?;
            }
            for route in default_routes(index).map_err(|error| format!("routes: {error}"))? {
                let is_kept = routes.iter().any(|kept| kept.gateway == route.gateway && kept.metric == route.metric);
                let of_plan = plan.routers().contains(&route.gateway);
                if route.protocol != ROUTER_ADVERTISEMENT && !is_kept && (known.is_some() || of_plan) {
                    take_route(index, route)?;
                }
            }
            for &KeptRoute { gateway, metric, protocol } in routes {
                set_route(index, DefaultRoute { gateway, metric, protocol })?;
            }
        }
        let is_written = files::read(Path::new(RESOLV)).ok().flatten().is_some_and(|text| text.starts_with(NOTICE));
        if is_file(RESOLV) && is_written {
            files::restore(Path::new(RESOLV), resolv, 0o644)?;
        }
        Ok(())
    }

    pub(super) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    pub(super) async fn notice(&mut self) -> Result<Notice, String> {
        match (&mut self.client, self.again) {
            (Some(client), _) => client.next().await,
            (None, Some(again)) => {
                sleep_until(again).await;
                Err(String::new())
            }
            (None, None) => pending().await,
        }
    }

    pub(super) fn told(&mut self, notice: Result<Notice, String>, plan: &Plan, index: u32) -> Result<(), String> {
        match notice {
            Ok(Notice::Bound(lease)) => {
                if self.lease.as_ref().is_none_or(|known| known.cidr != lease.cidr) {
                    log::info!(
                        "DHCP: {} from {}, for {} s",
                        lease.cidr,
                        lease.server,
                        lease.lease_s.unwrap_or(u32::MAX)
                    );
                }
                self.lease = Some(lease.clone());
                set_address(index, lease.cidr, lease.lease_s)?;
                tidy(index, true, &[lease.cidr])?;
                set_address(index, lease.cidr, lease.lease_s)?;
                let router = lease.routers.first().copied().map(IpAddr::V4);
                set_routes(index, true, router.filter(|_| plan.is_default_way), DHCP)?;
                set_resolv(if plan.name_servers.is_empty() { &lease.name_servers } else { &plan.name_servers })
            }
            Ok(Notice::Lost) => {
                if let Some(lease) = self.lease.take() {
                    log::warn!("DHCP: the lease of {} is over", lease.cidr);
                    take_address(index, lease.cidr)?;
                }
                Ok(())
            }
            Ok(Notice::Other(reason)) => {
                log::debug!("DHCP: {reason}");
                Ok(())
            }
            Err(reason) => {
                self.client = None;
                if reason.is_empty() {
                    return self.start_client(&plan.interface);
                }
                log::error!("DHCP: {reason}; again in {} s", AGAIN.as_secs());
                self.again = Some(Instant::now() + AGAIN);
                Ok(())
            }
        }
    }

    fn start_client(&mut self, interface: &str) -> Result<(), String> {
        if self.client.as_ref().is_none_or(|client| !client.is_for(interface)) {
            self.end_client();
            self.client = Some(Client::start(interface)?);
        }
        Ok(())
    }

    fn end_client(&mut self) {
        (self.client, self.lease, self.again) = (None, None, None);
    }
}

/// IPv6: the kernel finds out itself whether somebody else has an address.
async fn until_unique(plan: &Plan, index: u32) -> Result<(), String> {
    let end = Instant::now() + DAD_PATIENCE;
    loop {
        let found = addresses(index).map_err(|error| format!("addresses: {error}"))?;
        let of_plan = |found: &&Address| plan.of_family(false).any(|cidr| cidr.address == found.address);
        let mut own = found.iter().filter(of_plan);
        if let Some(duplicate) = own.clone().find(|found| found.is_duplicate) {
            return Err(format!("somebody else has the address {}", duplicate.address));
        }
        if !own.any(|found| found.is_tentative) || Instant::now() > end {
            return Ok(());
        }
        sleep(DAD_LOOK).await;
    }
}

/// Takes away what is not to be there any more.
fn tidy(index: u32, is_v4: bool, wanted: &[Cidr]) -> Result<(), String> {
    if !wanted.iter().any(|cidr| cidr.address.is_ipv4() == is_v4) {
        // Without an address of IPv6 the kernel's own ones are all; of IPv4 nothing else was set up.
        if !is_v4 {
            return Ok(());
        }
    }
    let mut took = false;
    for found in addresses(index).map_err(|error| format!("addresses: {error}"))? {
        let here = Cidr { address: found.address, prefix: found.prefix };
        if found.address.is_ipv4() == is_v4 && is_ours(&found) && !wanted.contains(&here) {
            take_address(index, here)?;
            took = true;
        }
    }
    // With the first address of a network the kernel takes the others of it as well (promote_secondaries).
    for cidr in wanted.iter().filter(|cidr| took && is_v4 && cidr.address.is_ipv4()) {
        if !addresses(index).is_ok_and(|found| found.iter().any(|found| found.address == cidr.address)) {
            set_address(index, *cidr, None)?;
        }
    }
    Ok(())
}

/// One default route of a family, or none.
fn set_routes(index: u32, is_v4: bool, gateway: Option<IpAddr>, protocol: u8) -> Result<(), String> {
    let wanted = gateway.map(|gateway| DefaultRoute { gateway, metric: METRIC, protocol });
    for route in default_routes(index).map_err(|error| format!("routes: {error}"))? {
        let is_other = Some(route) != wanted && route.protocol != ROUTER_ADVERTISEMENT;
        if route.gateway.is_ipv4() == is_v4 && is_other {
            take_route(index, route)?;
        }
    }
    wanted.map_or(Ok(()), |route| set_route(index, route))
}

fn set_route(index: u32, route: DefaultRoute) -> Result<(), String> {
    add_default_route(index, route).map_err(|error| format!("default route by {}: {error}", route.gateway))?;
    let is_there = default_routes(index).is_ok_and(|routes| routes.contains(&route));
    if is_there { Ok(()) } else { Err(format!("a default route of metric {} is there already", route.metric)) }
}

fn take_route(index: u32, route: DefaultRoute) -> Result<(), String> {
    delete_default_route(index, route).map_err(|error| format!("default route by {}: {error}", route.gateway))
}

fn set_address(index: u32, cidr: Cidr, valid_s: Option<u32>) -> Result<(), String> {
    add_address(index, cidr.address, cidr.prefix, valid_s).map_err(|error| format!("address {cidr}: {error}"))
}

fn take_address(index: u32, cidr: Cidr) -> Result<(), String> {
    delete_address(index, cidr.address, cidr.prefix).map_err(|error| format!("address {cidr}: {error}"))
}

/// Name servers, where `/etc/resolv.conf` is a file and nobody's link.
fn set_resolv(servers: &[IpAddr]) -> Result<(), String> {
    let path = Path::new(RESOLV);
    if servers.is_empty() {
        return Ok(());
    }
    if !is_file(RESOLV) && path.symlink_metadata().is_ok() {
        log::warn!("{RESOLV} is no file of its own, so somebody else cares for name servers; it is left alone");
        return Ok(());
    }
    let text = text::resolv(servers);
    if files::read(path)?.as_deref() == Some(&text) { Ok(()) } else { files::replace(path, &text, 0o644) }
}

fn is_file(path: &str) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|data| data.is_file())
}

/// As NetworkManager has it for Ethernet, so that others' routes find a place before and behind.
const METRIC: u32 = 100;
/// A client that ends is started again after this time.
const AGAIN: Duration = Duration::from_secs(5);
/// Two seconds as a rule (dad_transmits, retrans_time_ms, a random delay).
const DAD_PATIENCE: Duration = Duration::from_secs(5);
const DAD_LOOK: Duration = Duration::from_millis(100);
