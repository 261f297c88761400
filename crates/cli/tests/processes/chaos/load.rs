//! Tasks of a run: scripted ones that fail at random, programs with fences, orphans and kept workspaces, questions,
//! dependencies, and the real Claude Code CLI.

use anyhow::{Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rota_client::Client;
use rota_proto::v1::{self, ScriptFailure, script_step::Kind as Step};
use rota_testkit::{output, tasks};
use serde_json::json;

use crate::workload;

pub(crate) const SCRIPTED: &str = "echo";
pub(crate) const CLAUDE: &str = "coder";
/// Exit code of a program that is not alone in its workspace.
pub(crate) const OVERLAP: i32 = 99;
/// Tasks of the Claude Code CLI: one in so many.
const CLAUDE_SHARE: usize = 80;
/// Number of kept workspaces, each shared by many tasks.
const THREADS: usize = 3;

/// Source of random tasks, the same for the same seed.
pub(crate) struct Load {
    random: StdRng,
    mark: String,
    /// URL of the API of the Claude Code CLI's tasks; without it, there are none, and no questions.
    model: Option<String>,
    /// Names of all tasks, in the order of creation.
    pub(crate) names: Vec<String>,
}

impl Load {
    pub(crate) fn new(seed: u64, mark: &str, model: Option<String>) -> Self {
        let random = StdRng::seed_from_u64(!seed);
        Self { random, mark: mark.to_owned(), model, names: Vec::new() }
    }

    /// Creates tasks in one call, and cancels a few.
    pub(crate) async fn create(&mut self, client: &Client, count: usize) -> Result<()> {
        let requests = (0..count).map(|index| {
            let task = self.task(self.names.len() + index);
            v1::CreateTaskRequest { task: Some(task), ..Default::default() }
        });
        let requests: Vec<_> = requests.collect();
        let parent = rota_proto::names::namespace(tasks::NAMESPACE);
        let batch = v1::BatchCreateTasksRequest { parent, requests, ..Default::default() };
        for result in client.batch_create_tasks(batch).await?.results {
            match result.kind {
                Some(v1::batch_create_tasks_result::Kind::Task(task)) => self.names.push(task.name),
                other => anyhow::bail!("a task was not created: {other:?}"),
            }
        }
        ensure!(self.names.len() >= count);
        let cancelled = self.random.random_range(0..count.div_ceil(10) + 1);
        for _ in 0..cancelled {
            let recent = self.names.len() - 1 - self.random.random_range(0..count);
            // It may have ended.
            let _ = tasks::cancel(client, &self.names[recent]).await;
        }
        Ok(())
    }

    fn task(&mut self, number: usize) -> v1::Task {
        let mut task = match self.random.random_range(0..10) {
            _ if number % CLAUDE_SHARE == 1
                && let Some(model) = &self.model =>
            {
                claude(model)
            }
            0..=2 => self.program(),
            _ => self.scripted(),
        };
        task.priority = Some(self.random.random_range(0..=10));
        let spec = task.spec.get_or_insert_default();
        spec.retry = Some(v1::RetryPolicy {
            max_attempts: self.random.random_range(2..6),
            max_worker_losses: Some(50),
            initial_backoff: Some(tasks::millis(self.random.random_range(0..20))),
            max_backoff: Some(tasks::millis(50)),
            escalate: Vec::new(),
        });
        // None of a run comes near them, unless a clock that jumps counts as time on a worker.
        let timeout = Some(tasks::millis(20 * 60 * 1000));
        spec.limits = Some(v1::Limits { timeout, ..Default::default() });
        if self.random.random_bool(0.1)
            && let Some(name) = self.names.last()
        {
            let task = name.rsplit('/').next().unwrap_or_default().to_owned();
            let on_failure = v1::OnDependencyFailure::Continue.into();
            spec.depends_on.push(v1::Dependency { task, on_failure });
        }
        task
    }

    fn scripted(&mut self) -> v1::Task {
        let random = &mut self.random;
        let class = ["agent", "crash", "hang", "overload", "protocol", "refusal"][random.random_range(0..6)];
        let mut failure = |share: f64| {
            let probability = Some(random.random_range(0.0..share));
            Step::Fail(ScriptFailure { class: class.to_owned(), probability, ..Default::default() })
        };
        let failures = [failure(0.3), failure(0.3)];
        let usage = |tokens: i64| {
            let cost_micro_usd = tokens * 3;
            Step::Usage(v1::ScriptUsage { input_tokens: tokens, output_tokens: tokens / 2, cost_micro_usd })
        };
        let mut steps = vec![output::line(1, 3), usage(100), Step::Jitter(tasks::millis(800))];
        match random.random_range(0..20) {
            0 => steps.push(Step::SpawnOrphan(true)),
            1 => steps.push(Step::Crash(9)),
            2 if self.model.is_some() => steps.push(Step::Ask("Go on?".to_owned())),
            _ => {}
        }
        let [early, late] = failures;
        steps.extend([early, output::line(2, 3), Step::Jitter(tasks::millis(800)), usage(300), late]);
        steps.extend([output::line(3, 3), Step::Succeed("done".into())]);
        let mut task = tasks::scripted(SCRIPTED, steps);
        let spec = task.spec.get_or_insert_default();
        if let Some(v1::runtime::Kind::Scripted(script)) =
            spec.runtime.as_mut().and_then(|runtime| runtime.kind.as_mut())
        {
            script.seed = random.random_range(1..u64::MAX);
        }
        task
    }

    fn program(&mut self) -> v1::Task {
        let (lines, wait) = (output::shell(20), self.random.random_range(0..8));
        let orphans = if self.random.random_bool(0.1) { workload::ORPHANS } else { "" };
        let keeps = self.random.random_bool(0.3);
        // The lock ends with its process, however that ends.
        let alone =
            if keeps { format!("exec 9>>.alone; flock -n 9 || exit {OVERLAP}\n") } else { String::new() };
        let line = format!("{alone}{lines}; {orphans} sleep 0.{wait}");
        let mut task = workload::shell(&line, &[("MARK", &self.mark)]);
        let spec = task.spec.get_or_insert_default();
        if keeps {
            let path = format!("thread-{}", self.random.random_range(0..THREADS));
            let mode = v1::WorkspaceMode::Keep.into();
            spec.workspace = Some(v1::Workspace { mode, path, ..Default::default() });
        }
        task
    }
}

fn claude(model: &str) -> v1::Task {
    let tool =
        json!({"name": "Bash", "input": {"command": "sleep 1; echo from a tool", "description": "Print"}});
    let script = json!([{"tools": [tool]}, {"text": "{{tool_result}}"}]);
    let mut task = tasks::task(CLAUDE);
    let spec = task.spec.get_or_insert_default();
    spec.prompt = format!("Please do: MOCK{script}");
    spec.environment = [
        ("ANTHROPIC_BASE_URL".to_owned(), model.to_owned()),
        // Generated for this run.
        ("ANTHROPIC_API_KEY".to_owned(), uuid::Uuid::new_v4().to_string()),
    ]
    .into();
    task
}
