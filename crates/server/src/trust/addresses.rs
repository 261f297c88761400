//! Connections of each peer address that are limited: no address takes the places of all others. Knows nothing of what is sent.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// What becomes of the connections of an address that has as many as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenFull {
    /// The oldest is closed. Clients that share the address leave their place within milliseconds, by a call with a token, so that
    /// one which keeps its places without a token holds up none of them.
    CloseOldest,
    /// Further ones are closed, and those that are open stay.
    Refuse,
}

/// Connections of an address that make room and are not closed yet; further ones are not admitted.
const MAX_CLOSING: usize = 256;

/// Counts of connections, by address.
#[derive(Debug)]
pub(crate) struct Addresses {
    limit: usize,
    when_full: WhenFull,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    addresses: HashMap<IpAddr, Open>,
    admitted: u64,
}

#[derive(Debug, Default)]
struct Open {
    /// What closes each connection, in the order in which they were admitted.
    connections: BTreeMap<u64, CancellationToken>,
    /// Number of those that make room, until they are closed.
    closing: usize,
    /// Whether the log shows already that the address has too many.
    is_logged: bool,
}

impl Addresses {
    pub(crate) fn new(limit: usize, when_full: WhenFull) -> Arc<Self> {
        Arc::new(Self { limit, when_full, known: Mutex::default() })
    }

    /// Counts a connection until the returned place is dropped. `None` if the address has too many.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = subscriber(address);
        let mut known = self.known.lock();
        known.admitted += 1;
        let number = known.admitted;
        let open = known.addresses.entry(address).or_default();
        if open.connections.len() >= self.limit {
            if !std::mem::replace(&mut open.is_logged, true) {
                let (limit, when_full) = (self.limit, self.when_full);
                tracing::warn!(%address, limit, ?when_full, "too many connections from one address");
            }
            let oldest = match self.when_full {
                WhenFull::CloseOldest if open.closing < MAX_CLOSING => open.connections.pop_first(),
                WhenFull::CloseOldest | WhenFull::Refuse => None,
            };
            oldest?.1.cancel();
            open.closing += 1;
        }
        let closed = CancellationToken::new();
        open.connections.insert(number, closed.clone());
        Some(Place { addresses: Arc::clone(self), address, number, closed })
    }
}

/// Returns what the limit holds for: of IPv6, the 64 bits that a subscriber is given at least.
fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}

/// A connection that counts against its address.
#[derive(Debug)]
pub(crate) struct Place {
    addresses: Arc<Addresses>,
    address: IpAddr,
    number: u64,
    closed: CancellationToken,
}

impl Place {
    /// Returns what is cancelled when the connection has to make room for another.
    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let addresses = &mut self.addresses.known.lock().addresses;
        if let Some(open) = addresses.get_mut(&self.address) {
            if open.connections.remove(&self.number).is_none() {
                open.closing -= 1;
            }
            if open.connections.is_empty() && open.closing == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_limited_each_by_itself() {
        let addresses = Addresses::new(2, WhenFull::Refuse);
        let admit = |address: &str| addresses.admit(address.parse().unwrap());
        let (one, two) = (admit("192.0.2.1").unwrap(), admit("::ffff:192.0.2.1").unwrap());
        assert!(admit("192.0.2.1").is_none());
        let _other = admit("192.0.2.2").unwrap();
        drop(one);
        let _again = admit("192.0.2.1").unwrap();
        assert!(admit("192.0.2.1").is_none());
        let _v6 = (admit("2001:db8::1").unwrap(), admit("2001:db8::ffff:2").unwrap());
        assert!(admit("2001:db8::3").is_none(), "one subscriber has a whole network");
        let _elsewhere = admit("2001:db8:0:1::1").unwrap();
        assert!(!two.closed().is_cancelled());
        drop(two);
        assert_eq!(addresses.known.lock().addresses.len(), 4);
        drop(_again);
        assert_eq!(
            addresses.known.lock().addresses.len(),
            3,
            "an address without connections is not forgotten"
        );
    }

    #[test]
    fn oldest_connection_of_the_address_makes_room() {
        let addresses = Addresses::new(2, WhenFull::CloseOldest);
        let admit = |address: &str| addresses.admit(address.parse().unwrap()).unwrap();
        let (one, two, elsewhere) = (admit("192.0.2.1"), admit("192.0.2.1"), admit("192.0.2.2"));
        let three = admit("192.0.2.1");
        assert!(one.closed().is_cancelled() && !two.closed().is_cancelled());
        drop(one);
        let four = admit("192.0.2.1");
        assert!(two.closed().is_cancelled() && !three.closed().is_cancelled());
        drop((two, three));
        let _five = admit("192.0.2.1");
        assert!(!four.closed().is_cancelled() && !elsewhere.closed().is_cancelled());
    }

    #[test]
    fn connections_count_until_they_are_closed() {
        let addresses = Addresses::new(2, WhenFull::CloseOldest);
        let admit = || addresses.admit("192.0.2.1".parse().unwrap());
        let mut open: Vec<_> = (0..MAX_CLOSING + 2).map(|_| admit().unwrap()).collect();
        assert!(admit().is_none());
        drop(open.swap_remove(0));
        open.push(admit().unwrap());
        assert!(admit().is_none());
        drop(open);
        assert!(addresses.known.lock().addresses.is_empty());
    }
}
