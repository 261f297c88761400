//! Replicas on one database as processes, with clients and workers that are connected to one of them.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use rota_proto::v1::TaskState;
use rota_telemetry::free_addresses;
use rota_testkit::{history, tasks};

use crate::process::Process;
use crate::{Fixture, Graces, workload};

/// Prints lines until a file exists.
const PRINTS: &str = r#"
i=0
until [ -e "$GATE" ]; do i=$((i + 1)); echo "line $i"; sleep 0.05; done
echo "last $i"
"#;

/// Replicas on one database, of which some run.
pub(crate) struct Replicas {
    pub(crate) fixture: Fixture,
    pub(crate) url: String,
    /// Routes of single replicas to the database, which take the place of the URL.
    pub(crate) routes: Vec<String>,
    /// Additional environments of single replicas.
    pub(crate) environments: Vec<Vec<(&'static str, String)>>,
    pub(crate) running: Vec<Option<Process>>,
    pub(crate) addrs: Vec<SocketAddr>,
    /// Of their probes and metrics.
    http: Vec<SocketAddr>,
}

impl Replicas {
    /// Starts replicas. The first one owns the database; clients and workers connect to the last one.
    pub(crate) async fn start(url: String, graces: Graces, count: usize) -> Result<Self> {
        let mut fixture = Fixture::bare();
        fixture.graces = graces;
        Self::start_in(fixture, url, count).await
    }

    /// Starts replicas with the settings of a fixture.
    pub(crate) async fn start_in(fixture: Fixture, url: String, count: usize) -> Result<Self> {
        let mut replicas = Self::prepare(fixture, url, count)?;
        replicas.start_all().await;
        Ok(replicas)
    }

    /// Starts all: the first one owns the database.
    pub(crate) async fn start_all(&mut self) {
        for index in 0..self.running.len() {
            self.start_one(index, if index == 0 { "listening on" } else { "standing by" }).await;
        }
    }

    /// Returns replicas of which none runs.
    pub(crate) fn prepare(mut fixture: Fixture, url: String, count: usize) -> Result<Self> {
        let mut addrs = free_addresses(2 * count)?;
        let http = addrs.split_off(count);
        fixture.write_key("key", &[7; 32])?;
        std::fs::create_dir(fixture.dir().join("artifacts"))?;
        fixture.connect_to(*addrs.last().unwrap());
        let running = (0..count).map(|_| None).collect();
        Ok(Self { fixture, url, routes: Vec::new(), environments: Vec::new(), running, addrs, http })
    }

    /// Starts one, and waits for a line of its output.
    pub(crate) async fn start_one(&mut self, index: usize, line: &str) {
        let (dir, name) = (self.fixture.dir(), format!("replica-{index}"));
        let mut command = self.fixture.server_command(self.addrs[index]);
        command.arg("--data-dir").arg(dir.join(&name)).args(["--replica", &name]);
        command.args(["--store", self.routes.get(index).unwrap_or(&self.url)]);
        command.args(["--http-listen", &self.http[index].to_string()]);
        command.arg("--key-file").arg(dir.join("key"));
        command.arg("--artifacts").arg(format!("file://{}", dir.join("artifacts").display()));
        command.envs(self.environments.get(index).cloned().unwrap_or_default());
        let mut process = Process::start(&name, command);
        process.prints(line).await;
        self.running[index] = Some(process);
    }

    pub(crate) fn replica(&self, index: usize) -> &Process {
        self.running[index].as_ref().unwrap()
    }

    /// Returns the time of a replica's clock, in seconds since 1970.
    pub(crate) async fn time_of(&self, index: usize) -> Result<i64> {
        let page = reqwest::get(format!("http://{}/livez", self.http[index])).await?;
        let date = page.headers().get(reqwest::header::DATE).context("no date")?.to_str()?;
        Ok(jiff::fmt::rfc2822::parse(date)?.timestamp().as_second())
    }

    /// Returns the status and the text of a page of probes or metrics.
    pub(crate) async fn page(&self, index: usize, path: &str) -> Result<(u16, String)> {
        let page = reqwest::get(format!("http://{}{path}", self.http[index])).await?;
        Ok((page.status().as_u16(), page.text().await?))
    }

    pub(crate) fn owns(&self, index: usize) -> bool {
        self.replica(index).count("listening on") > 0
    }

    /// Waits until one of these replicas owns the database, and returns it.
    pub(crate) async fn owner_of(&self, candidates: &[usize]) -> Result<usize> {
        let owner = || candidates.iter().copied().find(|index| self.owns(*index));
        tasks::eventually("a takeover", async || Ok(owner().is_some())).await?;
        Ok(owner().unwrap())
    }

    /// Starts tasks that print until [`Replicas::open_gate`].
    pub(crate) async fn run_tasks(&self, count: usize) -> Result<Vec<String>> {
        let client = self.fixture.client()?;
        let gate = self.gate();
        let mut names = Vec::new();
        for _ in 0..count {
            let task = workload::shell(PRINTS, &[("GATE", &gate)]);
            names.push(tasks::create(&client, task).await?.name);
        }
        for name in &names {
            workload::prints(&client, name, "line 3\n").await?;
        }
        Ok(names)
    }

    pub(crate) fn gate(&self) -> String {
        self.fixture.dir().join("gate").to_str().unwrap().to_owned()
    }

    /// Lets the tasks end: each in its first attempt, with every line of its output.
    pub(crate) async fn end_tasks(&self, names: &[String]) -> Result<()> {
        std::fs::write(self.gate(), "")?;
        let client = self.fixture.client()?;
        for name in names {
            let status = tasks::ended(&client, name).await?.status.unwrap();
            assert_eq!(
                (status.state(), status.attempt, status.worker_losses),
                (TaskState::Succeeded, 1, 0),
                "{status:?}"
            );
            let output = workload::printed(&client, name).await?;
            let count = output.lines().count() - 1;
            let lines: String = (1..=count).map(|line| format!("line {line}\n")).collect();
            assert_eq!(output, format!("{lines}last {count}\n"));
        }
        history::check(&client, true).await?.check()
    }
}
