//! This program itself, by netlink: for boards on which nobody else sets up the network. The addresses and default routes of
//! the interface are ours then; those that the kernel gives itself (of the link, advertised by routers) are left alone, and so
//! are all other routes.

use std::future::pending;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use multus_net::address::{
    self, Address, DHCP, DefaultRoute, ROUTER_ADVERTISEMENT, STATIC, add_address, add_default_route, addresses,
    default_routes, delete_address, delete_default_route,
};
use tokio::time::{Instant, sleep, sleep_until};

use super::Trouble;
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
    bound: Option<Bound>,
    /// When a client that has ended is started again.
    again: Option<Instant>,
}

/// A lease, and when it was told.
#[derive(Clone, Debug)]
struct Bound {
    lease: Lease,
    at: Instant,
}

impl Bound {
    /// Its end has come, and the client has not told it yet.
    fn is_over(&self, now: Instant) -> bool {
        self.left_s(now) == Some(0)
    }

    /// Seconds until it is over; `None`: not told.
    fn left_s(&self, now: Instant) -> Option<u32> {
        let passed_s = u32::try_from(now.duration_since(self.at).as_secs()).unwrap_or(u32::MAX);
        // A lease without an end stays one.
        self.lease.lease_s.map(|lease_s| if lease_s == u32::MAX { lease_s } else { lease_s.saturating_sub(passed_s) })
    }
}

pub(super) fn snapshot(index: u32, now: &Now) -> Result<Snapshot, String> {
    let kept = |found: Address| KeptAddress { cidr: cidr(&found), valid_s: found.valid_s };
    let routes = routes(index)?;
    Ok(Snapshot::Rtnetlink {
        boot: now.boot.clone(),
        addresses: found(index)?.into_iter().filter(is_ours).map(kept).collect(),
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
    // What routers advertise is not set to stay.
    found.is_global && (found.address.is_ipv4() || found.is_permanent)
}

impl Rtnetlink {
    pub(super) async fn apply(&mut self, plan: &Plan, index: u32) -> Result<(), Trouble> {
        address::switch_on(index).map_err(|error| format!("{} cannot be switched on: {error}", plan.interface))?;
        if !plan.dhcp {
            self.end_client();
        }
        add(plan, index).await?;
        let _promoting = Promoting::begin(&plan.interface);
        if plan.dhcp {
            self.start_client(&plan.interface)?;
            self.set_lease(plan, index)?;
        } else {
            tidy(index, true, &plan.addresses)?;
            set_routes(index, true, plan.gateway.map(IpAddr::V4).filter(|_| plan.is_default_way), STATIC)?;
        }
        tidy(index, false, &plan.addresses)?;
        set_routes(index, false, plan.gateway_v6.map(IpAddr::V6).filter(|_| plan.is_default_way), STATIC)?;
        Ok(set_resolv(&plan.name_servers)?)
    }

    pub(super) fn settled(&self, plan: &Plan) -> Result<(), String> {
        if plan.dhcp && self.bound.is_none() { Err("no DHCP server has answered".into()) } else { Ok(()) }
    }

    /// What the kernel does not have any more of what was set, for people; `None`: it has everything.
    pub(super) fn missing(&self, plan: &Plan, index: u32) -> Result<Option<String>, String> {
        let bound = self.bound.as_ref().filter(|bound| plan.dhcp && !bound.is_over(Instant::now()));
        let leased = bound.map(|bound| &bound.lease);
        let there = found(index)?;
        let mut wanted = plan.addresses.iter().copied().chain(leased.map(|lease| lease.cidr));
        if let Some(missing) = wanted.find(|wanted| !there.iter().any(|found| cidr(found) == *wanted)) {
            return Ok(Some(format!("the address {missing}")));
        }
        let routes = routes(index)?;
        let by_dhcp = leased.and_then(|lease| lease.routers.first()).copied().map(IpAddr::V4);
        let mut routers = plan.routers().into_iter().chain(by_dhcp).filter(|_| plan.is_default_way);
        let missing = routers.find(|router| !routes.iter().any(|route| route.gateway == *router));
        Ok(missing.map(|router| format!("the default route by {router}")))
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
            let _promoting = Promoting::begin(&plan.interface);
            match known {
                Some((kept, routes)) => restore(index, kept, routes)?,
                // Of another boot is known only what this plan has brought.
                None => take_plan(index, plan)?,
            }
        }
        let is_written = files::read(Path::new(RESOLV)).ok().flatten().is_some_and(|text| text.starts_with(NOTICE));
        if is_file(RESOLV) && is_written {
            files::restore(Path::new(RESOLV), resolv, 0o644)?;
        }
        Ok(())
    }

    pub(super) fn lease(&self) -> Option<&Lease> {
        self.bound.as_ref().map(|bound| &bound.lease)
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
                if self.lease().is_none_or(|known| known.cidr != lease.cidr) {
                    let seconds = lease.lease_s.unwrap_or(u32::MAX);
                    log::info!("DHCP: {} from {}, for {seconds} s", lease.cidr, lease.server);
                }
                self.bound = Some(Bound { lease, at: Instant::now() });
                let _promoting = Promoting::begin(&plan.interface);
                self.set_lease(plan, index)
            }
            Ok(Notice::Lost) => {
                if let Some(Bound { lease, .. }) = self.bound.take() {
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

    /// What the lease says, if there is one.
    fn set_lease(&self, plan: &Plan, index: u32) -> Result<(), String> {
        let now = Instant::now();
        let Some(bound) = self.bound.as_ref().filter(|bound| !bound.is_over(now)) else { return Ok(()) };
        let (lease, left_s) = (&bound.lease, bound.left_s(now));
        put(index, lease.cidr, left_s)?;
        tidy(index, true, &[lease.cidr])?;
        put(index, lease.cidr, left_s)?;
        let router = lease.routers.first().copied().map(IpAddr::V4);
        set_routes(index, true, router.filter(|_| plan.is_default_way), DHCP)?;
        set_resolv(if plan.name_servers.is_empty() { &lease.name_servers } else { &plan.name_servers })
    }

    fn start_client(&mut self, interface: &str) -> Result<(), String> {
        if self.client.as_ref().is_none_or(|client| !client.is_for(interface)) {
            self.end_client();
            self.client = Some(Client::start(interface)?);
        }
        Ok(())
    }

    fn end_client(&mut self) {
        (self.client, self.bound, self.again) = (None, None, None);
    }
}

/// Adds the addresses that are missing, after it was found out that nobody else has them.
async fn add(plan: &Plan, index: u32) -> Result<(), Trouble> {
    let there = found(index)?;
    let is_set = |wanted: &Cidr| there.iter().any(|found| cidr(found) == *wanted && !found.is_duplicate);
    let missing: Vec<Cidr> = plan.addresses.iter().copied().filter(|wanted| !is_set(wanted)).collect();
    // With another prefix it is ours already.
    let unknown = missing.iter().filter(|wanted| !there.iter().any(|found| found.address == wanted.address));
    let unknown: Vec<Ipv4Addr> = unknown.filter_map(|wanted| v4(wanted.address)).collect();
    match arp::who_has_any(&plan.interface, &unknown).await {
        Ok(None) => {}
        Ok(Some((address, owner))) => {
            return Err(Trouble::Lasting(format!("somebody else ({owner}) has the address {address}")));
        }
        Err((address, error)) => return Err(format!("whether {address} is free cannot be found out: {error}").into()),
    }
    for wanted in missing {
        put(index, wanted, None)?;
    }
    for address in unknown {
        let interface = plan.interface.clone();
        tokio::spawn(async move {
            if let Err(error) = arp::announce(&interface, address).await {
                log::warn!("{address} cannot be announced: {error}");
            }
        });
    }
    until_unique(plan, index).await
}

/// IPv6: the kernel finds out itself whether somebody else has an address.
async fn until_unique(plan: &Plan, index: u32) -> Result<(), Trouble> {
    let end = Instant::now() + DAD_PATIENCE;
    loop {
        let there = found(index)?;
        let of_plan = |found: &&Address| plan.of_family(false).any(|wanted| wanted.address == found.address);
        let mut own = there.iter().filter(of_plan);
        if let Some(duplicate) = own.clone().find(|found| found.is_duplicate) {
            return Err(Trouble::Lasting(format!("somebody else has the address {}", duplicate.address)));
        }
        if !own.any(|found| found.is_tentative) || Instant::now() > end {
            return Ok(());
        }
        sleep(DAD_LOOK).await;
    }
}

/// Takes away what is not to be there any more.
fn tidy(index: u32, is_v4: bool, wanted: &[Cidr]) -> Result<(), String> {
    for found in found(index)? {
        if found.address.is_ipv4() == is_v4 && is_ours(&found) && !wanted.contains(&cidr(&found)) {
            take_address(index, cidr(&found))?;
        }
    }
    // Where the kernel promotes none, the others of a network go with its first address.
    let there = found(index)?;
    for wanted in wanted.iter().filter(|wanted| wanted.address.is_ipv4() == is_v4) {
        if !there.iter().any(|found| found.address == wanted.address) {
            put(index, *wanted, None)?;
        }
    }
    Ok(())
}

/// As it was. What was there comes first, then what was not goes: with the last address of an interface all routes through it
/// would go, those of others as well.
fn restore(index: u32, kept: &[KeptAddress], routes_before: &[KeptRoute]) -> Result<(), String> {
    for kept in kept {
        put(index, kept.cidr, kept.valid_s)?;
    }
    for found in found(index)? {
        if is_ours(&found) && !kept.iter().any(|kept| kept.cidr == cidr(&found)) {
            take_address(index, cidr(&found))?;
        }
    }
    for kept in kept {
        put(index, kept.cidr, kept.valid_s)?;
    }
    for route in routes(index)? {
        let is_kept = routes_before.iter().any(|kept| kept.gateway == route.gateway && kept.metric == route.metric);
        if route.protocol != ROUTER_ADVERTISEMENT && !is_kept {
            take_route(index, route)?;
        }
    }
    for &KeptRoute { gateway, metric, protocol } in routes_before {
        // Somebody may have made another one in its place; that stays then.
        if let Err(error) = set_route(index, DefaultRoute { gateway, metric, protocol }) {
            log::warn!("{error}");
        }
    }
    Ok(())
}

/// Takes away what a plan has brought.
fn take_plan(index: u32, plan: &Plan) -> Result<(), String> {
    for found in found(index)? {
        if plan.addresses.iter().any(|wanted| wanted.address == found.address) {
            take_address(index, cidr(&found))?;
        }
    }
    for route in routes(index)? {
        if route.protocol != ROUTER_ADVERTISEMENT && plan.routers().contains(&route.gateway) {
            take_route(index, route)?;
        }
    }
    Ok(())
}

/// One default route of a family, or none.
fn set_routes(index: u32, is_v4: bool, gateway: Option<IpAddr>, protocol: u8) -> Result<(), String> {
    let wanted = gateway.map(|gateway| DefaultRoute { gateway, metric: METRIC, protocol });
    for route in routes(index)? {
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

/// Sets an address, with this prefix only: of IPv6 the kernel has an address once, and keeps the prefix that it has.
fn put(index: u32, wanted: Cidr, valid_s: Option<u32>) -> Result<(), String> {
    for found in found(index)?.iter().filter(|found| found.address.is_ipv6() && found.address == wanted.address) {
        if cidr(found) != wanted || found.is_duplicate {
            take_address(index, cidr(found))?;
        }
    }
    add_address(index, wanted.address, wanted.prefix, valid_s).map_err(|error| format!("address {wanted}: {error}"))
}

fn take_address(index: u32, cidr: Cidr) -> Result<(), String> {
    delete_address(index, cidr.address, cidr.prefix).map_err(|error| format!("address {cidr}: {error}"))
}

fn found(index: u32) -> Result<Vec<Address>, String> {
    addresses(index).map_err(|error| format!("addresses: {error}"))
}

fn routes(index: u32) -> Result<Vec<DefaultRoute>, String> {
    default_routes(index).map_err(|error| format!("routes: {error}"))
}

fn cidr(found: &Address) -> Cidr {
    Cidr { address: found.address, prefix: found.prefix }
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

/// As long as it is there, the kernel keeps the other addresses of a network when its first one goes, and with them the routes.
struct Promoting {
    file: String,
    before: String,
}

impl Promoting {
    /// `None`: it cannot be switched on. Then the others are set anew, and routes of other programs may be lost.
    fn begin(interface: &str) -> Option<Self> {
        let file = format!("/proc/sys/net/ipv4/conf/{interface}/promote_secondaries");
        let before = std::fs::read_to_string(&file).ok()?;
        std::fs::write(&file, "1").ok()?;
        Some(Self { file, before })
    }
}

impl Drop for Promoting {
    fn drop(&mut self) {
        // The interface may be gone.
        let _ = std::fs::write(&self.file, &self.before);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_routers_advertise_is_not_ours_however_long_it_is_valid() {
        let address = |text: &str, valid_s, is_permanent| Address {
            address: text.parse().expect("good"),
            prefix: 64,
            is_global: !text.starts_with("fe80"),
            valid_s,
            is_permanent,
            is_tentative: false,
            is_duplicate: false,
        };
        assert!(is_ours(&address("fd00::9", None, true)), "set by hand");
        assert!(!is_ours(&address("fd00::211:22ff:fe33:4455", Some(86_400), false)), "advertised");
        assert!(!is_ours(&address("fd00::211:22ff:fe33:4455", None, false)), "advertised without an end");
        assert!(!is_ours(&address("fe80::1", None, true)), "of the link");
        assert!(is_ours(&address("192.168.1.2", Some(60), false)), "leased");
    }

    #[test]
    fn a_lease_that_is_set_again_ends_when_it_was_to_end() {
        let lease = |lease_s| Lease {
            cidr: "192.168.1.2/24".parse().expect("good"),
            routers: Vec::new(),
            name_servers: Vec::new(),
            lease_s,
            server: String::new(),
        };
        let at = Instant::now();
        let left_s = |lease_s| Bound { lease: lease(lease_s), at }.left_s(at + Duration::from_secs(50));
        assert_eq!([Some(120), Some(30), Some(u32::MAX), None].map(left_s), [Some(70), Some(0), Some(u32::MAX), None]);
    }
}
