//! Limits of connections, in number, age and idle time, and of the calls of one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rota_server::Limits;
use rota_testkit::raw::hello;
use rota_testkit::{Backend, Cluster, RawWorker, Setup, tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

async fn cluster(limits: Limits) -> Result<Cluster> {
    let setup = Setup { limits, token: Some("open sesame".to_owned()), ..Setup::new(Backend::Memory) };
    Cluster::start_with(setup).await
}

fn request(cluster: &Cluster, method_and_path: &str, token: Option<&str>) -> String {
    let token = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    let body = "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    format!("{method_and_path} HTTP/1.1\r\nHost: {}\r\n{token}{body}", cluster.addr())
}

/// Makes a call over a connection of its own, which stays open, and returns it after the head of the answer.
async fn call_on(cluster: &Cluster, method_and_path: &str, token: Option<&str>) -> Result<TcpStream> {
    let peer = TcpStream::connect(cluster.addr()).await?;
    call_over(cluster, peer, method_and_path, token).await
}

async fn call_over(
    cluster: &Cluster,
    mut peer: TcpStream,
    method_and_path: &str,
    token: Option<&str>,
) -> Result<TcpStream> {
    let request = request(cluster, method_and_path, token);
    peer.write_all(request.as_bytes()).await?;
    let mut head = [0; 12];
    tokio::time::timeout(tasks::WAIT_TIMEOUT, peer.read_exact(&mut head)).await.context("no answer")??;
    ensure!(head.starts_with(b"HTTP/1.1 "), "{head:?}");
    Ok(peer)
}

/// Waits until the other side closes a connection.
async fn closed(mut peer: TcpStream) -> Result<()> {
    let closed = tokio::time::timeout(tasks::WAIT_TIMEOUT, peer.read_to_end(&mut Vec::new())).await;
    closed.context("the connection stays open")?.ok();
    Ok(())
}

#[tokio::test]
async fn connections_of_one_address_are_limited_until_they_authenticate() -> Result<()> {
    let limits = Limits {
        unauthenticated_per_address: 2,
        first_call: Duration::from_secs(600),
        anonymous_idle: Duration::from_secs(600),
        ..Limits::default()
    };
    let cluster = cluster(limits).await?;
    let (agents, token) = ("GET /api/v1/namespaces/default/agents", Some("open sesame"));
    let known = call_on(&cluster, agents, token).await?;
    let _also_known = call_on(&cluster, agents, token).await?;
    // Three have no token, of which the oldest makes room.
    let oldest = TcpStream::connect(cluster.addr()).await?;
    let anonymous = call_on(&cluster, SIGN_IN, None).await?;
    // The limit is another address's own.
    let elsewhere = TcpSocket::new_v4()?;
    elsewhere.bind(([127, 0, 0, 2], 0).into())?;
    let elsewhere = call_over(&cluster, elsewhere.connect(cluster.addr()).await?, SIGN_IN, None).await?;
    let newest = call_on(&cluster, SIGN_IN, None).await?;
    closed(oldest).await?;
    // However many places are held without a token, a client with one is served.
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(cluster.addr()).await?);
        call_on(&cluster, agents, token).await?;
    }
    closed(anonymous).await?;
    closed(newest).await?;
    for mut open in [known, elsewhere] {
        answers_again(&cluster, &mut open, agents, token).await?;
    }
    Ok(())
}

/// Makes another call over a connection, whose answer to the first is not read yet.
async fn answers_again(
    cluster: &Cluster,
    peer: &mut TcpStream,
    method_and_path: &str,
    token: Option<&str>,
) -> Result<()> {
    peer.write_all(request(cluster, method_and_path, token).as_bytes()).await?;
    let mut answers = Vec::new();
    let answered = async {
        while !answers.windows(8).any(|part| part == b"HTTP/1.1") {
            ensure!(peer.read_buf(&mut answers).await? > 0, "the connection was closed");
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(tasks::WAIT_TIMEOUT, answered).await.context("no answer")?
}

const SIGN_IN: &str = "POST /api/v1/system:redeemSignInCode";

#[tokio::test]
async fn idle_connections_without_a_token_are_closed() -> Result<()> {
    let limits = Limits { anonymous_idle: Duration::from_secs(10), ..Limits::default() };
    let cluster = cluster(limits).await?;
    let (agents, token) = ("GET /api/v1/namespaces/default/agents", Some("open sesame"));
    let mut known = call_on(&cluster, agents, token).await?;
    closed(call_on(&cluster, SIGN_IN, None).await?).await?;
    // One with a token, older than that, is not.
    answers_again(&cluster, &mut known, agents, token).await
}

#[tokio::test]
async fn old_connections_take_no_further_calls() -> Result<()> {
    let cluster = cluster(Limits { connection_age: Duration::from_secs(10), ..Limits::default() }).await?;
    let token = Some("open sesame");
    closed(call_on(&cluster, "GET /api/v1/namespaces/default/agents", token).await?).await
}

#[tokio::test]
async fn calls_beyond_those_of_a_connection_wait() -> Result<()> {
    let setup = Setup { limits: Limits { streams: 1, ..Limits::default() }, ..Setup::new(Backend::Memory) };
    let cluster = Cluster::start_with(setup).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let client = cluster.worker_client("echo")?;
    let session = RawWorker::join(&client, hello("echo", "hand", 1)).await?;
    let served = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&served);
    let waiting = rota_telemetry::spawn("second-call", rota_telemetry::OnExit::Done, async move {
        let agents = client.all_agents("namespaces/default").await;
        flag.store(true, Ordering::Relaxed);
        agents
    });
    for _ in 0..50 {
        cluster.client().all_agents("namespaces/default").await?;
        ensure!(!served.load(Ordering::Relaxed), "two calls of one connection are served");
    }
    drop(session);
    waiting.await??;
    Ok(())
}

#[tokio::test]
async fn connections_for_probes_are_limited() -> Result<()> {
    let cluster = Cluster::start_with(Setup { http: true, ..Setup::new(Backend::Memory) }).await?;
    let addr = cluster.http_addr().context("it does not listen")?;
    let mut silent = Vec::new();
    for _ in 0..128 {
        silent.push(TcpStream::connect(addr).await?);
    }
    let served = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&served);
    let waiting = rota_telemetry::spawn("probe", rota_telemetry::OnExit::Done, async move {
        let answer = reqwest::get(format!("http://{addr}/livez")).await;
        flag.store(true, Ordering::Relaxed);
        answer
    });
    for _ in 0..50 {
        cluster.client().all_agents("namespaces/default").await?;
        ensure!(!served.load(Ordering::Relaxed), "more connections than the limit are served");
    }
    drop(silent);
    waiting.await??.error_for_status()?;
    Ok(())
}
