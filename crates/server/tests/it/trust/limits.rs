//! Limits of connections and of messages, before and after authentication.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use rota_proto::v1::Event;
use rota_proto::worker::v1::session_request::Kind;
use rota_proto::worker::v1::{Hello, Report};
use rota_server::Limits;
use rota_testkit::client::{Client, Options, lazy_channel};
use rota_testkit::raw::{RawSession, hello};
use rota_testkit::wire::{Field1, begin};
use rota_testkit::{Backend, Cluster, RawWorker, Setup, tasks};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

async fn cluster(limits: Limits) -> Result<Cluster> {
    let setup = Setup { limits, token: Some("open sesame".to_owned()), ..Setup::new(Backend::Memory) };
    Cluster::start_with(setup).await
}

#[tokio::test]
async fn silent_connections_are_closed() -> Result<()> {
    let cluster = cluster(Limits::default()).await?;
    let client = cluster.client();
    let worker_client = cluster.worker_client("echo")?;
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(&worker_client, hello("echo", "hand", 1)).await?;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(cluster.addr()).await?);
    }
    for peer in &mut silent {
        let closed = tokio::time::timeout(tasks::WAIT_TIMEOUT, peer.read_to_end(&mut Vec::new())).await;
        closed.context("a silent connection stays open")?.ok();
    }
    // An authenticated connection, older than those, is not.
    let task = tasks::create(client, tasks::task("echo")).await?;
    ensure!(task.name.ends_with(&worker.take().await?.task_id));
    Ok(())
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() -> Result<()> {
    let setup =
        Setup { limits: Limits { connections: 1, ..Limits::default() }, ..Setup::new(Backend::Memory) };
    let cluster = Cluster::start_with(setup).await?;
    let connect = || Client::new(Options::new(format!("http://{}", cluster.addr())));
    let first = connect()?;
    first.all_agents("namespaces/default").await?;
    let (second, served) = (connect()?, Arc::new(AtomicBool::new(false)));
    let flag = Arc::clone(&served);
    let waiting = rota_telemetry::spawn("second-call", rota_telemetry::OnExit::Done, async move {
        let agents = second.all_agents("namespaces/default").await;
        flag.store(true, Ordering::Relaxed);
        agents
    });
    for _ in 0..50 {
        first.all_agents("namespaces/default").await?;
        ensure!(!served.load(Ordering::Relaxed), "two connections are served");
    }
    drop(first);
    waiting.await??;
    Ok(())
}

#[tokio::test]
async fn sessions_without_a_hello_are_closed() -> Result<()> {
    let cluster = cluster(Limits::default()).await?;
    let mut session = RawSession::open(&cluster.worker_client("echo")?, None).await?;
    let status = session.end_status().await;
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "no Hello within 10 s"));
    Ok(())
}

#[tokio::test]
async fn silent_probes_block_no_others() -> Result<()> {
    let cluster = Cluster::start_with(Setup { http: true, ..Setup::new(Backend::Memory) }).await?;
    let address = cluster.http_addr().context("no HTTP listener")?;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(address).await?);
    }
    let probe = reqwest::get(format!("http://{address}/livez"));
    let answer = tokio::time::timeout(tasks::WAIT_TIMEOUT, probe).await.context("no place is free")??;
    ensure!(answer.status().is_success(), "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn large_messages_are_rejected() -> Result<()> {
    let cluster = cluster(Limits::default()).await?;
    let client = cluster.client();
    let worker_client = cluster.worker_client("echo")?;
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let large = Hello { version: "x".repeat(200 << 10), ..hello("echo", "hand", 1) };
    let many = Hello { capabilities: vec![String::new(); 10_000], ..hello("echo", "hand", 1) };
    for first in [large, many] {
        let status = match RawSession::open(&worker_client, Some(Kind::Hello(Box::new(first)))).await {
            Ok(mut session) => session.end_status().await,
            Err(status) => status,
        };
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        assert!(status.message().starts_with("a message has "), "{status:?}");
    }
    let mut worker = RawWorker::join(&worker_client, hello("echo", "hand", 1)).await?;
    let events = vec![Event::default(); 300_000];
    worker.send(Kind::Report(Report { events, ..Report::default() }));
    let status = worker.session.end_status().await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(status.message(), "a message has more than 262144 elements");
    Ok(())
}

#[tokio::test]
async fn large_health_request_is_rejected() -> Result<()> {
    let cluster = cluster(Limits::default()).await?;
    let mut health = HealthClient::new(lazy_channel(&Options::new(format!("http://{}", cluster.addr())))?);
    let service = "x".repeat(300);
    let status = health.check(HealthCheckRequest { service }).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    Ok(())
}

/// Whatever requires no token is refused by its size, over gRPC before it has ended.
#[tokio::test]
async fn large_sign_in_is_rejected() -> Result<()> {
    let cluster = cluster(Limits::default()).await?;
    let endpoint = format!("http://{}", cluster.addr());
    let code = Field1 { value: vec![b'x'; 5000].into() };
    let refused = begin(&endpoint, "/rota.v1.AdminService/RedeemSignInCode", code);
    let refused =
        tokio::time::timeout(tasks::WAIT_TIMEOUT, refused).await.context("its end is awaited")??;
    let status = refused.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().ends_with("at most 4096 are accepted"), "{status:?}");

    let request = reqwest::Client::new().post(format!("{endpoint}/api/v1/system:redeemSignInCode"));
    let request = request.header("content-type", "application/json").body(" ".repeat(5000));
    let answer = request.send().await?.text().await?;
    assert!(answer.contains("BODY_TOO_LARGE") && answer.contains("4096 bytes"), "{answer}");
    Ok(())
}
