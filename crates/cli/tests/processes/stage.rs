//! A place with a control plane, workers and commands, each a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rota_client::{Client, Options, Token};
use rota_testkit::tasks;
use tempfile::TempDir;
use tokio::process::Command;

use crate::answers::Answer;
use crate::process::Process;
use crate::seen;

const TOKEN: &str = "a-token-for-tests";

/// How long the control plane waits for workers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Graces {
    /// A silent connection is dead.
    pub(crate) silence: &'static str,
    /// A worker without one is lost.
    pub(crate) reconnect: &'static str,
    /// The same after a start.
    pub(crate) recovery: &'static str,
}

impl Graces {
    /// No worker is lost, however busy the machine is.
    pub(crate) const LONG: Self = Self { silence: "60s", reconnect: "60s", recovery: "60s" };
    /// One whose connection ends is lost soon; one that is only slow is not.
    pub(crate) const SHORT: Self = Self { silence: "60s", reconnect: "1s", recovery: "8s" };
    /// One that says nothing is lost, too.
    pub(crate) const STRICT: Self = Self { silence: "5s", reconnect: "1s", recovery: "60s" };
}

/// A place with a control plane.
pub(crate) struct Stage {
    server: Option<Process>,
    graces: Graces,
    /// What else the control plane is told.
    more: Vec<String>,
    data: PathBuf,
    addr: Option<SocketAddr>,
    /// What every process finds in its environment besides.
    pub(crate) environment: Vec<(&'static str, String)>,
    dir: TempDir,
}

impl Stage {
    /// Without a control plane, for `rota dev` and commands that find none.
    pub(crate) fn bare() -> Self {
        let dir = tempfile::Builder::new().prefix("rota-stage-").tempdir().unwrap();
        for inner in ["home", "tmp"] {
            std::fs::create_dir(dir.path().join(inner)).unwrap();
        }
        std::fs::write(dir.path().join("token"), TOKEN).unwrap();
        let data = dir.path().join("data");
        Self {
            server: None,
            graces: Graces::LONG,
            more: Vec::new(),
            data,
            addr: None,
            environment: Vec::new(),
            dir,
        }
    }

    /// With a control plane.
    pub(crate) async fn start(graces: Graces) -> Result<Self> {
        let mut stage = Self::bare();
        stage.graces = graces;
        stage.start_server().await?;
        Ok(stage)
    }

    /// With a control plane that is told more.
    pub(crate) async fn with(graces: Graces, more: &[&str]) -> Result<Self> {
        let mut stage = Self::bare();
        (stage.graces, stage.more) = (graces, more.iter().map(ToString::to_string).collect());
        stage.start_server().await?;
        Ok(stage)
    }

    /// With a control plane on what another one has left.
    pub(crate) async fn start_on(data: &Path) -> Result<Self> {
        let mut stage = Self::bare();
        stage.data = data.to_owned();
        stage.start_server().await?;
        Ok(stage)
    }

    /// Starts the control plane, the second time where it was before.
    pub(crate) async fn start_server(&mut self) -> Result<()> {
        let addr = self.addr.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let mut command = self.command(&["server", "--heartbeat", "500ms", "--shutdown-grace", "2s"]);
        command.args(["--listen", &addr.to_string()]).arg("--data-dir").arg(&self.data);
        command.arg("--token-file").arg(self.dir().join("token"));
        for (flag, value) in [
            ("--heartbeat-timeout", self.graces.silence),
            ("--reconnect-grace", self.graces.reconnect),
            ("--recovery-grace", self.graces.recovery),
        ] {
            command.args([flag, value]);
        }
        command.args(&self.more);
        let mut server = Process::start("server", command);
        let line = server.says("listening on http://").await;
        self.addr = line.rsplit('/').next().map(str::parse).transpose()?;
        self.server = Some(server);
        Ok(())
    }

    /// Kills the control plane.
    pub(crate) async fn kill_server(&mut self) {
        self.server.take().unwrap().kill().await;
    }

    /// Ends the control plane in order.
    pub(crate) async fn stop_server(&mut self) {
        let server = self.server.take().unwrap();
        server.signal(Signal::SIGTERM);
        let ended = server.ended().await;
        assert!(ended.status.success(), "{ended:?}");
    }

    /// The control plane.
    pub(crate) fn server(&self) -> &Process {
        self.server.as_ref().unwrap()
    }

    /// The same, to hear what it says.
    pub(crate) fn server_mut(&mut self) -> &mut Process {
        self.server.as_mut().unwrap()
    }

    /// Where the control plane listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr.unwrap()
    }

    /// A folder that goes with the stage.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What every process of this stage carries in its arguments or its environment.
    pub(crate) fn mark(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    /// The program, which sees nothing of whoever runs the test: no configuration, no other `rota dev`.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rota"));
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

    /// What a command answers.
    pub(crate) async fn rota(&self, args: &[&str]) -> Answer {
        Answer::of(self.command(args), "").await
    }

    /// Writes a manifest, and applies it.
    pub(crate) async fn apply(&self, file: &str, text: &str) -> Answer {
        std::fs::write(self.dir().join(file), text).unwrap();
        self.rota(&["apply", "-f", file]).await
    }

    /// A client that goes on over restarts.
    pub(crate) fn client(&self) -> Result<Client> {
        let mut options = Options::new(format!("http://{}", self.addr()));
        options.token = Token::Fixed(TOKEN.into());
        options.retry_for = Duration::from_secs(60);
        Ok(Client::new(options)?)
    }

    /// A worker of an agent that is up.
    pub(crate) async fn worker(&self, agent: &str, name: &str, slots: usize) -> Result<Process> {
        self.worker_at(self.addr(), agent, name, slots).await
    }

    /// The same, which comes by way of another address.
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
        let worker = Process::start(name, command);
        tasks::connected(&self.client()?, name).await.context("the worker does not connect")?;
        Ok(worker)
    }

    /// Where workers keep their files.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir().join("workers")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(self.server.take());
        // Whatever a failed test has left. Each carries the path of this stage, hence is nobody else's.
        for _ in 0..1000 {
            let left = seen::marked(self.mark());
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
