//! What agents of a test cluster work with, in a folder: a repository on port 8080, the API of its forge on port 8090, and a bucket of an S3
//! server on port 9000.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use rota_testkit::forge::{Fault, Forge, Kind, Method, PATH, SITE_TOKEN};
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
    let everywhere = |port| SocketAddr::from(([0, 0, 0, 0], port));
    let s3 = S3Server::start_at(&objects, everywhere(9000)).await?;
    s3.bucket("rota")?;
    let forge = Forge::start_at(Kind::Gitea, SITE_TOKEN, everywhere(8090)).await?;
    // The answer to what opens the first request: it exists then.
    forge.fault(Method::POST, Fault::Lost);
    let host = GitHost::start_at(&repositories, everywhere(8080)).await?;
    host.repository(PATH, &[("README.md", "one\n")]).await?;
    stop.recv().await;
    Ok(())
}
