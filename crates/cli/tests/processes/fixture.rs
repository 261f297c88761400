//! Fixture with a control plane, workers and commands, each a process of its own.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rota_client::{Client, Options, Token};
use rota_testkit::tasks;
use tempfile::TempDir;
use tokio::process::Command;

use crate::process::Process;
use crate::procfs;
use crate::responses::Response;
use crate::small_disk::SmallDisk;

const ROTA: &str = env!("CARGO_BIN_EXE_rota");
pub(crate) const TOKEN: &str = "a-token-for-tests-that-is-long-enough";

/// Timeouts of the control plane for workers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Graces {
    /// Heartbeat timeout.
    pub(crate) silence: &'static str,
    /// Reconnect grace.
    pub(crate) reconnect: &'static str,
    /// Recovery grace.
    pub(crate) recovery: &'static str,
}

impl Graces {
    /// Never expires a worker, even on a busy machine.
    pub(crate) const LONG: Self = Self { silence: "60s", reconnect: "60s", recovery: "60s" };
    /// Expires a worker soon after its connection ends, but not a slow one.
    pub(crate) const SHORT: Self = Self { silence: "60s", reconnect: "1s", recovery: "20s" };
    /// Also expires a silent worker.
    pub(crate) const STRICT: Self = Self { silence: "15s", reconnect: "1s", recovery: "60s" };
    /// Expires whatever is silent or away for some seconds.
    pub(crate) const CHAOS: Self = Self { silence: "3s", reconnect: "2s", recovery: "10s" };
}

/// Temporary directory with a control plane.
pub(crate) struct Fixture {
    server: Option<Process>,
    pub(crate) graces: Graces,
    /// Grace period of the control plane's shutdown.
    pub(crate) shutdown_grace: &'static str,
    /// Data directory of the control plane.
    pub(crate) data: PathBuf,
    addr: Option<SocketAddr>,
    /// Disk of the control plane, if it has one of its own.
    pub(crate) disk: Option<SmallDisk>,
    /// Program of the control plane, if not this version's.
    pub(crate) server_program: Option<PathBuf>,
    /// Additional environment of the control plane.
    pub(crate) server_environment: Vec<(&'static str, String)>,
    /// Additional environment of every process.
    pub(crate) environment: Vec<(&'static str, String)>,
    dir: TempDir,
}

impl Fixture {
    /// Returns a fixture without a control plane, for `rota dev` and commands that find none.
    pub(crate) fn bare() -> Self {
        let dir = tempfile::Builder::new().prefix("rota-fixture-").tempdir().unwrap();
        for inner in ["home", "tmp"] {
            std::fs::create_dir(dir.path().join(inner)).unwrap();
        }
        std::fs::write(dir.path().join("token"), TOKEN).unwrap();
        let data = dir.path().join("data");
        Self {
            server: None,
            graces: Graces::LONG,
            shutdown_grace: "2s",
            data,
            addr: None,
            disk: None,
            server_program: None,
            server_environment: Vec::new(),
            environment: Vec::new(),
            dir,
        }
    }

    /// Returns a fixture with a control plane.
    pub(crate) async fn start(graces: Graces) -> Result<Self> {
        let mut fixture = Self::bare();
        fixture.graces = graces;
        fixture.start_server().await?;
        Ok(fixture)
    }

    /// Returns a fixture whose control plane will have a disk of a size such as `64m`.
    pub(crate) async fn on_small_disk(graces: Graces, size: &str) -> Result<Self> {
        let mut fixture = Self::bare();
        fixture.graces = graces;
        let disk = SmallDisk::mount(&fixture.dir().join("disk"), size, fixture.mark()).await?;
        fixture.data = disk.path().join("data");
        fixture.disk = Some(disk);
        Ok(fixture)
    }

    /// Returns a fixture with a control plane on existing data.
    pub(crate) async fn start_on(data: &Path) -> Result<Self> {
        let mut fixture = Self::bare();
        fixture.data = data.to_owned();
        fixture.start_server().await?;
        Ok(fixture)
    }

    /// Starts the control plane; a restart uses the same address.
    pub(crate) async fn start_server(&mut self) -> Result<()> {
        let addr = self.addr.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let mut command = self.server_command(addr);
        command.arg("--data-dir").arg(&self.data);
        if let Some(disk) = &self.disk {
            command = disk.command(&command);
        }
        let mut server = Process::start("server", command);
        let line = server.prints("listening on http://").await;
        self.addr = line.rsplit('/').next().map(str::parse).transpose()?;
        self.server = Some(server);
        Ok(())
    }

    /// Returns the command of a control plane, without its data directory.
    pub(crate) fn server_command(&self, addr: SocketAddr) -> Command {
        let mut command = self.command_of(
            self.server_program.as_deref().unwrap_or(Path::new(ROTA)),
            &["server", "--heartbeat", "500ms", "--shutdown-grace", self.shutdown_grace],
        );
        command.args(["--listen", &addr.to_string()]);
        command.arg("--token-file").arg(self.dir().join("token"));
        for (flag, value) in [
            ("--heartbeat-timeout", self.graces.silence),
            ("--reconnect-grace", self.graces.reconnect),
            ("--recovery-grace", self.graces.recovery),
        ] {
            command.args([flag, value]);
        }
        command.envs(self.server_environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Lets commands, clients and workers connect to this address.
    pub(crate) fn connect_to(&mut self, addr: SocketAddr) {
        self.addr = Some(addr);
    }

    pub(crate) async fn kill_server(&mut self) {
        self.server.take().unwrap().kill().await;
    }

    /// Stops the control plane gracefully.
    pub(crate) async fn stop_server(&mut self) {
        let server = self.server.take().unwrap();
        server.signal(Signal::SIGTERM);
        let ended = server.ended().await;
        assert!(ended.status.success(), "{ended:?}");
    }

    pub(crate) fn server(&self) -> &Process {
        self.server.as_ref().unwrap()
    }

    /// Returns the control plane, to wait for its output.
    pub(crate) fn server_mut(&mut self) -> &mut Process {
        self.server.as_mut().unwrap()
    }

    /// Address of the control plane.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr.unwrap()
    }

    /// Directory that is removed with the fixture.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Mark in the arguments or the environment of every process of this fixture.
    pub(crate) fn mark(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    /// Returns the program as a command, isolated from the user's configuration and any other `rota dev`.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_of(Path::new(ROTA), args)
    }

    /// Returns another version of the program as a command.
    pub(crate) fn command_of(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .current_dir(self.dir())
            .env_clear()
            .env("PATH", rota_telemetry::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir().join("home"))
            .env("TMPDIR", self.dir().join("tmp"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(addr) = self.addr {
            command.env("ROTA_ENDPOINT", format!("http://{addr}"));
            command.env("ROTA_TOKEN_FILE", self.dir().join("token"));
        }
        command
    }

    pub(crate) async fn rota(&self, args: &[&str]) -> Response {
        Response::of(self.command(args), "").await
    }

    /// Writes a key file, which no other user can access.
    pub(crate) fn write_key(&self, name: &str, key: &[u8]) -> Result<()> {
        let path = self.dir().join(name);
        std::fs::write(&path, key)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(())
    }

    /// Writes a manifest and applies it.
    pub(crate) async fn apply(&self, file: &str, text: &str) -> Response {
        std::fs::write(self.dir().join(file), text).unwrap();
        self.rota(&["apply", "-f", file]).await
    }

    /// Returns a client that retries across restarts.
    pub(crate) fn client(&self) -> Result<Client> {
        self.client_with(TOKEN, Duration::from_secs(60))
    }

    /// Returns a client with a token, which retries for some time.
    pub(crate) fn client_with(&self, token: &str, retry_for: Duration) -> Result<Client> {
        let mut options = Options::new(format!("http://{}", self.addr()));
        options.token = Token::Fixed(token.to_owned().into());
        options.retry_for = retry_for;
        Ok(Client::new(options)?)
    }

    /// Returns a client of the admin that does not retry.
    pub(crate) fn impatient_client(&self) -> Result<Client> {
        self.client_with(TOKEN, Duration::ZERO)
    }

    /// Starts a worker and waits until it is connected.
    pub(crate) async fn worker(&self, agent: &str, name: &str, slots: usize) -> Result<Process> {
        self.worker_at(self.addr(), agent, name, slots).await
    }

    /// Starts a worker that connects to another address, such as a proxy.
    pub(crate) async fn worker_at(
        &self,
        at: SocketAddr,
        agent: &str,
        name: &str,
        slots: usize,
    ) -> Result<Process> {
        let mut command = self.command(&["worker", "--agent", agent, "--worker", name]);
        command.args(["--slots", &slots.to_string()]).arg("--state-dir").arg(self.state_dir());
        command.env("ROTA_ENDPOINT", format!("http://{at}"));
        command.env("ROTA_TOKEN_FILE", self.worker_token(agent, name).await?);
        let worker = Process::start(name, command);
        tasks::connected(&self.client()?, name).await.context("the worker did not connect")?;
        Ok(worker)
    }

    /// Creates a file with a token of a worker.
    pub(crate) async fn worker_token(&self, agent: &str, name: &str) -> Result<PathBuf> {
        let token = self.rota(&["admin", "create-worker-token", agent, "--worker", name]).await;
        let file = self.dir().join(format!("{name}.token"));
        std::fs::write(&file, token.success())?;
        Ok(file)
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir().join("workers")
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        drop((self.server.take(), self.disk.take()));
        // Kills what a failed test has left. Each process carries the path of this fixture.
        for _ in 0..1000 {
            let left = procfs::marked(self.mark());
            if left.is_empty() {
                return;
            }
            for one in left {
                let _ = kill(Pid::from_raw(one.pid), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
