//! An S3 server over a folder: signatures of requests are checked, objects are files.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Key of the only account.
pub const ACCESS_KEY: &str = "test-account";
pub const SECRET_KEY: &str = "test-password";

/// A running server, which ends when this is dropped.
#[derive(Debug)]
pub struct S3Server {
    folder: PathBuf,
    address: SocketAddr,
    _stop: DropGuard,
}

impl S3Server {
    /// Serves the folders of a folder as buckets, at an address of loopback.
    pub async fn start(folder: &Path) -> Result<Self> {
        Self::start_at(folder, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Serves at an address: a restart uses the one that it had.
    pub async fn start_at(folder: &Path, address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let service = service(folder)?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        rota_telemetry::spawn("s3-server", rota_telemetry::OnExit::Done, async move {
            let accepted = accept(listener, service);
            stopped.run_until_cancelled(accepted).await;
        });
        Ok(Self { folder: folder.to_owned(), address, _stop: stop.drop_guard() })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Creates a bucket, and returns its folder.
    pub fn bucket(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Returns the variables with which programs use it.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ENDPOINT", format!("http://{}", self.address)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ]
    }
}

/// Serves an object store that has nothing, not even a bucket, and returns the settings of its clients.
pub async fn without_bucket() -> Result<Vec<(String, String)>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    rota_telemetry::spawn("no-bucket", rota_telemetry::OnExit::Done, async {
        let _ = axum::serve(listener, axum::Router::new()).await;
    });
    let settings = [
        ("aws_endpoint", &*endpoint),
        ("aws_allow_http", "true"),
        ("aws_skip_signature", "true"),
        ("aws_region", "x"),
    ];
    Ok(settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
}

fn service(folder: &Path) -> Result<S3Service> {
    let files = FileSystem::new(folder).map_err(|error| anyhow!("{error:?}"))?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    Ok(builder.build())
}

/// Serves connections until it is dropped, and ends them then.
async fn accept(listener: TcpListener, service: S3Service) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let service = service.clone();
        connections.spawn(async move {
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}
