//! Processes of a run: a control plane on a disk and with a clock of its own; workers behind proxies, with wrong clocks, a
//! full disk, or the Claude Code CLI.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rota_client::Client;
use rota_proto::v1;
use rota_testkit::{Proxy, tasks};

use super::Counts;
use super::background::Background;
use super::load::{CLAUDE, SCRIPTED};
use crate::process::Process;
use crate::small_disk::SmallDisk;
use crate::{Fixture, Graces, claude, faked_clock, workload};

const STORE: &str = "256m";
const FULL: &str = "1m";
/// Worker whose disk is full.
const SICK: &str = "shell-full";
const REJECTING: &str = "echo-no";

/// How a worker is started, again and again under the same name.
#[derive(Clone, Copy)]
struct Recipe {
    name: &'static str,
    agent: &'static str,
    slots: usize,
    /// Offset of its clock, as faketime reads it.
    clock: Option<&'static str>,
}

const WORKERS: [Recipe; 6] = [
    Recipe { name: "echo-0", agent: SCRIPTED, slots: 4, clock: None },
    Recipe { name: "echo-1", agent: SCRIPTED, slots: 4, clock: Some("-3h") },
    Recipe { name: "echo-2", agent: SCRIPTED, slots: 4, clock: None },
    Recipe { name: "shell-0", agent: workload::AGENT, slots: 3, clock: Some("+3h") },
    Recipe { name: "shell-1", agent: workload::AGENT, slots: 3, clock: None },
    Recipe { name: "coder-0", agent: CLAUDE, slots: 2, clock: None },
];

/// Worker with the proxy between it and the control plane.
pub(crate) struct Worker {
    recipe: Recipe,
    pub(crate) process: Process,
    pub(crate) proxy: Proxy,
}

impl Worker {
    pub(crate) fn name(&self) -> &'static str {
        self.recipe.name
    }
}

pub(crate) struct World {
    pub(crate) workers: Vec<Worker>,
    sick: Process,
    sick_disk: SmallDisk,
    background: Background,
    /// Names of tasks besides those of the load.
    pub(crate) created: Vec<String>,
    pub(crate) model: rota_fake_model::Handle,
    clock: Clock,
    programs: Programs,
    pub(crate) fixture: Fixture,
}

/// Paths of what workers are started with.
struct Programs {
    claude: String,
    faketime: String,
}

/// Clock of the control plane.
struct Clock {
    file: PathBuf,
    hours: u32,
}

impl Clock {
    fn set(&self) -> Result<()> {
        // Replaced in one step: it is read at any time.
        let next = self.file.with_extension("next");
        fs::write(&next, format!("+{}h", self.hours))?;
        Ok(fs::rename(next, &self.file)?)
    }
}

impl World {
    pub(crate) async fn start() -> Result<Self> {
        let library = faked_clock::library()?;
        let claude = tokio::task::spawn_blocking(claude::installed).await??;
        let programs = Programs { claude, faketime: library.clone() };
        let model = rota_fake_model::Options::default().start().await?;
        let mut fixture = Fixture::on_small_disk(Graces::CHAOS, STORE).await?;
        let clock = Clock { file: fixture.dir().join("clock"), hours: 0 };
        clock.set()?;
        fixture.server_environment = faked_clock::environment(
            &library,
            [
                ("FAKETIME_TIMESTAMP_FILE", clock.file.display().to_string()),
                ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ],
        );
        fixture.start_server().await?;
        let client = fixture.client()?;
        tasks::agent(&client, SCRIPTED, tasks::script([]), &[]).await?;
        workload::agent(&client).await?;
        let claude = v1::ClaudeRuntime {
            permission_policy: v1::PermissionPolicy::Allow.into(),
            ..v1::ClaudeRuntime::default()
        };
        let runtime = v1::Runtime { kind: Some(v1::runtime::Kind::Claude(claude)) };
        tasks::agent(&client, CLAUDE, runtime, &[]).await?;

        let token = fs::read_to_string(fixture.worker_token(SCRIPTED, REJECTING).await?)?;
        let rejecting = fixture.client_with(token.trim(), Duration::ZERO)?;
        let background = Background::start(fixture.impatient_client()?, rejecting, SCRIPTED, REJECTING);
        let mut workers = Vec::new();
        for recipe in WORKERS {
            let proxy = Proxy::start(fixture.addr()).await?;
            fixture.worker_token(recipe.agent, recipe.name).await?;
            let process = start(&fixture, recipe, &proxy, &programs);
            tasks::connected(&client, recipe.name).await.context(recipe.name)?;
            workers.push(Worker { recipe, process, proxy });
        }
        let disk = SmallDisk::mount(&fixture.dir().join("full"), FULL, fixture.mark()).await?;
        disk.fill()?;
        let mut command = fixture.command(&["worker", "--agent", workload::AGENT, "--worker", SICK]);
        command.arg("--state-dir").arg(disk.path()).args(["--min-free-disk-mib", "0"]);
        command.env("ROTA_TOKEN_FILE", fixture.worker_token(workload::AGENT, SICK).await?);
        let sick = Process::start(SICK, disk.command(&command));
        Ok(Self {
            workers,
            sick,
            sick_disk: disk,
            background,
            created: Vec::new(),
            model,
            clock,
            programs,
            fixture,
        })
    }

    /// Starts a worker again that has ended.
    pub(crate) fn start_again(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        worker.process = start(&self.fixture, worker.recipe, &worker.proxy, &self.programs);
    }

    /// Sets the control plane's clock forward by an hour.
    pub(crate) fn jump(&mut self) -> Result<()> {
        self.clock.hours += 1;
        self.clock.set()
    }

    /// Ids of the processes that are meant to live.
    pub(crate) fn pids(&self) -> BTreeSet<i32> {
        let workers = self.workers.iter().map(|worker| worker.process.pid());
        let disks = [self.fixture.disk.as_ref(), Some(&self.sick_disk)].into_iter().flatten();
        workers
            .chain(disks.map(SmallDisk::pid))
            .chain([self.sick.pid(), self.fixture.server().pid()])
            .collect()
    }

    /// Returns what the whole run shows of faults that last.
    pub(crate) async fn effects(&self, client: &Client) -> Result<Counts> {
        let workers = tasks::workers(client).await?;
        let of = |name: &str| workers.iter().find(|worker| worker.name.ends_with(name)).cloned();
        let sick = of(SICK).unwrap_or_default();
        let full = usize::from(!sick.not_ready_reason.is_empty() || sick.failed > 0);
        ensure!(sick.succeeded == 0, "the worker with the full disk succeeded: {sick:?}");
        Ok(BTreeMap::from([
            ("full disk of a worker", full),
            ("rejected", self.background.rejections.load(Ordering::Relaxed)),
            ("answered", self.background.answers.load(Ordering::Relaxed)),
        ]))
    }
}

fn start(fixture: &Fixture, recipe: Recipe, proxy: &Proxy, programs: &Programs) -> Process {
    let Recipe { name, agent, slots, clock } = recipe;
    let mut command = fixture.command(&["worker", "--agent", agent, "--worker", name]);
    command.args(["--slots", &slots.to_string(), "--claude-program", &programs.claude]);
    command.arg("--state-dir").arg(fixture.state_dir().join(name));
    command.env("ROTA_ENDPOINT", format!("http://{}", proxy.addr()));
    command.env("ROTA_TOKEN_FILE", fixture.dir().join(format!("{name}.token")));
    if let Some(clock) = clock {
        command.envs(faked_clock::environment(
            &programs.faketime,
            [("FAKETIME", clock.to_owned()), ("FAKETIME_CACHE_DURATION", "1".to_owned())],
        ));
    }
    Process::start(name, command)
}

/// Whether a worker's clock is wrong.
pub(crate) fn is_skewed(worker: &str) -> bool {
    WORKERS.iter().any(|recipe| recipe.name == worker && recipe.clock.is_some())
}
