//! Everything over IPv6 alone: nothing listens on, or connects to, an address of IPv4.

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use rota_client::{Client, Options, Token};
use rota_proto::v1::TaskState;
use rota_testkit::tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::Process;
use crate::{Fixture, workload};

const ANY_PORT: &str = "[::1]:0";
const AGENT: &str = "\
apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: shell}
spec: {runtime: {command: {}}, maxReplicas: 1}
";

/// Returns the response of a probe.
async fn probe(addr: &str) -> Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    Ok(response)
}

#[tokio::test]
async fn control_plane_and_worker_need_no_ipv4() -> Result<()> {
    let mut fixture = Fixture::bare();
    fixture.server_environment = vec![("ROTA_SERVER_HTTP_LISTEN", ANY_PORT.to_owned())];
    fixture.connect_to(ANY_PORT.parse()?);
    fixture.start_server().await?;
    assert!(fixture.addr().is_ipv6());
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "one", 1).await?;
    let name = tasks::create(&client, workload::shell("echo hello", &[])).await?.name;
    assert_eq!(tasks::ended(&client, &name).await?.status.unwrap_or_default().state(), TaskState::Succeeded);
    assert!(workload::printed(&client, &name).await?.contains("hello"));
    let line = fixture.server_mut().prints("serving probes and metrics on http://").await;
    let ready = probe(line.rsplit('/').next().context("no address")?).await?;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    fixture.rota(&["get", "tasks"]).await.success();
    Ok(())
}

#[tokio::test]
async fn dev_needs_no_ipv4() -> Result<()> {
    let fixture = Fixture::bare();
    let command = fixture.command(&["dev", "--data-dir", "data", "--listen", ANY_PORT]);
    let mut dev = Process::start("dev", command);
    let line = dev.prints("rota dev is running at ").await;
    let endpoint = line.rsplit(' ').next().context("no address")?;
    assert!(endpoint.starts_with("http://[::1]:"), "{line}");
    let mut options = Options::new(endpoint);
    options.token = Token::File(fixture.dir().join("data/token"));
    let client = Client::new(options)?;
    // Commands find it by themselves, and it starts the worker.
    fixture.apply("agent.yaml", AGENT).await.success();
    let name = tasks::create(&client, workload::shell("echo hello", &[])).await?.name;
    assert_eq!(tasks::ended(&client, &name).await?.status.unwrap_or_default().state(), TaskState::Succeeded);
    dev.signal(Signal::SIGINT);
    assert_eq!(dev.ended().await.status.code(), Some(0));
    Ok(())
}
