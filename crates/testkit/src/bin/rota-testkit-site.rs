//! What agents of a test cluster work with: a repository on port 8080, and a bucket of an S3 server on port 9000, in a folder.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use rota_testkit::git_host::GitHost;
use rota_testkit::s3_server::S3Server;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<()> {
    let mut stop = signal(SignalKind::terminate())?;
    let folder = std::env::args_os().nth(1).map(PathBuf::from).context("usage: rota-testkit-site FOLDER")?;
    let (repositories, objects) = (folder.join("repositories"), folder.join("objects"));
    for folder in [&repositories, &objects] {
        std::fs::create_dir_all(folder)?;
    }
    let s3 = S3Server::start_at(&objects, SocketAddr::from(([0, 0, 0, 0], 9000))).await?;
    s3.bucket("rota")?;
    let host = GitHost::start_at(&repositories, SocketAddr::from(([0, 0, 0, 0], 8080))).await?;
    host.repository("project", &[("README.md", "one\n")]).await?;
    stop.recv().await;
    Ok(())
}
