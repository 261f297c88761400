//! The records of a control plane are moved from a file to PostgreSQL and back: everything that the API shows is the same
//! afterwards, and what was running continues.

use std::path::Path;

use anyhow::Result;
use nix::sys::signal::Signal;
use rota_client::Client;
use rota_proto::v1::{
    CreateTaskRequest, GetTaskRequest, GetWorkflowRequest, ListTasksRequest, ListThreadsRequest, Task,
    TaskState, WorkflowFilter,
};
use rota_testkit::postgres::PostgresServer;
use rota_testkit::tasks;

use crate::responses::Response;
use crate::{Fixture, Graces, workload};

const PARENT: &str = "namespaces/default";
const WORD: &str = "correct horse battery staple";
const SCHEDULE: &str = "\
apiVersion: rota.dev/v1alpha1
kind: Schedule
metadata: {name: yearly}
spec:
  cron: \"0 3 1 1 *\"
  task:
    agent: shell
    runtime: {command: {shell: 'printf %s \"$WORD\" | wc -c'}}
    secrets: {WORD: correct horse battery staple}
";
const WORKFLOW: &str = "\
title: Flow
steps:
  - name: first
    task: {target: {agent: shell}, runtime: {command: {shell: echo first}}}
  - name: asks
    needs: [{step: first}]
    approval: {prompt: 'Go on?'}
  - name: last
    needs: [{step: asks}]
    task: {target: {agent: shell}, runtime: {command: {shell: echo last}}}
";

/// Everything that the API shows of the namespace, but for what depends on who is connected.
async fn shown(fixture: &Fixture) -> Result<Vec<String>> {
    let client = fixture.client()?;
    let mut lines = Vec::new();
    for mut agent in client.all_agents(PARENT).await? {
        agent.status = None;
        lines.push(format!("{agent:#?}"));
    }
    let all = ListTasksRequest { parent: PARENT.to_owned(), ..Default::default() };
    for task in client.all_tasks(all, None).await? {
        let name = task.name.clone();
        lines.push(format!("{task:#?}"));
        lines.push(format!("{:#?}", client.get_task(GetTaskRequest { name: name.clone() }).await?));
        lines.push(format!("{:#?}", tasks::log(&client, &name).await?));
        lines
            .push(fixture.rota(&["artifacts", rota_proto::names::last(&name), "-o", "json"]).await.success());
    }
    let threads = ListThreadsRequest { parent: PARENT.to_owned(), ..Default::default() };
    lines.push(format!("{:#?}", client.list_threads(threads).await?));
    for workflow in client.all_workflows(PARENT, WorkflowFilter::default()).await? {
        let name = workflow.name.clone();
        lines.push(format!("{:#?}", client.get_workflow(GetWorkflowRequest { name: name.clone() }).await?));
        lines.push(format!("{:#?}", client.all_workflow_steps(&name).await?));
    }
    lines.push(format!("{:#?}", client.all_schedules(PARENT).await?));
    lines.push(format!("{:#?}", client.all_workflow_templates(PARENT).await?));
    lines.push(format!("{:#?}", client.all_budgets("namespaces/-").await?));
    Ok(lines)
}

#[track_caller]
fn assert_same(before: &[String], after: &[String]) {
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(after) {
        assert_eq!(before, after);
    }
}

async fn create(client: &Client, task: Task, key: &str) -> Result<Task, rota_client::Error> {
    let request = CreateTaskRequest {
        parent: PARENT.to_owned(),
        task: Some(task),
        idempotency_key: key.to_owned(),
        ..Default::default()
    };
    client.create_task(request).await
}

/// A control plane with something of everything, and the names of its tasks.
struct World {
    fixture: Fixture,
    worker: crate::process::Process,
    running: Vec<String>,
    waiting: Vec<String>,
}

fn waits_for(gate: &Path) -> Task {
    let gate = gate.to_str().unwrap();
    workload::shell("until [ -e \"$GATE\" ]; do sleep 0.05; done; echo through", &[("GATE", gate)])
}

impl World {
    async fn create() -> Result<Self> {
        let mut fixture = Fixture::bare();
        // Its worker is stopped for as long as the records are moved.
        fixture.graces = Graces { silence: "1h", reconnect: "1h", recovery: "1h" };
        fixture.write_key("key", &[7; 32])?;
        let artifacts = format!("file://{}", fixture.dir().join("artifacts").display());
        std::fs::create_dir(fixture.dir().join("artifacts"))?;
        fixture.server_environment =
            vec![("ROTA_SERVER_KEY_FILE", "key".to_owned()), ("ROTA_SERVER_ARTIFACTS", artifacts)];
        fixture.start_server().await?;
        let client = fixture.client()?;
        workload::agent(&client).await?;
        fixture.rota(&["-n", "team-a", "admin", "set-budget", "--daily-usd", "50"]).await.success();
        let worker = fixture.worker(workload::AGENT, "one", 2).await?;
        // The key of a task that was removed is kept.
        let pruned = create(&client, workload::shell("echo pruned", &[]), "pruned").await?;
        tasks::ended(&client, &pruned.name).await?;
        fixture.rota(&["admin", "prune", "--older-than", "0s"]).await.success();
        let output = "echo text; echo data >\"$ROTA_OUTPUT/file\"";
        let mut done = workload::shell(output, &[]);
        done.alias = "done".to_owned();
        done.labels.insert("team".into(), "a".into());
        tasks::ended(&client, &create(&client, done, "kept").await?.name).await?;
        let failing = create(&client, workload::shell("echo no >&2; exit 3", &[]), "").await?;
        tasks::ended(&client, &failing.name).await?;
        fixture.apply("schedule.yaml", SCHEDULE).await.success();
        std::fs::write(fixture.dir().join("flow.yaml"), WORKFLOW)?;
        fixture.rota(&["workflow", "run", "-f", "flow.yaml", "--name", "flow"]).await.success();
        tasks::eventually("the approval", async || {
            let explained = fixture.rota(&["workflow", "explain", "flow", "--step", "asks"]).await;
            Ok(explained.out.contains("Go on?"))
        })
        .await?;
        let gate = fixture.dir().join("gate");
        let (mut running, mut waiting) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let task = create(&client, waits_for(&gate), "").await?;
            tasks::until_state(&client, &task.name, TaskState::Running).await?;
            running.push(task.name);
        }
        let mut secret = workload::shell("printf %s \"$WORD\" | wc -c", &[]);
        secret.spec.get_or_insert_default().secrets.insert("WORD".into(), WORD.into());
        waiting.push(create(&client, secret, "").await?.name);
        let mut dependent = workload::shell("echo after", &[]);
        let on = rota_proto::v1::Dependency {
            task: rota_proto::names::last(&running[0]).to_owned(),
            ..Default::default()
        };
        dependent.spec.get_or_insert_default().depends_on.push(on);
        waiting.push(create(&client, dependent, "").await?.name);
        let mut threaded = workload::shell("echo thread", &[]);
        threaded.spec.get_or_insert_default().thread = "talk".to_owned();
        waiting.push(create(&client, threaded, "").await?.name);
        // It stays as it is, while control planes come and go.
        worker.signal(Signal::SIGSTOP);
        Ok(Self { fixture, worker, running, waiting })
    }

    /// Opens the gate, and checks that everything ends as if nothing had happened.
    async fn finish(self) -> Result<()> {
        let client = self.fixture.client()?;
        self.worker.signal(Signal::SIGCONT);
        std::fs::write(self.fixture.dir().join("gate"), "")?;
        for name in self.running.iter().chain(&self.waiting) {
            let status = tasks::ended(&client, name).await?.status.unwrap();
            assert_eq!(
                (status.state(), status.attempt, status.worker_losses),
                (TaskState::Succeeded, 1, 0),
                "{status:?}"
            );
        }
        assert_eq!(workload::printed(&client, &self.running[0]).await?.trim(), "through");
        let secret = workload::printed(&client, &self.waiting[0]).await?;
        assert_eq!(secret.trim(), WORD.len().to_string());
        let run = self.fixture.rota(&["schedule", "run", "yearly", "-o", "json"]).await.json();
        let run = run["name"].as_str().unwrap().to_owned();
        tasks::ended(&client, &run).await?;
        assert_eq!(workload::printed(&client, &run).await?.trim(), WORD.len().to_string());
        self.fixture.rota(&["workflow", "approve", "flow", "--step", "asks"]).await.success();
        tasks::eventually("the end of the workflow", async || {
            Ok(self
                .fixture
                .rota(&["workflow", "get", "flow", "-o", "json"])
                .await
                .out
                .contains("WORKFLOW_STATE_SUCCEEDED"))
        })
        .await?;
        // A creation is not repeated, also that of a task that was removed.
        let pruned = create(&client, workload::shell("echo pruned", &[]), "pruned").await.unwrap_err();
        assert!(pruned.to_string().contains("has been removed"), "{pruned}");
        let output = "echo text; echo data >\"$ROTA_OUTPUT/file\"";
        let mut done = workload::shell(output, &[]);
        done.alias = "done".to_owned();
        done.labels.insert("team".into(), "a".into());
        assert!(
            create(&client, done, "kept")
                .await?
                .status
                .is_some_and(|status| status.state() == TaskState::Succeeded)
        );
        let download = self.fixture.rota(&["download", "done", "output/file", "--to", "copy"]).await;
        assert_eq!(download.code, 0, "{download:?}");
        Ok(())
    }

    /// Runs `rota admin export` or `import`.
    async fn transfer(&self, command: &str, file: &str, place: &[&str]) -> Response {
        self.fixture.rota(&[&["admin", command, file][..], place].concat()).await
    }

    /// Starts a control plane on a database, or on the file of a data directory.
    async fn start_on(&mut self, store: Option<&str>, data: &str) -> Result<()> {
        let environment = &mut self.fixture.server_environment;
        environment.retain(|(name, _)| !["ROTA_SERVER_STORE", "ROTA_SERVER_ADVERTISE"].contains(name));
        if let Some(store) = store {
            environment.push(("ROTA_SERVER_STORE", store.to_owned()));
            environment.push(("ROTA_SERVER_ADVERTISE", "127.0.0.1:7".to_owned()));
        }
        self.fixture.data = self.fixture.dir().join(data);
        self.fixture.start_server().await
    }

    fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.fixture.dir().join(file)).unwrap()
    }
}

#[tokio::test]
async fn records_move_to_a_database_and_back() -> Result<()> {
    let mut world = Box::pin(World::create()).await?;
    let before = shown(&world.fixture).await?;
    let database = PostgresServer::shared().database()?;
    let (old, new) = (["--data-dir", "data"], ["--store", &database]);
    world.transfer("export", "early.jsonl", &old).await.failed(1, &["in use by another process"]);
    world.fixture.kill_server().await;
    world.transfer("export", "one.jsonl", &old).await.success();
    // One that is cut off imports nothing.
    let whole = world.read("one.jsonl");
    std::fs::write(world.fixture.dir().join("half.jsonl"), &whole[..whole.len() / 2])?;
    world.transfer("import", "half.jsonl", &new).await.failed(1, &["damaged or not complete"]);
    world.transfer("import", "one.jsonl", &new).await.success();
    world.transfer("export", "two.jsonl", &new).await.success();
    assert!(world.read("two.jsonl") == whole, "the copy differs");
    world.transfer("import", "one.jsonl", &new).await.failed(1, &["the store is not empty"]);
    world.start_on(Some(&database), "data-of-replica").await?;
    assert_same(&before, &shown(&world.fixture).await?);
    world.fixture.kill_server().await;

    // And back. What the killed owner held is free once its lease is over.
    world.transfer("export", "three.jsonl", &new).await.success();
    let fresh = ["--data-dir", "fresh"];
    world.transfer("import", "half.jsonl", &fresh).await.failed(1, &["damaged or not complete"]);
    world.transfer("import", "three.jsonl", &fresh).await.success();
    world.transfer("export", "four.jsonl", &fresh).await.success();
    assert!(world.read("four.jsonl") == world.read("three.jsonl"), "the copy differs");
    world.transfer("import", "three.jsonl", &fresh).await.failed(1, &["the store is not empty"]);
    world.start_on(None, "fresh").await?;
    assert_same(&before, &shown(&world.fixture).await?);
    Box::pin(world.finish()).await
}
