//! Tests of a standby between a client and an owner, which are plain sockets.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;

use super::*;

const OWN: &str = "standby.example:7420";
/// Time after which a test has failed.
const LIMIT: Duration = Duration::from_secs(60);

async fn listener() -> (TcpListener, SocketAddr) {
    http::listen(([127, 0, 0, 1], 0).into()).await.unwrap()
}

fn owner(addr: SocketAddr) -> Option<Owner> {
    Some(Owner { name: addr.to_string(), address: addr.to_string() })
}

/// A standby that listens, and its owner.
struct Pair {
    standby: Standby,
    addr: SocketAddr,
    http: SocketAddr,
    findings: Findings,
    owner: TcpListener,
}

async fn pair() -> Pair {
    pair_with(MAX_PER_ADDRESS).await
}

async fn pair_with(per_address: usize) -> Pair {
    let (listener, addr) = listener().await;
    let (http_listener, http) = self::listener().await;
    let (owner_listener, owner_addr) = self::listener().await;
    let findings = Findings { owners: Owners::new(owner(owner_addr)), ..Findings::default() };
    let standby = Standby::serve(listener, Some(http_listener), OWN, &findings, per_address);
    Pair { standby, addr, http, findings, owner: owner_listener }
}

impl Pair {
    /// Opens a connection, and returns both ends of it.
    async fn connect(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.addr).await.unwrap();
        (client, self.owner.accept().await.unwrap().0)
    }

    /// Waits until every place is given back.
    async fn empty(&self) {
        self.standby.closing.cancel();
        timeout(LIMIT, self.standby.passing.all_closed()).await.expect("a place is never given back");
    }
}

/// Sends bytes through a connection.
async fn passes(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"bytes").await.unwrap();
    let mut bytes = [0; 5];
    to.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"bytes");
}

async fn page(http: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(http).await.unwrap();
    let accept = "application/openmetrics-text;version=1.0.0";
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    page
}

async fn readiness(http: SocketAddr) -> String {
    page(http, "/readyz").await
}

#[tokio::test]
async fn passed_connections_are_counted() {
    let pair = pair().await;
    let connections = (pair.connect().await, pair.connect().await);
    let metrics = page(pair.http, "/metrics").await;
    assert!(
        metrics.contains("\nrota_owner 0\n") && metrics.contains("\nrota_passed_connections 2\n"),
        "{metrics}"
    );
    assert!(metrics.contains("content-type: application/openmetrics-text"), "{metrics}");
    drop(connections);
    pair.empty().await;
    let metrics = page(pair.http, "/metrics").await;
    assert!(metrics.contains("\nrota_passed_connections 0\n"), "{metrics}");
}

#[tokio::test]
async fn client_that_never_closes_gives_its_place_back() {
    let pair = pair().await;
    let (_client, owner) = pair.connect().await;
    drop(owner);
    pair.empty().await;
}

#[tokio::test]
async fn connections_of_one_address_are_limited() {
    let pair = pair_with(2).await;
    let (one, mut two) = (pair.connect().await, pair.connect().await);
    let mut refused = TcpStream::connect(pair.addr).await.unwrap();
    assert!(matches!(refused.read(&mut [0]).await, Ok(0) | Err(_)));
    // The limit is another address's own.
    let elsewhere = TcpSocket::new_v4().unwrap();
    elsewhere.bind(([127, 0, 0, 2], 0).into()).unwrap();
    let mut elsewhere = elsewhere.connect(pair.addr).await.unwrap();
    let (mut owner, _) = pair.owner.accept().await.unwrap();
    passes(&mut elsewhere, &mut owner).await;
    drop(one);
    let has_place = async {
        loop {
            let mut again = TcpStream::connect(pair.addr).await.unwrap();
            let mut byte = [0];
            tokio::select! {
                _ = pair.owner.accept() => return,
                _ = again.read(&mut byte) => {}
            }
        }
    };
    timeout(LIMIT, has_place).await.expect("a place of the address is never given back");
    passes(&mut two.0, &mut two.1).await;
}

#[tokio::test]
async fn client_that_ended_its_side_is_answered() {
    let pair = pair().await;
    let (mut client, mut owner) = pair.connect().await;
    client.shutdown().await.unwrap();
    assert_eq!(owner.read(&mut [0]).await.unwrap(), 0);
    passes(&mut owner, &mut client).await;
    drop(owner);
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    pair.empty().await;
}

#[tokio::test]
async fn connections_to_another_owner_are_cut() {
    let pair = pair().await;
    let (mut client, mut owner) = pair.connect().await;
    passes(&mut client, &mut owner).await;
    pair.findings.owners.send_replace(Some(Owner { name: "self".to_owned(), address: OWN.to_owned() }));
    assert_eq!(owner.read(&mut [0]).await.unwrap(), 0);
    // Nothing is passed to the replica itself.
    let mut refused = TcpStream::connect(pair.addr).await.unwrap();
    assert!(matches!(refused.read(&mut [0]).await, Ok(0) | Err(_)));
    pair.empty().await;
}

#[tokio::test]
async fn draining_standby_lets_connections_end() {
    let pair = pair().await;
    let (mut client, mut owner) = pair.connect().await;
    passes(&mut client, &mut owner).await;
    assert!(readiness(pair.http).await.starts_with("HTTP/1.1 200"));
    let (drained, mut drains) = oneshot::channel();
    let (closing, accepting) = (pair.standby.closing.clone(), pair.addr);
    spawn("drain", OnExit::Done, async move {
        pair.standby.drain(LIMIT).await;
        let _ = drained.send(());
    });
    closing.cancelled().await;
    let page = readiness(pair.http).await;
    assert!(page.starts_with("HTTP/1.1 503") && page.contains("stopping"), "{page}");
    while TcpStream::connect(accepting).await.is_ok() {
        tokio::task::yield_now().await;
    }
    passes(&mut client, &mut owner).await;
    passes(&mut owner, &mut client).await;
    assert!(drains.try_recv().is_err());
    drop((client, owner));
    drains.await.unwrap();
}

#[tokio::test]
async fn draining_standby_cuts_what_stays() {
    let pair = pair().await;
    let (mut client, _owner) = pair.connect().await;
    pair.standby.drain(Duration::ZERO).await;
    assert!(matches!(client.read(&mut [0]).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn standby_without_a_reachable_owner_is_not_ready() {
    let pair = pair().await;
    drop(pair.owner);
    let page = readiness(pair.http).await;
    assert!(page.starts_with("HTTP/1.1 503") && page.contains("owner_unreachable"), "{page}");
    pair.findings.owners.send_replace(None);
    let page = readiness(pair.http).await;
    assert!(page.starts_with("HTTP/1.1 503") && page.contains("no_owner"), "{page}");
    pair.standby.stop().await;
}

/// Its database is away, or refuses it: it could not take over, whether the owner is reached or not.
#[tokio::test]
async fn standby_without_looks_is_not_ready() {
    let pair = pair().await;
    let problem = Problem { message: "password authentication failed".to_owned(), hint: "" };
    pair.findings.problems.send_replace(Some(problem));
    assert!(readiness(pair.http).await.starts_with("HTTP/1.1 200"), "the database was just looked at");
    pair.findings.looks.send_replace(Instant::now().checked_sub(MAX_LOOK_AGE * 2).unwrap());
    let page = readiness(pair.http).await;
    assert!(page.starts_with("HTTP/1.1 503") && page.contains("authentication"), "{page}");
    pair.findings.looks.send_replace(Instant::now());
    assert!(readiness(pair.http).await.starts_with("HTTP/1.1 200"));
    pair.standby.stop().await;
}
