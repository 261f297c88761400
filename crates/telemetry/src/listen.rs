//! Listening sockets of every component, and addresses for processes that listen later.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use tokio::net::TcpListener;

/// Ports that Linux gives to no outgoing connection, unless `ip_local_port_range` was changed.
const LISTENER_PORTS: Range<u16> = 10_000..30_000;

/// Listens on an address. `[::]` means all addresses of both families: also on a machine without IPv6, where it is
/// `0.0.0.0`.
pub async fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    listen_with(addr, TcpListener::bind).await
}

async fn listen_with<T, F>(addr: SocketAddr, bind: impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    match bind(addr).await {
        Err(error) if addr.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && !is_taken(&error) => {
            bind((Ipv4Addr::UNSPECIFIED, addr.port()).into()).await
        }
        other => other,
    }
}

/// Returns different addresses of this machine at which nothing listens, for processes of benchmarks and tests whose address must be
/// known before they listen. Their ports are none of those that outgoing connections get, one of which could take one meanwhile.
pub fn free_addresses(count: usize) -> io::Result<Vec<SocketAddr>> {
    let ports = LISTENER_PORTS.len();
    // Callers at the same time begin at different ports.
    let first = RandomState::new().hash_one(count) as usize % ports;
    free_among(LISTENER_PORTS.cycle().skip(first).take(ports), count)
}

fn free_among(ports: impl IntoIterator<Item = u16>, count: usize) -> io::Result<Vec<SocketAddr>> {
    let bound = ports.into_iter().map(|port| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
    let free = bound.filter(|bound| !bound.as_ref().is_err_and(is_taken)).take(count);
    // Held together, so that they differ.
    let listeners = free.collect::<io::Result<Vec<_>>>()?;
    if listeners.len() < count {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("fewer than {count} ports are free")));
    }
    listeners.iter().map(std::net::TcpListener::local_addr).collect()
}

/// Returns whether a port is in use or reserved, as opposed to a machine that lacks the family of the address.
fn is_taken(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrInUse, PermissionDenied};
    matches!(error.kind(), AddrInUse | PermissionDenied)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn unspecified_address_accepts_both_families() {
        let listener = listen("[::]:0".parse().unwrap()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        if listener.local_addr().unwrap().is_ipv6() {
            TcpStream::connect(("::1", port)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn machine_without_ipv6_listens_on_ipv4() {
        let bind = |kind: io::ErrorKind| {
            move |addr: SocketAddr| {
                std::future::ready(if addr.is_ipv6() { Err(io::Error::from(kind)) } else { Ok(addr) })
            }
        };
        let any: SocketAddr = "[::]:7420".parse().unwrap();
        let without = listen_with(any, bind(io::ErrorKind::Unsupported)).await.unwrap();
        assert_eq!(without, "0.0.0.0:7420".parse().unwrap());
        assert!(listen_with(any, bind(io::ErrorKind::AddrInUse)).await.is_err());
        let loopback = "[::1]:7420".parse().unwrap();
        assert!(
            listen_with(loopback, bind(io::ErrorKind::Unsupported)).await.is_err(),
            "never wider than asked for"
        );
    }

    #[test]
    fn free_addresses_are_never_fewer_than_wanted() {
        let taken = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let free = free_among([port, 0, 0], 2).unwrap();
        assert!(free.len() == 2 && free[0] != free[1], "{free:?}");
        assert_eq!(free_among([port, 0], 2).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let found = free_addresses(3).unwrap();
        assert!(found.iter().all(|addr| LISTENER_PORTS.contains(&addr.port())), "{found:?}");
    }
}
