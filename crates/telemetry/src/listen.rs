//! Listening sockets of every component.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpListener;

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
        Err(error) if addr.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && is_unsupported(&error) => {
            bind((Ipv4Addr::UNSPECIFIED, addr.port()).into()).await
        }
        other => other,
    }
}

/// Returns whether the machine lacks the family of an address, as opposed to a port that is in use or reserved.
fn is_unsupported(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrInUse, PermissionDenied};
    !matches!(error.kind(), AddrInUse | PermissionDenied)
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
}
