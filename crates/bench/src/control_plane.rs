//! Control plane as a process of its own, whose memory and processor time are measured and which can be restarted. It is this
//! program again, with a hidden subcommand.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;
use rota_client::Options as ClientOptions;
use rota_server::{Options, Server, Tls};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::plane::{open, open_at, server_options};
use crate::replica;

/// Lines of a process that are read as they come. Its pipe stays open.
type Output = Lines<BufReader<ChildStdout>>;

/// Hidden subcommand of `rota bench`.
const SUBCOMMAND: &str = "control-plane";
/// Limit of the time until a control plane listens: a deep queue may have to be read.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Limit of a graceful shutdown, after which the process is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Run the control plane of a benchmark until standard input is closed
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Directory of the store and of the certificate
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Address of the listener; port 0 picks a free port
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Whether to use the certificate in the directory
    #[arg(long)]
    tls: bool,
    /// PostgreSQL database that takes the place of a file in the directory
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Name of one of several replicas on the database, which stands by while another one owns it
    #[arg(long, value_name = "NAME", requires = "store")]
    replica: Option<String>,
}

impl Serve {
    pub(crate) async fn run(self) -> Result<()> {
        let mut terminated = signal(SignalKind::terminate())?;
        let folder = self.data_dir.clone();
        let store = match (&self.store, &self.replica) {
            (Some(url), Some(name)) => replica::own(url, name, self.listen, &mut terminated).await?,
            (Some(url), None) => open_at(Some(url), &folder).await?,
            (None, _) => tokio::task::spawn_blocking(move || open(&folder)).await??,
        };
        let tls = self.tls.then(|| Tls::new(certificate(&self.data_dir), key(&self.data_dir)));
        let options = Options { listen: self.listen, tls, ..server_options(store, &self.data_dir) };
        let bound = Box::pin(Server::bind(options)).await?;
        println!("{}", bound.addr());
        let shutdown = CancellationToken::new();
        let parent = shutdown.clone();
        // A plain thread, which does not keep the process alive. The end of the parent closes the pipe.
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            parent.cancel();
        });
        let signalled = shutdown.clone();
        tokio::select! {
            served = bound.run(shutdown) => served.map(drop)?,
            () = async { terminated.recv().await; signalled.cancel(); std::future::pending().await } => {}
        }
        Ok(())
    }
}

fn certificate(folder: &Path) -> PathBuf {
    folder.join("certificate.pem")
}

fn key(folder: &Path) -> PathBuf {
    folder.join("certificate-key.pem")
}

/// Processor time and memory of a process.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Usage {
    /// Processor time since its start, in seconds.
    #[serde(skip)]
    pub(crate) processor_seconds: f64,
    pub(crate) resident_bytes: u64,
    /// Resident memory without mapped files, such as the database.
    pub(crate) anonymous_bytes: u64,
    /// Highest resident memory since its start.
    pub(crate) peak_resident_bytes: u64,
}

/// Returns the processor time of this process in seconds, without its children.
pub(crate) fn processor_time() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a measurement fit")]
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// Control plane in a process of its own. Ends with this one.
pub(crate) struct ControlPlane {
    process: Child,
    folder: PathBuf,
    addr: SocketAddr,
    tls: bool,
    store: Option<String>,
    /// The rest of its output: its address again, once a replica that stood by serves.
    output: Output,
}

impl ControlPlane {
    /// Starts a control plane on a free port, with its store in a directory.
    pub(crate) async fn start(folder: &Path, tls: bool) -> Result<Self> {
        Self::start_at(folder, tls, None).await
    }

    /// Starts a control plane on a free port, with its store in a PostgreSQL database or in a directory.
    pub(crate) async fn start_at(folder: &Path, tls: bool, store: Option<String>) -> Result<Self> {
        if tls {
            let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
            std::fs::write(certificate(folder), made.cert.pem())?;
            std::fs::write(key(folder), made.signing_key.serialize_pem())?;
        }
        let listen = ([127, 0, 0, 1], 0).into();
        let (process, addr, output) = start(folder, listen, tls, store.as_deref(), None).await?;
        Ok(Self { process, folder: folder.to_owned(), addr, tls, store, output })
    }

    /// Starts a replica on a PostgreSQL database, and returns once it serves or stands by. All replicas have one directory.
    pub(crate) async fn start_replica(
        folder: &Path,
        listen: SocketAddr,
        store: &str,
        name: &str,
    ) -> Result<Self> {
        let (process, addr, output) = start(folder, listen, false, Some(store), Some(name)).await?;
        Ok(Self {
            process,
            folder: folder.to_owned(),
            addr,
            tls: false,
            store: Some(store.to_owned()),
            output,
        })
    }

    /// Waits until a replica that stood by serves.
    pub(crate) async fn serves(&mut self) -> Result<()> {
        let line = timeout(START_TIMEOUT, self.output.next_line()).await;
        line.context("the replica did not take over in time")??.context("the replica has ended")?;
        Ok(())
    }

    /// Requests the end of the process, and does not wait for it.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.process.id().context("the control plane has ended")?;
        Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops the process gracefully and starts it again on the same port and store. Returns how long each took: until it had
    /// ended, and until the new one listened.
    pub(crate) async fn restart(&mut self) -> Result<(Duration, Duration)> {
        let began = Instant::now();
        end(&mut self.process).await?;
        let stopped = began.elapsed();
        let began = Instant::now();
        let store = self.store.as_deref();
        (self.process, self.addr, self.output) =
            start(&self.folder, self.addr, self.tls, store, None).await?;
        Ok((stopped, began.elapsed()))
    }

    pub(crate) async fn stop(mut self) -> Result<()> {
        end(&mut self.process).await
    }

    /// Returns the options of its clients.
    pub(crate) fn client_options(&self) -> ClientOptions {
        let scheme = if self.tls { "https" } else { "http" };
        let mut options = ClientOptions::new(format!("{scheme}://{}", self.addr));
        options.ca = self.tls.then(|| certificate(&self.folder));
        options
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        let pid = self.process.id().context("the control plane has ended")?;
        let process = procfs::process::Process::new(i32::try_from(pid)?)?;
        let (stat, status) = (process.stat()?, process.status()?);
        #[expect(clippy::cast_precision_loss, reason = "ticks of a short run are few")]
        let processor_seconds = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
        let bytes = |kibibytes: Option<u64>| kibibytes.unwrap_or_default() * 1024;
        Ok(Usage {
            processor_seconds,
            resident_bytes: bytes(status.vmrss),
            anonymous_bytes: bytes(status.rssanon),
            peak_resident_bytes: bytes(status.vmhwm),
        })
    }
}

async fn start(
    folder: &Path,
    listen: SocketAddr,
    tls: bool,
    store: Option<&str>,
    replica: Option<&str>,
) -> Result<(Child, SocketAddr, Output)> {
    let program = std::env::current_exe().context("failed to determine the path of this program")?;
    let log_path = folder.join("control-plane.log");
    let log = std::fs::File::options().create(true).append(true).open(&log_path)?;
    let mut process = Command::new(&program)
        .args(["bench", SUBCOMMAND, "--listen", &listen.to_string(), "--data-dir"])
        .arg(folder)
        .args(tls.then_some("--tls"))
        .args(store.map(|url| format!("--store={url}")))
        .args(replica.map(|name| format!("--replica={name}")))
        // The level of `rota server`, whose cost is a part of it.
        .env("ROTA_LOG", "info")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("failed to start {}", program.display()))?;
    let stdout = process.stdout.take().context("no standard output")?;
    let mut output = BufReader::new(stdout).lines();
    let line = timeout(START_TIMEOUT, output.next_line())
        .await
        .context("the control plane did not start in time")??;
    let Some(line) = line else {
        let log = std::fs::read_to_string(&log_path).unwrap_or_default();
        bail!("the control plane did not start: {}", log.lines().last().unwrap_or("no message"));
    };
    Ok((process, line.parse().context("the control plane printed no address")?, output))
}

/// Ends a process gracefully, or by force when it takes too long.
async fn end(process: &mut Child) -> Result<()> {
    if let Some(pid) = process.id() {
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
    }
    if timeout(STOP_TIMEOUT, process.wait()).await.is_err() {
        process.kill().await?;
    }
    Ok(())
}
