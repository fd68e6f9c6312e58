//! What one address may have of the connections that a server takes, so that nobody takes all. Pure.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// The connections of each address.
#[derive(Debug)]
pub struct Shares {
    most: usize,
    /// Programs of this machine may have all.
    is_own_free: bool,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection that counts for its address until it is dropped.
#[derive(Debug)]
pub struct Share {
    shares: Arc<Shares>,
    owner: IpAddr,
}

impl Shares {
    /// Of `all` connections each address may have `most`; 0: half of them, and this machine all.
    pub fn new(all: u16, most: u16) -> Arc<Self> {
        let is_own_free = most == 0;
        let most = if is_own_free { all.div_ceil(2) } else { most };
        Arc::new(Self { most: most.into(), is_own_free, taken: Mutex::default() })
    }

    /// One more connection; `None`: the address has its share.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Option<Share> {
        let owner = owner(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.get(&owner).copied().unwrap_or_default();
        let is_free = count < self.most || (self.is_own_free && owner.is_loopback());
        is_free.then(|| {
            taken.insert(owner, count + 1);
            Share { shares: Arc::clone(self), owner }
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.owner) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.remove(&self.owner)),
        }
    }
}

/// A host has all addresses of a network of 64 bits of IPv6, and one of IPv4.
fn owner(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(shares: &Arc<Shares>, address: &str, times: usize) -> Vec<Share> {
        (0..times).map_while(|_| shares.take(address.parse().expect("an address"))).collect()
    }

    #[test]
    fn an_address_has_half_and_this_machine_all() {
        let shares = Shares::new(5, 0);
        let first = take(&shares, "10.0.0.1", 9);
        assert_eq!((first.len(), take(&shares, "::ffff:10.0.0.1", 1).len()), (3, 0), "the same in other words");
        let second = take(&shares, "10.0.0.2", 9);
        assert_eq!((second.len(), take(&shares, "127.0.0.1", 9).len(), take(&shares, "::1", 9).len()), (3, 9, 9));
        drop(first);
        assert_eq!(take(&shares, "10.0.0.1", 9).len(), 3, "places come back");
        drop(second);
        assert!(shares.taken.lock().expect("no panic").is_empty(), "nobody is remembered");
        assert_eq!(take(&Shares::new(1, 0), "10.0.0.1", 9).len(), 1);
    }

    #[test]
    fn what_is_said_holds_for_all() {
        let shares = Shares::new(32, 2);
        for address in ["10.0.0.1", "127.0.0.1", "::1"] {
            assert_eq!(take(&shares, address, 9).len(), 2, "{address}");
        }
        let held = take(&shares, "2001:db8::1", 9);
        assert_eq!((held.len(), take(&shares, "2001:db8::ffff:2", 9).len()), (2, 0), "of one host");
        assert_eq!(take(&shares, "2001:db8:0:1::1", 9).len(), 2);
    }
}
