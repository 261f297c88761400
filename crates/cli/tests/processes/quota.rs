//! Limits of credentials, with the real CLI: what it learns from the model API holds back the agent's other tasks, until a reset,
//! a probe, or another credential.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rota_client::Client;
use rota_fake_model::{Refusal, RequestRecord, Route};
use rota_proto::v1::{self, TaskState, WaitReason};
use rota_testkit::tasks;
use serde_json::json;

use crate::process::Process;
use crate::{Fixture, Graces, claude, faked_clock};

const AGENT: &str = "namespaces/default/agents/limited";
const TOKEN: &str = "not-a-real-token";
const BAD_KEY: &str = "key-that-is-rejected";
const GOOD_KEY: &str = "key-that-is-accepted";

async fn create_agent(client: &Client, program: String, environment: &[(&str, &str)]) -> Result<()> {
    let runtime = v1::runtime::Kind::Claude(v1::ClaudeRuntime { program, ..Default::default() });
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let spec = v1::AgentSpec {
        runtime: Some(v1::Runtime { kind: Some(runtime) }),
        environment: environment.iter().map(pair).collect(),
        ..Default::default()
    };
    let agent = v1::Agent { spec: Some(spec), ..Default::default() };
    let request = v1::CreateAgentRequest {
        parent: "namespaces/default".to_owned(),
        agent_id: "limited".to_owned(),
        agent: Some(agent),
        validate_only: false,
    };
    client.agents().create_agent(request).await?;
    Ok(())
}

async fn agent(client: &Client) -> Result<v1::Agent> {
    let request = v1::GetAgentRequest { name: AGENT.to_owned() };
    Ok(client.agents().get_agent(request).await?.into_inner())
}

fn id(name: &str) -> String {
    name.rsplit('/').next().unwrap_or_default().to_owned()
}

fn waits(status: &v1::TaskStatus) -> bool {
    status.waiting.iter().any(|one| one.reason() == WaitReason::Quota)
}

fn prompt(steps: &serde_json::Value) -> v1::Task {
    let mut task = tasks::task("limited");
    task.spec.get_or_insert_default().prompt = format!("Please do: MOCK{steps}");
    task
}

/// Tasks that wait for the reset: many more than the worker has slots.
const WAITING: usize = 50;

/// Restarts the control plane with a clock that is so far ahead.
async fn pass(fixture: &mut Fixture, library: &str, minutes: u32) -> Result<()> {
    fixture.kill_server().await;
    let offset = ("FAKETIME", format!("+{minutes}m"));
    let more = [offset, ("FAKETIME_DONT_RESET", "1".to_owned())];
    fixture.server_environment = faked_clock::environment(library, more);
    fixture.start_server().await
}

/// Returns how often agents have called the model.
fn model_calls(model: &rota_fake_model::Handle) -> usize {
    model.requests().iter().filter(|one| one.route == Route::Messages).count()
}

#[tokio::test]
async fn reached_limit_of_a_subscription_holds_tasks_back() -> Result<()> {
    let model = rota_fake_model::Options::default().start().await?;
    let program = tokio::task::spawn_blocking(claude::installed).await??;
    let library = faked_clock::library()?;
    let mut fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    create_agent(
        &client,
        program,
        &[("ANTHROPIC_BASE_URL", &model.base_url()), ("CLAUDE_CODE_OAUTH_TOKEN", TOKEN)],
    )
    .await?;
    tasks::agent(&client, "free", tasks::script([]), &[]).await?;
    let _workers = [fixture.worker("limited", "one", 4).await?, fixture.worker("free", "two", 1).await?];
    let limit = json!({"name": "five_hour", "resets_in": 40 * 60});
    let fails = json!([{"text": "no", "fail": {"status": 429, "times": "always", "limit": limit}}]);
    let first = tasks::create(&client, prompt(&fails)).await?.name;
    let task = tasks::until(&client, &first, waits).await?;
    let waiting = task.status.context("no status")?.waiting.remove(0);
    assert_eq!(waiting.subject, "five_hour");
    let until = waiting.until.context("no end")?;
    let learned = model_calls(&model);
    let mut names = Vec::new();
    for number in 0..WAITING {
        let task = prompt(&json!([{"text": format!("answer {number}")}]));
        names.push(tasks::create(&client, task).await?.name);
    }
    let explained = fixture.rota(&["explain", &id(&names[3])]).await.success();
    assert!(explained.contains("five_hour") && !explained.contains(TOKEN), "{explained}");
    for command in [&["agents"][..], &["describe", "agent", "limited"], &["top", "--once"]] {
        let shown = fixture.rota(command).await.success();
        assert!(shown.contains("five_hour until"), "{command:?}: {shown}");
        // The agent's own environment is no secret.
        assert!(command[0] == "describe" || !shown.contains(TOKEN), "{command:?}: {shown}");
    }
    let report = fixture.rota(&["report"]).await.success();
    assert!(report.contains("five_hour") && !report.contains(TOKEN), "{report}");
    let status = agent(&client).await?.status.unwrap_or_default();
    assert_eq!((status.cool_downs.len(), status.cool_downs[0].reset_known), (1, true));
    tasks::cancel(&client, &first).await?;
    // Ten minutes before the reset, after a restart, tasks of other agents run, and these wait.
    pass(&mut fixture, &library, 30).await?;
    let client = fixture.client()?;
    tasks::connected(&client, "one").await?;
    let other = tasks::create(&client, tasks::task("free")).await?.name;
    assert_eq!(tasks::ended(&client, &other).await?.status.unwrap_or_default().state(), TaskState::Succeeded);
    for name in &names {
        let status = tasks::get(&client, name).await?.status.context("no status")?;
        assert_eq!((status.state(), status.attempt), (TaskState::Queued, 0), "{status:?}");
    }
    assert_eq!(model_calls(&model), learned, "the model was called before the reset");
    pass(&mut fixture, &library, 41).await?;
    let client = fixture.client()?;
    for name in &names {
        let status = tasks::ended(&client, name).await?.status.context("no status")?;
        assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1), "{status:?}");
        let started = status.start_time.context("not started")?;
        assert!((started.seconds, started.nanos) >= (until.seconds, until.nanos), "{started:?} {until:?}");
    }
    // One call learned of the limit, and each task made one after it.
    assert_eq!(model.requests().iter().filter(|one| one.step.is_some()).count(), 1 + names.len());
    Ok(())
}

/// Control plane whose clock can be moved, with a model that refuses a key, and tasks that wait for it.
struct Held {
    fixture: Fixture,
    model: rota_fake_model::Handle,
    names: Vec<String>,
    library: String,
    worker: Process,
}

impl Held {
    /// Has one task learn that the key is refused, and others wait for it as well.
    async fn start(
        refusal: Refusal,
        limit: &str,
        key: &[(&str, &str)],
        secrets: Option<&str>,
    ) -> Result<Self> {
        let model = rota_fake_model::Options::default().start().await?;
        model.refuse(Some(refusal));
        let program = tokio::task::spawn_blocking(claude::installed).await??;
        let mut fixture = Fixture::bare();
        if let Some(secret) = secrets {
            let folder = fixture.dir().join("secrets");
            std::fs::create_dir(&folder)?;
            std::fs::write(folder.join("ANTHROPIC_API_KEY"), secret)?;
            fixture.environment.push(("ROTA_WORKER_SECRETS_DIR", folder.display().to_string()));
        }
        fixture.start_server().await?;
        let client = fixture.client()?;
        let url = model.base_url();
        create_agent(&client, program, &[&[("ANTHROPIC_BASE_URL", url.as_str())], key].concat()).await?;
        let worker = fixture.worker("limited", "one", 2).await?;
        let mut names = Vec::new();
        for number in 0..4 {
            let task = prompt(&json!([{"text": format!("answer {number}")}]));
            names.push(tasks::create(&client, task).await?.name);
            if number == 0 {
                let task = tasks::until(&client, &names[0], waits).await?;
                assert_eq!(task.status.context("no status")?.waiting[0].subject, limit);
            }
        }
        let library = faked_clock::library()?;
        let held = Self { fixture, model, names, library, worker };
        held.all_wait(1).await?;
        Ok(held)
    }

    /// Checks that all tasks wait for the key, and how many calls of the model were refused.
    async fn all_wait(&self, refused: usize) -> Result<()> {
        for name in &self.names {
            let explained = self.fixture.rota(&["explain", &id(name)]).await.success();
            ensure!(explained.contains("the credential ") && !explained.contains(BAD_KEY), "{explained}");
        }
        self.refused(refused)
    }

    /// Checks how many calls of the model were refused.
    fn refused(&self, wanted: usize) -> Result<()> {
        let is_refused = |one: &&RequestRecord| one.route == Route::Messages && one.status >= 400;
        let refused = self.model.requests().iter().filter(is_refused).count();
        ensure!(refused == wanted, "{refused} of {wanted}: {:#?}", self.model.requests());
        Ok(())
    }

    async fn pass(&mut self, minutes: u32) -> Result<()> {
        pass(&mut self.fixture, &self.library, minutes).await
    }

    /// Returns the end of the cool-down, and how often it has begun again.
    async fn until(&self) -> Result<pbjson_types::Timestamp> {
        let status = agent(&self.fixture.client()?).await?.status.unwrap_or_default();
        let cool_down = status.cool_downs.into_iter().next().context("nothing cools down")?;
        ensure!(!cool_down.reset_known, "{cool_down:?}");
        cool_down.until_time.context("no end")
    }

    /// One task probes the key, in vain: the others go on waiting, without a call.
    async fn probe_in_vain(&mut self, minutes: u32) -> Result<()> {
        let before = self.until().await?;
        self.pass(minutes).await?;
        let later = async || match self.until().await {
            Ok(until) => Ok(until.seconds > before.seconds),
            // Until the agent's worker has connected again.
            Err(_) => Ok(false),
        };
        tasks::eventually("a probe has failed", later).await?;
        self.all_wait(2).await
    }

    /// All tasks succeed, with one call each, and without another that is refused.
    async fn all_continue(&self, refused: usize) -> Result<()> {
        let client = self.fixture.client()?;
        let mut attempts = 0;
        for name in &self.names {
            let status = tasks::ended(&client, name).await?.status.context("no status")?;
            assert_eq!(status.state(), TaskState::Succeeded, "{status:?}");
            attempts += usize::try_from(status.attempt)?;
        }
        self.refused(refused)?;
        assert_eq!(attempts, refused + self.names.len());
        assert!(agent(&client).await?.status.unwrap_or_default().cool_downs.is_empty());
        Ok(())
    }
}

/// A limit of an API key has no end that is known: one task after another probes it, until one is answered.
#[tokio::test]
async fn limited_key_is_probed_by_one_task() -> Result<()> {
    let refusal = Refusal { status: 429, except: None };
    let mut held = Held::start(refusal, "requests", &[("ANTHROPIC_API_KEY", GOOD_KEY)], None).await?;
    held.probe_in_vain(3).await?;
    held.model.refuse(None);
    held.pass(60).await?;
    held.all_continue(2).await
}

/// A rejected key in the worker's secrets is probed until it has been replaced.
#[tokio::test]
async fn replaced_secret_lets_tasks_continue() -> Result<()> {
    let refusal = Refusal { status: 401, except: Some(GOOD_KEY.to_owned()) };
    let mut held = Held::start(refusal, "invalid_credential", &[], Some(BAD_KEY)).await?;
    held.probe_in_vain(3).await?;
    std::fs::write(held.fixture.dir().join("secrets/ANTHROPIC_API_KEY"), GOOD_KEY)?;
    held.pass(60).await?;
    held.all_continue(2).await
}

/// With another key in the agent's spec, its tasks continue without any wait.
#[tokio::test]
async fn changed_agent_lets_tasks_continue() -> Result<()> {
    let refusal = Refusal { status: 401, except: Some(GOOD_KEY.to_owned()) };
    let held = Held::start(refusal, "invalid_credential", &[("ANTHROPIC_API_KEY", BAD_KEY)], None).await?;
    let client = held.fixture.client()?;
    let mut changed = agent(&client).await?;
    let environment = &mut changed.spec.get_or_insert_default().environment;
    environment.insert("ANTHROPIC_API_KEY".to_owned(), GOOD_KEY.to_owned());
    client.update_agent(v1::UpdateAgentRequest { agent: Some(changed), ..Default::default() }).await?;
    held.all_continue(1).await
}

/// With a replaced secret, and no worker left that has used the one before, tasks continue without any wait.
#[tokio::test]
async fn restarted_worker_lets_tasks_continue() -> Result<()> {
    let refusal = Refusal { status: 401, except: Some(GOOD_KEY.to_owned()) };
    let mut held = Held::start(refusal, "invalid_credential", &[], Some(BAD_KEY)).await?;
    std::fs::write(held.fixture.dir().join("secrets/ANTHROPIC_API_KEY"), GOOD_KEY)?;
    held.worker.signal(Signal::SIGTERM);
    let next = held.fixture.worker("limited", "two", 2).await?;
    let ended = std::mem::replace(&mut held.worker, next).ended().await;
    ensure!(ended.status.success(), "{ended:?}");
    held.all_continue(1).await
}
