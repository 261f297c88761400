//! Connections of each peer address that have not authenticated yet, handshakes among them: no address takes the places of all
//! others. Knows nothing of what is sent.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts of connections, by address.
#[derive(Debug)]
pub(super) struct Addresses {
    limit: usize,
    known: Mutex<HashMap<IpAddr, Count>>,
}

#[derive(Debug, Default)]
struct Count {
    open: usize,
    /// Whether the log shows already that further ones are closed.
    is_logged: bool,
}

impl Addresses {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, known: Mutex::default() })
    }

    /// Counts a connection until the returned place is dropped. `None` if the address has too many.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = subscriber(address);
        let mut known = self.known.lock();
        let count = known.entry(address).or_default();
        if count.open >= self.limit {
            if !std::mem::replace(&mut count.is_logged, true) {
                let limit = self.limit;
                tracing::warn!(%address, limit, "too many connections without authentication from one address, closing further ones");
            }
            return None;
        }
        count.open += 1;
        Some(Place { addresses: Arc::clone(self), address })
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
pub(super) struct Place {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut known = self.addresses.known.lock();
        if let Some(count) = known.get_mut(&self.address) {
            count.open -= 1;
            if count.open == 0 {
                known.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_limited_each_by_itself() {
        let addresses = Addresses::new(2);
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
        drop(two);
        assert_eq!(addresses.known.lock().len(), 4);
        drop(_again);
        assert_eq!(addresses.known.lock().len(), 3, "an address without connections is not forgotten");
    }
}
