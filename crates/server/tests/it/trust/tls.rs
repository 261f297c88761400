//! Certificates are renewed while the control plane runs, and silent peers block no others.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rota_proto::v1::{self, TaskState};
use rota_testkit::client::{Client, Options};
use rota_testkit::{Backend, Cluster, Setup, history, tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn certificate_pair() -> Result<(String, String)> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    Ok((made.cert.pem(), made.signing_key.serialize_pem()))
}

async fn start_tls_cluster() -> Result<Cluster> {
    Cluster::start_with(Setup { tls: Some(certificate_pair()?), ..Setup::new(Backend::Memory) }).await
}

/// Creates a client with a connection of its own that trusts only this file.
fn client_trusting(cluster: &Cluster, ca: &Path) -> Result<Client> {
    let mut options = Options::new(format!("https://{}", cluster.addr()));
    (options.ca, options.tls_name) = (Some(ca.to_owned()), Some("localhost".to_owned()));
    options.retry_for = Duration::ZERO;
    Ok(Client::new(options)?)
}

async fn is_reachable(client: &Client) -> bool {
    client.all_agents("namespaces/default").await.is_ok()
}

fn write_pem(cluster: &Cluster, name: &str, pem: &str) -> Result<PathBuf> {
    let path = cluster.folder().join(name);
    std::fs::write(&path, pem)?;
    Ok(path)
}

#[tokio::test]
async fn renewed_certificate_is_served_and_streams_survive() -> Result<()> {
    let cluster = start_tls_cluster().await?;
    let old = write_pem(&cluster, "old.pem", &std::fs::read_to_string(cluster.folder().join("tls.crt"))?)?;
    // One connection, and a stream on it that does not reconnect by itself.
    let client = client_trusting(&cluster, &old)?;
    let task = tasks::create(&client, tasks::task("missing")).await?;
    let watch = v1::WatchTaskRequest { name: task.name.clone(), after_log_seq: 0, ..Default::default() };
    let mut watch = client.tasks().watch_task(watch).await?.into_inner();
    watch.message().await?.context("nothing came")?;

    let (certificate, key) = certificate_pair()?;
    let new = write_pem(&cluster, "new.pem", &certificate)?;
    assert!(!is_reachable(&client_trusting(&cluster, &new)?).await, "it was trusted before it was there");
    // Half of the new pair, then garbage, then the whole pair.
    std::fs::write(cluster.folder().join("tls.crt"), &certificate)?;
    assert!(is_reachable(&client_trusting(&cluster, &old)?).await, "halves of two pairs were shown");
    std::fs::write(cluster.folder().join("tls.key"), "nonsense")?;
    assert!(is_reachable(&client_trusting(&cluster, &old)?).await);
    std::fs::write(cluster.folder().join("tls.key"), key)?;
    tasks::eventually("the new certificate", async || {
        Ok(is_reachable(&client_trusting(&cluster, &new)?).await)
    })
    .await?;
    assert!(!is_reachable(&client_trusting(&cluster, &old)?).await, "the old certificate is still shown");

    tasks::cancel(&client, &task.name).await?;
    loop {
        let update = watch.message().await?.context("the stream ended")?;
        if update
            .task
            .and_then(|task| task.status)
            .is_some_and(|status| status.state() == TaskState::Cancelled)
        {
            break;
        }
    }
    history::check(&client, true).await?.check()
}

#[tokio::test]
async fn renewed_ca_applies_to_next_connection() -> Result<()> {
    let mut cluster = start_tls_cluster().await?;
    // Clients of the testkit trust the cluster's own file.
    assert!(is_reachable(cluster.client()).await);
    let (certificate, key) = certificate_pair()?;
    std::fs::write(cluster.folder().join("tls.crt"), certificate)?;
    std::fs::write(cluster.folder().join("tls.key"), key)?;
    assert_eq!(cluster.stop().await, Some(rota_server::ShutdownOutcome::Graceful));
    cluster.restart().await?;
    tasks::eventually("the same client's next connection", async || Ok(is_reachable(cluster.client()).await))
        .await
}

#[tokio::test]
async fn slow_handshakes_are_closed() -> Result<()> {
    let cluster = start_tls_cluster().await?;
    let mut peer = TcpStream::connect(cluster.addr()).await?;
    // The header of a handshake message whose body never arrives.
    peer.write_all(&[0x16, 3, 1, 2, 0]).await?;
    let closed = tokio::time::timeout(tasks::WAIT_TIMEOUT, peer.read_to_end(&mut Vec::new())).await;
    closed.context("the handshake continues")?.ok();
    Ok(())
}

#[tokio::test]
async fn silent_peers_block_no_others() -> Result<()> {
    let mut cluster = start_tls_cluster().await?;
    let mut silent = Vec::new();
    for index in 0..200 {
        let mut peer = TcpStream::connect(cluster.addr()).await?;
        if index % 2 == 0 {
            // The header of a handshake message whose body never arrives.
            peer.write_all(&[0x16, 3, 1, 2, 0]).await?;
        }
        silent.push(peer);
    }
    assert!(is_reachable(&cluster.another_client()?).await);
    assert_eq!(
        cluster.stop().await,
        Some(rota_server::ShutdownOutcome::Graceful),
        "it did not end by itself"
    );
    drop(silent);
    Ok(())
}
