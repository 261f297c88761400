//! What attempts have cost stays in the books, once, whichever process is killed.

use std::path::Path;

use anyhow::Result;
use nix::sys::signal::Signal;
use rota_client::Client;
use rota_proto::v1::script_step::Kind as Step;
use rota_proto::v1::{self, FailureClass, TaskState, WaitReason};
use rota_testkit::{Proxy, history, tasks};
use serde_json::json;

use crate::{Fixture, Graces, claude, storing, workload};

/// Reports what it has cost so far: 10 millionths before each step, which waits for a file. Another file shows that it has.
const SPENDS: &str = r#"
exec 3>"$ROTA_EVENTS"
cost=0
for step in first second third; do
    cost=$((cost + 10))
    echo "{\"usage\":{\"costMicroUsd\":\"$cost\"}}" >&3
    : > "$GATES/$ROTA_ATTEMPT-$step-spent"
    echo "step $step of $ROTA_ATTEMPT"
    until [ -e "$GATES/$ROTA_ATTEMPT-$step" ]; do sleep 0.02; done
done
"#;

struct Spender {
    client: Client,
    name: String,
    gates: std::path::PathBuf,
}

impl Spender {
    async fn start(fixture: &Fixture, budget: i64) -> Result<Self> {
        let client = fixture.client()?;
        let gates = fixture.dir().to_owned();
        let mut task = workload::shell(SPENDS, &[("GATES", gates.to_str().unwrap())]);
        let spec = task.spec.get_or_insert_default();
        spec.limits.get_or_insert_default().budget_micro_usd = budget;
        let name = tasks::create(&client, task).await?.name;
        Ok(Self { client, name, gates })
    }

    async fn reaches(&self, step: &str) -> Result<()> {
        workload::prints(&self.client, &self.name, step).await
    }

    fn open(&self, gate: &str) -> Result<()> {
        Ok(std::fs::write(self.gates.join(gate), "")?)
    }

    async fn cost(&self) -> Result<i64> {
        let status = tasks::get(&self.client, &self.name).await?.status.unwrap();
        Ok(status.usage.unwrap_or_default().cost_micro_usd)
    }

    async fn costs(&self, cost: i64) -> Result<()> {
        tasks::eventually(&format!("a cost of {cost}"), async || Ok(self.cost().await? == cost)).await
    }

    async fn ended(&self) -> Result<v1::TaskStatus> {
        Ok(*tasks::ended(&self.client, &self.name).await?.status.unwrap())
    }
}

#[tokio::test]
async fn killed_control_plane_forgets_no_cost() -> Result<()> {
    let mut fixture = Fixture::start(Graces::LONG).await?;
    workload::agent(&fixture.client()?).await?;
    let _worker = fixture.worker(workload::AGENT, "one", 1).await?;
    let spender = Spender::start(&fixture, 0).await?;
    spender.reaches("step first of 1\n").await?;
    spender.costs(10).await?;
    fixture.kill_server().await;
    // Spent while no control plane runs.
    spender.open("1-first")?;
    spender.open("1-second")?;
    fixture.start_server().await?;
    spender.reaches("step third of 1\n").await?;
    spender.costs(30).await?;
    fixture.kill_server().await;
    fixture.start_server().await?;
    assert_eq!(spender.cost().await?, 30);
    spender.open("1-third")?;
    let status = spender.ended().await?;
    assert_eq!((status.state(), status.usage.unwrap().cost_micro_usd), (TaskState::Succeeded, 30));
    history::check(&spender.client, true).await?.check()
}

#[tokio::test]
async fn attempts_of_lost_workers_count_once() -> Result<()> {
    let fixture = Fixture::start(Graces::STRICT).await?;
    workload::agent(&fixture.client()?).await?;
    let proxy = Proxy::start(fixture.addr()).await?;
    let late = fixture.worker_at(proxy.addr(), workload::AGENT, "late", 1).await?;
    let spender = Spender::start(&fixture, 0).await?;
    spender.reaches("step first of 1\n").await?;
    spender.costs(10).await?;
    late.signal(Signal::SIGSTOP);
    let second = fixture.worker(workload::AGENT, "second", 1).await?;
    spender.reaches("step first of 2\n").await?;
    spender.costs(20).await?;
    // The first attempt spends on, and its worker comes back, which stops it.
    spender.open("1-first")?;
    let spent = spender.gates.join("1-second-spent");
    tasks::eventually("further costs", async || Ok(spent.exists())).await?;
    late.signal(Signal::SIGCONT);
    spender.costs(30).await?;
    second.kill().await;
    spender.reaches("step first of 3\n").await?;
    for gate in ["3-first", "3-second", "3-third"] {
        spender.open(gate)?;
    }
    let status = spender.ended().await?;
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 3));
    assert_eq!(status.usage.unwrap().cost_micro_usd, 20 + 10 + 30);
    history::check(&spender.client, true).await?.check()
}

#[tokio::test]
async fn spent_budget_stops_a_program() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    workload::agent(&fixture.client()?).await?;
    let _worker = fixture.worker(workload::AGENT, "one", 1).await?;
    let spender = Spender::start(&fixture, 20).await?;
    spender.reaches("step first of 1\n").await?;
    spender.open("1-first")?;
    let status = spender.ended().await?;
    let failure = status.failure.clone().unwrap();
    assert_eq!((status.state(), failure.class()), (TaskState::Failed, FailureClass::Budget), "{failure:?}");
    assert_eq!((status.attempt, status.usage.unwrap().cost_micro_usd), (1, 20));
    Ok(())
}

/// Two tasks of an agent with a budget: what the first has spent when the control plane is killed holds back the second.
#[tokio::test]
async fn killed_control_plane_forgets_no_budget() -> Result<()> {
    let mut fixture = Fixture::start(Graces::LONG).await?;
    let agent = |daily: &str| {
        format!(
            "apiVersion: rota.dev/v1alpha1\nkind: Agent\nmetadata: {{name: shell}}\n\
             spec: {{runtime: {{command: {{}}}}, overrides: All, budget: {{dailyUsd: '{daily}'}}}}\n"
        )
    };
    fixture.apply("agent.yaml", &agent("0.00003")).await.success();
    let _worker = fixture.worker(workload::AGENT, "one", 2).await?;
    let first = Spender::start(&fixture, 0).await?;
    first.reaches("step first of 1\n").await?;
    first.costs(10).await?;
    fixture.kill_server().await;
    // Spent while no control plane runs.
    first.open("1-first")?;
    first.open("1-second")?;
    fixture.start_server().await?;
    let client = fixture.client()?;
    // The budget is spent: the attempt is stopped, and its task waits for tomorrow.
    let waits = |status: &v1::TaskStatus| status.waiting.iter().any(|one| one.reason() == WaitReason::Budget);
    let waiting = tasks::until(&client, &first.name, waits).await?.status.unwrap();
    assert_eq!((waiting.state(), waiting.usage.unwrap().cost_micro_usd), (TaskState::Pending, 30));
    fixture.kill_server().await;
    fixture.start_server().await?;
    let client = fixture.client()?;
    let second = tasks::create(&client, workload::shell("true", &[])).await?.name;
    tasks::until(&client, &second, waits).await?;
    let id = second.rsplit('/').next().unwrap().to_owned();
    let explained = fixture.rota(&["explain", &id]).await.success();
    assert!(explained.contains("the daily budget of agent shell"), "{explained}");
    let budgets = fixture.rota(&["admin", "budgets"]).await.success();
    assert!(budgets.contains("$0.00003  $0.00003"), "{budgets}");
    for command in
        [&["agents"][..], &["top", "--once"], &["get", "tasks"], &["report"], &["describe", "agent", "shell"]]
    {
        let shown = fixture.rota(command).await.success();
        assert!(shown.contains("budget") && shown.contains("T00:00:00"), "{command:?}: {shown}");
    }
    // More money wakes both.
    fixture.apply("agent.yaml", &agent("1")).await.success();
    assert_eq!(tasks::ended(&client, &second).await?.status.unwrap().state(), TaskState::Succeeded);
    for gate in ["2-first", "2-second", "2-third"] {
        first.open(gate)?;
    }
    let status = tasks::ended(&client, &first.name).await?.status.unwrap();
    assert_eq!((status.state(), status.usage.unwrap().cost_micro_usd), (TaskState::Succeeded, 60));
    let money = ["-o", "json", "admin", "set-budget", "--daily-usd", "0.0001", "--when-exhausted", "refuse"];
    let set = fixture.rota(&money).await.success();
    assert!(set.contains("\"spentTodayMicroUsd\": \"60\""), "{set}");
    let correct = ["admin", "correct-spending", "--today-usd", "0.00002", "--this-month-usd", "1"];
    fixture.rota(&correct).await.success();
    let listed = fixture.rota(&["-o", "json", "admin", "budgets"]).await.success();
    assert!(listed.contains("\"spentThisMonthMicroUsd\": \"1000000\""), "{listed}");
    history::check(&client, true).await?.check()
}

/// Cost of a turn of Claude Code in these tests, by list prices: 12,000 tokens of an answer of `claude-opus-5-5`.
const TURN: i64 = 240_000;

/// Agent of Claude Code whose model is fake, and a task that does not pass its checks.
async fn unfinished(client: &Client, model: &rota_fake_model::Handle, gates: &Path) -> Result<v1::Task> {
    let program = tokio::task::spawn_blocking(claude::installed).await??;
    let claude = v1::ClaudeRuntime {
        program,
        model: "claude-opus-5-5".to_owned(),
        allowed_tools: vec!["Bash".to_owned()],
        ..Default::default()
    };
    let environment =
        [("ANTHROPIC_BASE_URL", model.base_url()), ("ANTHROPIC_API_KEY", "fake-key".to_owned())];
    let spec = v1::AgentSpec {
        runtime: Some(v1::Runtime { kind: Some(v1::runtime::Kind::Claude(claude)) }),
        environment: environment.map(|(name, value)| (name.to_owned(), value)).into(),
        overrides: v1::Overrides::All.into(),
        ..Default::default()
    };
    let request = v1::CreateAgentRequest {
        parent: "namespaces/default".to_owned(),
        agent_id: "paid".to_owned(),
        agent: Some(v1::Agent { spec: Some(spec), ..Default::default() }),
        validate_only: false,
    };
    client.agents().create_agent(request).await?;
    let gates = gates.display();
    // The tool of the first attempt returns, that of later ones waits.
    let waits = format!(
        "[ -e {gates}/first ] || {{ touch {gates}/first; exit 0; }}; until [ -e {gates}/go ]; do sleep 0.02; done"
    );
    let usage = json!({"input_tokens": 0, "output_tokens": 12_000});
    let steps = json!([
        {"tools": [{"name": "Bash", "input": {"command": waits}}], "usage": usage},
        {"text": "done", "usage": usage},
    ]);
    let mut task = tasks::task("paid");
    let spec = task.spec.get_or_insert_default();
    spec.prompt = format!("Please do: MOCK{steps}");
    spec.limits.get_or_insert_default().budget_micro_usd = 1_000_000;
    let retry = spec.retry.get_or_insert_default();
    (retry.max_attempts, retry.initial_backoff) = (10, Some(tasks::millis(1)));
    let fails = v1::WorkspaceCommand { argv: vec!["false".to_owned()], ..Default::default() };
    spec.done_when = Some(v1::DoneWhen { commands: vec![fails], max_rounds: Some(0), ..Default::default() });
    Ok(task)
}

/// A budget holds over three attempts, but for the turn that reaches it, also if the control plane is killed in the second.
#[tokio::test]
async fn budget_of_attempts_is_exceeded_by_a_turn_at_most() -> Result<()> {
    let model = rota_fake_model::Options::default().start().await?;
    let mut fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    let task = unfinished(&client, &model, fixture.dir()).await?;
    let _worker = fixture.worker("paid", "one", 1).await?;
    let name = tasks::create(&client, task).await?.name;
    let cost = |status: &v1::TaskStatus| status.usage.as_ref().map_or(0, |usage| usage.cost_micro_usd);
    // The first attempt has taken two turns, and the second one, after which its tool waits.
    tasks::until(&client, &name, |status| status.attempt == 2 && cost(status) == 3 * TURN).await?;
    fixture.kill_server().await;
    // Its other turn is spent while no control plane runs.
    std::fs::write(fixture.dir().join("go"), "")?;
    model.until(|counts| counts.messages >= 4).await;
    fixture.start_server().await?;
    let status = tasks::ended(&fixture.client()?, &name).await?.status.unwrap();
    let failure = status.failure.clone().unwrap();
    assert_eq!((status.state(), failure.class()), (TaskState::Failed, FailureClass::Budget), "{failure:?}");
    // The fifth turn reaches a dollar: none came after it, and each is in the books.
    assert_eq!((status.attempt, cost(&status)), (3, 5 * TURN), "{status:?}");
    assert_eq!(model.requests().iter().filter(|one| one.step.is_some()).count(), 5);
    history::check(&fixture.client()?, true).await?.check()
}

/// Returns the steps of a script that writes a file, asks whether it should go on, and costs this much in its last turn.
pub(crate) fn last_turn_of(cost_micro_usd: i64) -> [Step; 3] {
    [
        Step::WriteFile(v1::ScriptFile { path: "a".to_owned(), text: "a".to_owned() }),
        Step::Ask("further?".to_owned()),
        Step::Usage(v1::ScriptUsage { cost_micro_usd, ..Default::default() }),
    ]
}

/// The last turn has spent the budget, and the control plane asks for an end while its work is stored.
#[tokio::test]
async fn work_of_a_spent_budget_waits_for_its_storage() -> Result<()> {
    let mut fixture = storing::impatient();
    fixture.start_server().await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "w", 1).await?;
    let mut task = tasks::scripted(workload::AGENT, last_turn_of(10));
    let spec = task.spec.get_or_insert_default();
    spec.workspace = Some(v1::Workspace { keep_files: vec!["a".to_owned()], ..Default::default() });
    spec.limits.get_or_insert_default().budget_micro_usd = 10;
    let task = tasks::create(&client, task).await?;
    tasks::until_state(&client, &task.name, TaskState::InputRequired).await?;
    let storage = storing::Folder::of(&fixture);
    storage.take_away()?;
    tasks::answer(&client, &task.name, "go on").await?;
    storing::waits_for_storage(&client, &task.name).await?;
    let log = tasks::log(&client, &task.name).await?;
    assert!(tasks::notices(&log).iter().any(|code| code == "budget_reached"), "{log:?}");
    storage.bring_back()?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1), "{:?}", status.failure);
    Ok(())
}
