//! A host of git repositories over HTTP: git's own server program, with a password in front of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures::TryStreamExt;
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio_util::io::ReaderStream;

/// Bytes that a request may have.
const MAX_BODY: usize = 256 << 20;

/// A running host. It ends with its process.
#[derive(Debug)]
pub struct GitHost {
    folder: PathBuf,
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    /// Value of the Authorization header that opens the repositories; none if they are public.
    authorization: Mutex<Option<String>>,
    away: AtomicBool,
    /// Whether the next request with the right header is refused all the same.
    refuses_once: AtomicBool,
    /// Number of requests while it was away.
    refused: AtomicUsize,
    served: AtomicU64,
}

impl GitHost {
    /// Starts a host of the bare repositories in a folder, at an address of loopback.
    pub async fn start(folder: &Path) -> Result<Self> {
        Self::start_at(folder, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub async fn start_at(folder: &Path, address: SocketAddr) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            authorization: Mutex::new(None),
            away: AtomicBool::new(false),
            refuses_once: AtomicBool::new(false),
            refused: AtomicUsize::new(0),
            served: AtomicU64::new(0),
        });
        let router = Router::new()
            .fallback(serve)
            .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
            .with_state(Arc::clone(&shared));
        rota_telemetry::spawn("git-host", rota_telemetry::OnExit::Done, async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { folder: folder.to_owned(), address, shared })
    }

    /// Requires this Authorization header from now on: `Basic` with user and password in Base64.
    pub fn require(&self, authorization: Option<&str>) {
        *self.shared.authorization.lock() = authorization.map(str::to_owned);
    }

    /// Refuses the credentials of the next request that has the right ones, as a host that is about to take them over.
    pub fn refuse_once(&self) {
        self.shared.refuses_once.store(true, Ordering::Relaxed);
    }

    /// Answers every request as a host that is overloaded, or no longer.
    pub fn set_away(&self, away: bool) {
        self.shared.away.store(away, Ordering::Relaxed);
    }

    /// Returns how many requests came while it was away.
    pub fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Returns the bytes of all answers, by which a test sees how often a repository was fetched.
    pub fn served(&self) -> u64 {
        self.shared.served.load(Ordering::Relaxed)
    }

    /// Creates a repository with one commit of these files on `main`. Returns its URL.
    pub async fn repository(&self, name: &str, files: &[(&str, &str)]) -> Result<String> {
        let work = tempfile::tempdir()?;
        for (path, content) in files {
            let path = work.path().join(path);
            std::fs::create_dir_all(path.parent().context("a file has a folder")?)?;
            std::fs::write(path, content)?;
        }
        let bare = self.path(name);
        git(work.path(), &["init", "--quiet", "--initial-branch=main"]).await?;
        git(work.path(), &["add", "--all"]).await?;
        git(work.path(), &["commit", "--quiet", "-m", "first"]).await?;
        git(work.path(), &["clone", "--quiet", "--bare", ".", &bare.to_string_lossy()]).await?;
        git(&bare, &["config", "http.receivepack", "true"]).await?;
        Ok(self.url(name))
    }

    /// Returns where a repository is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.git"))
    }

    /// Returns the URL of a repository.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}.git", self.address)
    }
}

/// Runs git in a folder with an identity, and returns its output.
pub async fn git(folder: &Path, args: &[&str]) -> Result<String> {
    let done = Command::new("git")
        .args(["-c", "user.name=test", "-c", "user.email=test@example.invalid"])
        .args(args)
        .current_dir(folder)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .await?;
    ensure!(done.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(String::from_utf8(done.stdout)?.trim_end().to_owned())
}

async fn serve(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if shared.away.load(Ordering::Relaxed) {
        shared.refused.fetch_add(1, Ordering::Relaxed);
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let wanted = shared.authorization.lock().clone();
    let is_right = wanted.is_none() || given == wanted.as_deref();
    if !is_right || given.is_some() && shared.refuses_once.swap(false, Ordering::Relaxed) {
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=\"git\"")])
            .into_response();
    }
    match answer(&shared, &method, &uri, &headers, body).await {
        Ok(answer) => answer,
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Has git answer, by the protocol of CGI (RFC 3875).
async fn answer(
    shared: &Arc<Shared>,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response> {
    let text = |name: header::HeaderName| {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", &shared.folder)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method.as_str())
        .env("PATH_INFO", uri.path())
        .env("QUERY_STRING", uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", text(header::CONTENT_TYPE))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", text(header::CONTENT_ENCODING))
        .env(
            "GIT_PROTOCOL",
            headers.get("git-protocol").and_then(|value| value.to_str().ok()).unwrap_or_default(),
        )
        .env("REMOTE_USER", "test")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().context("standard input is a pipe")?;
    let mut stdout = BufReader::new(child.stdout.take().context("standard output is a pipe")?);
    rota_telemetry::spawn("git-backend", rota_telemetry::OnExit::Done, async move {
        // It may have answered before it has read everything.
        let write = async move {
            let _ = stdin.write_all(&body).await;
        };
        let (_, ()) = tokio::join!(child.wait(), write);
    });
    let mut answer = Response::builder().status(StatusCode::OK);
    loop {
        let mut line = String::new();
        ensure!(stdout.read_line(&mut line).await? > 0, "an answer has headers");
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ").context("a header has a value")?;
        answer = match name {
            "Status" => answer.status(value.split(' ').next().unwrap_or_default().parse::<u16>()?),
            _ => answer.header(name, value),
        };
    }
    let shared = Arc::clone(shared);
    let output = ReaderStream::new(stdout).inspect_ok(move |bytes| {
        shared.served.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    });
    Ok(answer.body(Body::from_stream(output))?)
}
