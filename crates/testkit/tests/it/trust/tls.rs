//! Certificates are renewed under what runs, and whoever says nothing keeps nobody waiting.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rota_client::{Client, Options};
use rota_proto::v1::{self, TaskState};
use rota_testkit::{Cluster, Keep, Setup, history, tasks};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

fn pair() -> Result<(String, String)> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    Ok((made.cert.pem(), made.signing_key.serialize_pem()))
}

async fn encrypted() -> Result<Cluster> {
    Cluster::start_with(Setup { tls: Some(pair()?), ..Setup::new(Keep::Memory) }).await
}

/// A client of its own connection that trusts this file alone.
fn trusting(cluster: &Cluster, ca: &Path) -> Result<Client> {
    let mut options = Options::new(format!("https://{}", cluster.addr()));
    (options.ca, options.tls_name) = (Some(ca.to_owned()), Some("localhost".to_owned()));
    options.retry_for = Duration::ZERO;
    Ok(Client::new(options)?)
}

async fn answers(client: &Client) -> bool {
    client.all_agents("namespaces/default").await.is_ok()
}

fn kept(cluster: &Cluster, name: &str, pem: &str) -> Result<PathBuf> {
    let path = cluster.folder().join(name);
    std::fs::write(&path, pem)?;
    Ok(path)
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_and_streams_go_on() -> Result<()> {
    let cluster = encrypted().await?;
    let old = kept(&cluster, "old.pem", &std::fs::read_to_string(cluster.folder().join("tls.crt"))?)?;
    // One connection, and a stream on it that does not begin anew by itself.
    let client = trusting(&cluster, &old)?;
    let task = tasks::create(&client, tasks::task("nobody")).await?;
    let watch = v1::WatchTaskRequest { name: task.name.clone(), after_log_seq: 0 };
    let mut watch = client.tasks().watch_task(watch).await?.into_inner();
    watch.message().await?.context("nothing came")?;

    let (certificate, key) = pair()?;
    let new = kept(&cluster, "new.pem", &certificate)?;
    assert!(!answers(&trusting(&cluster, &new)?).await, "it was trusted before it was there");
    // Half of the new pair, then nonsense, then the whole.
    std::fs::write(cluster.folder().join("tls.crt"), &certificate)?;
    assert!(answers(&trusting(&cluster, &old)?).await, "halves of two pairs were shown");
    std::fs::write(cluster.folder().join("tls.key"), "nonsense")?;
    assert!(answers(&trusting(&cluster, &old)?).await);
    std::fs::write(cluster.folder().join("tls.key"), key)?;
    tasks::eventually("the new certificate", async || Ok(answers(&trusting(&cluster, &new)?).await)).await?;
    assert!(!answers(&trusting(&cluster, &old)?).await, "the old certificate is still shown");

    tasks::cancel(&client, &task.name).await?;
    loop {
        let told = watch.message().await?.context("the stream ended")?;
        if told.task.and_then(|task| task.status).is_some_and(|status| status.state() == TaskState::Cancelled)
        {
            break;
        }
    }
    history::check(&client, true).await?.check()
}

#[tokio::test]
async fn a_renewed_authority_is_read_for_the_next_connection() -> Result<()> {
    let mut cluster = encrypted().await?;
    // Clients of the kit trust what is in the cluster's own file.
    assert!(answers(cluster.client()).await);
    let (certificate, key) = pair()?;
    std::fs::write(cluster.folder().join("tls.crt"), certificate)?;
    std::fs::write(cluster.folder().join("tls.key"), key)?;
    assert_eq!(cluster.stop().await, Some(rota_server::Ended::InOrder));
    cluster.restart().await?;
    tasks::eventually("the same client's next connection", async || Ok(answers(cluster.client()).await)).await
}

#[tokio::test]
async fn peers_that_say_nothing_hold_up_nobody() -> Result<()> {
    let mut cluster = encrypted().await?;
    let mut silent = Vec::new();
    for index in 0..200 {
        let mut peer = TcpStream::connect(cluster.addr()).await?;
        if index % 2 == 0 {
            // The head of a handshake message that never comes.
            peer.write_all(&[0x16, 3, 1, 2, 0]).await?;
        }
        silent.push(peer);
    }
    assert!(answers(&cluster.another_client()?).await);
    assert_eq!(cluster.stop().await, Some(rota_server::Ended::InOrder), "it did not end by itself");
    drop(silent);
    Ok(())
}
