//! Rejections of invalid requests name the field.

use anyhow::Result;
use rota_proto::v1;
use rota_testkit::client::{Client, Error};
use rota_testkit::{Backend, Cluster, tasks};

type Change = fn(&mut v1::Task);

fn spec(task: &mut v1::Task) -> &mut v1::TaskSpec {
    task.spec.get_or_insert_default()
}

fn limits(task: &mut v1::Task) -> &mut v1::Limits {
    spec(task).limits.get_or_insert_default()
}

fn retry(task: &mut v1::Task) -> &mut v1::RetryPolicy {
    spec(task).retry.get_or_insert_default()
}

fn duration(seconds: i64, nanos: i32) -> Option<pbjson_types::Duration> {
    Some(pbjson_types::Duration { seconds, nanos })
}

fn dependencies(on: &[&str]) -> Vec<v1::Dependency> {
    on.iter().map(|task| v1::Dependency { task: task.to_string(), ..Default::default() }).collect()
}

fn target(task: &mut v1::Task, kind: v1::target::Kind) {
    spec(task).target = Some(v1::Target { kind: Some(kind) });
}

fn capabilities(words: &[&str]) -> v1::target::Kind {
    v1::target::Kind::Capabilities(v1::CapabilitySet {
        capabilities: words.iter().map(ToString::to_string).collect(),
    })
}

const TASKS: &[(&str, Change)] = &[
    ("task.spec", |t| t.spec = None),
    ("task.spec.prompt", |t| spec(t).prompt = "x".repeat((1 << 20) + 1)),
    ("task.spec.title", |t| spec(t).title = "x".repeat(257)),
    ("task.spec.owner", |t| spec(t).owner = "x".repeat(257)),
    ("task.spec.input", |t| {
        let fields = [("x".to_owned(), "y".repeat(2 << 20).into())].into();
        spec(t).input = Some(pbjson_types::Struct { fields });
    }),
    ("task.alias", |t| t.alias = "Not a name".into()),
    ("task.alias", |t| t.alias = "0190aaaa-0000-7000-8000-000000000001".into()),
    ("task.alias", |t| t.alias = "x".repeat(254)),
    ("task.alias", |t| t.alias = "a..b".into()),
    ("task.priority", |t| t.priority = Some(11)),
    ("task.priority", |t| t.priority = Some(-1)),
    ("task.desired_state", |t| t.desired_state = 99),
    ("task.labels", |t| t.labels = (0..65).map(|i| (i.to_string(), String::new())).collect()),
    ("task.labels[\"\"]", |t| drop(t.labels.insert(String::new(), "x".into()))),
    ("task.labels[\"k\"]", |t| drop(t.labels.insert("k".into(), "x".repeat(257)))),
    ("task.spec.environment[\"A-B\"]", |t| drop(spec(t).environment.insert("A-B".into(), "x".into()))),
    ("task.spec.environment[\"1A\"]", |t| drop(spec(t).environment.insert("1A".into(), "x".into()))),
    ("task.spec.environment[\"\"]", |t| drop(spec(t).environment.insert(String::new(), "x".into()))),
    ("task.spec.environment[\"A\"]", |t| drop(spec(t).environment.insert("A".into(), "x\0y".into()))),
    ("task.spec.environment[\"A\"]", |t| drop(spec(t).environment.insert("A".into(), "x".repeat(40_000)))),
    ("task.spec.environment", |t| {
        spec(t).environment = (0..257).map(|i| (format!("A{i}"), String::new())).collect()
    }),
    ("task.spec.secrets[\"A=B\"]", |t| drop(spec(t).secrets.insert("A=B".into(), "x".into()))),
    ("task.spec.secrets[\"A\"]", |t| drop(spec(t).secrets.insert("A".into(), "\0".into()))),
    ("task.spec.limits.timeout", |t| limits(t).timeout = duration(-1, 0)),
    ("task.spec.limits.timeout", |t| limits(t).timeout = duration(0, 0)),
    ("task.spec.limits.timeout", |t| limits(t).timeout = duration(7 * 24 * 3600 + 1, 0)),
    ("task.spec.limits.silence_timeout", |t| limits(t).silence_timeout = duration(0, -5)),
    ("task.spec.limits.silence_timeout", |t| limits(t).silence_timeout = duration(0, 0)),
    ("task.spec.limits.queue_timeout", |t| limits(t).queue_timeout = duration(i64::MAX, 0)),
    ("task.spec.limits.cancel_grace", |t| limits(t).cancel_grace = duration(i64::MIN, 0)),
    ("task.spec.limits.max_turns", |t| limits(t).max_turns = -1),
    ("task.spec.limits.budget_micro_usd", |t| limits(t).budget_micro_usd = 1_000_000_000_001),
    ("task.spec.limits.budget_micro_usd", |t| limits(t).budget_micro_usd = -1),
    ("task.spec.retry.max_attempts", |t| retry(t).max_attempts = -1),
    ("task.spec.retry.max_attempts", |t| retry(t).max_attempts = 101),
    ("task.spec.retry.max_worker_losses", |t| retry(t).max_worker_losses = Some(-1)),
    ("task.spec.retry.initial_backoff", |t| retry(t).initial_backoff = duration(-1, 0)),
    ("task.spec.retry.max_backoff", |t| retry(t).max_backoff = duration(-1, 0)),
    ("task.spec.depends_on", |t| {
        let names: Vec<_> = (0..257).map(|i| format!("t{i}")).collect();
        spec(t).depends_on = dependencies(&names.iter().map(String::as_str).collect::<Vec<_>>());
    }),
    ("task.spec.depends_on[1].task", |t| spec(t).depends_on = dependencies(&["a", "a"])),
    ("task.spec.depends_on[0].task", |t| spec(t).depends_on = dependencies(&["A b"])),
    ("task.spec.depends_on[0].task", |t| spec(t).depends_on = dependencies(&[""])),
    ("task.spec.depends_on[0].on_failure", |t| {
        spec(t).depends_on = dependencies(&["a"]);
        spec(t).depends_on[0].on_failure = 99;
    }),
    ("task.spec.parent_task", |t| spec(t).parent_task = "mother".into()),
    ("task.spec.target.agent", |t| target(t, v1::target::Kind::Agent("UPPER".into()))),
    ("task.spec.target.agent", |t| target(t, v1::target::Kind::Agent(String::new()))),
    ("task.spec.target.worker", |t| target(t, v1::target::Kind::Worker("a/b".into()))),
    ("task.spec.target.capabilities.capabilities", |t| target(t, capabilities(&[]))),
    ("task.spec.target.capabilities.capabilities", |t| target(t, capabilities(&["x"; 33]))),
    ("task.spec.target.capabilities.capabilities[1]", |t| target(t, capabilities(&["fine", "two words"]))),
    ("task.spec.workspace.path", |t| {
        let mode = v1::WorkspaceMode::InPlace.into();
        spec(t).workspace = Some(v1::Workspace { mode, path: "relative".into(), ..Default::default() });
    }),
    ("task.spec.workspace.path", |t| {
        let mode = v1::WorkspaceMode::Keep.into();
        spec(t).workspace = Some(v1::Workspace { mode, path: "../up".into(), ..Default::default() });
    }),
    ("task.spec.workspace.git", |t| {
        spec(t).workspace = Some(v1::Workspace { git: Some(v1::GitSource::default()), ..Default::default() });
    }),
];

fn error_fields(refused: &Error) -> Vec<&str> {
    assert_eq!(refused.reason.as_deref(), Some("INVALID_FIELD"), "{refused:?}");
    assert!(!refused.message.is_empty());
    refused.fields.iter().map(|field| field.field.as_str()).collect()
}

async fn create(client: &Client, task: v1::Task) -> Result<v1::Task, Error> {
    let parent = "namespaces/default".to_owned();
    client.create_task(v1::CreateTaskRequest { parent, task: Some(task), ..Default::default() }).await
}

#[tokio::test]
async fn invalid_tasks_are_rejected_by_field() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    for (index, (field, change)) in TASKS.iter().enumerate() {
        let mut task = tasks::task("echo");
        change(&mut task);
        match Box::pin(create(client, task)).await {
            Ok(_) => panic!("case {index}: {field} was taken"),
            Err(refused) => assert_eq!(error_fields(&refused), [*field], "case {index}"),
        }
    }
    // In a batch, each request is rejected by itself.
    let mut bad = tasks::task("echo");
    bad.priority = Some(11);
    let one = |task, parent: &str| v1::CreateTaskRequest {
        parent: parent.into(),
        task: Some(task),
        ..Default::default()
    };
    let requests =
        vec![one(tasks::task("echo"), ""), one(bad, ""), one(tasks::task("echo"), "namespaces/other")];
    let batch =
        v1::BatchCreateTasksRequest { parent: "namespaces/default".into(), requests, ..Default::default() };
    let results = client.batch_create_tasks(batch).await?.results;
    let fields: Vec<_> = results
        .into_iter()
        .map(|result| match result.kind {
            Some(v1::batch_create_tasks_result::Kind::Error(error)) => error.field,
            _ => String::new(),
        })
        .collect();
    assert_eq!(fields, ["", "task.priority", "requests[2].parent"]);
    Ok(())
}

#[tokio::test]
async fn invalid_names_and_pages_are_rejected() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    for bad in ["", "x", "namespaces/", "namespaces/UPPER", "namespaces/a/b", "namespaces/-"] {
        let request = v1::CreateTaskRequest {
            parent: bad.into(),
            task: Some(tasks::task("echo")),
            ..Default::default()
        };
        assert_eq!(error_fields(&client.create_task(request).await.unwrap_err()), ["parent"], "{bad:?}");
    }
    for bad in
        ["", "x", "namespaces/default/tasks/", "namespaces/default/agents/x", "namespaces/default/tasks/A b"]
    {
        assert_eq!(error_fields(&tasks::get(client, bad).await.unwrap_err()), ["name"], "{bad:?}");
        assert_eq!(error_fields(&tasks::cancel(client, bad).await.unwrap_err()), ["name"], "{bad:?}");
    }
    for missing in
        ["namespaces/default/tasks/none", "namespaces/default/tasks/0190aaaa-0000-7000-8000-000000000001"]
    {
        let refused = tasks::get(client, missing).await.unwrap_err();
        assert_eq!(refused.reason.as_deref(), Some("TASK_NOT_FOUND"));
        let refused = tasks::cancel(client, missing).await.unwrap_err();
        assert_eq!(refused.reason.as_deref(), Some("TASK_NOT_FOUND"));
    }
    // A task belongs to its namespace only.
    let made = Box::pin(create(client, tasks::task("echo"))).await?;
    let elsewhere = rota_proto::names::task("other", &made.uid);
    assert_eq!(tasks::get(client, &elsewhere).await.unwrap_err().reason.as_deref(), Some("TASK_NOT_FOUND"));
    assert_eq!(
        tasks::cancel(client, &elsewhere).await.unwrap_err().reason.as_deref(),
        Some("TASK_NOT_FOUND")
    );
    let list = async |change: fn(&mut v1::ListTasksRequest)| {
        let mut request = v1::ListTasksRequest { parent: "namespaces/default".into(), ..Default::default() };
        change(&mut request);
        client.list_tasks(request).await.unwrap_err()
    };
    assert_eq!(error_fields(&list(|r| r.page_token = "garbage".into()).await), ["page_token"]);
    assert_eq!(error_fields(&list(|r| r.page_size = -1).await), ["page_size"]);
    assert_eq!(
        error_fields(&list(|r| r.filter.get_or_insert_default().agent = "A b".into()).await),
        ["filter.agent"]
    );
    assert_eq!(
        error_fields(&list(|r| r.filter.get_or_insert_default().parent_task = "x".into()).await),
        ["filter.parent_task"]
    );
    assert_eq!(
        error_fields(&list(|r| r.filter.get_or_insert_default().states = vec![99]).await),
        ["filter.states[0]"]
    );
    // A name with a NUL byte would fail a whole batch of a PostgreSQL store.
    for idempotency_key in ["k".repeat(257), "k\0".to_owned()] {
        let key = v1::CreateTaskRequest {
            parent: "namespaces/default".into(),
            task: Some(tasks::task("echo")),
            idempotency_key,
            ..Default::default()
        };
        assert_eq!(error_fields(&client.create_task(key).await.unwrap_err()), ["idempotency_key"]);
    }
    let none = v1::CreateTaskRequest { parent: "namespaces/default".into(), ..Default::default() };
    assert_eq!(error_fields(&client.create_task(none).await.unwrap_err()), ["task"]);
    let empty = v1::SendTaskInputRequest { name: made.name.clone(), input: Some(v1::TaskInput::default()) };
    assert_eq!(error_fields(&client.send_task_input(empty).await.unwrap_err()), ["input"]);
    let long = v1::TaskInput { text: "x".repeat(70_000), ..Default::default() };
    let long = v1::SendTaskInputRequest { name: made.name, input: Some(long) };
    assert_eq!(error_fields(&client.send_task_input(long).await.unwrap_err()), ["input.text"]);
    Ok(())
}

#[tokio::test]
async fn invalid_agents_are_rejected_by_field() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    type Spoil = fn(&mut v1::AgentSpec);
    let cases: &[(&str, Spoil)] = &[
        ("agent.spec.runtime", |s| s.runtime = None),
        ("agent.spec.slots", |s| s.slots = -1),
        ("agent.spec.slots", |s| s.slots = 5000),
        ("agent.spec.replicas", |s| s.replicas = -1),
        ("agent.spec.max_replicas", |s| (s.replicas, s.max_replicas) = (3, Some(2))),
        ("agent.spec.spare_workers", |s| s.spare_workers = -1),
        ("agent.spec.idle_timeout", |s| s.idle_timeout = duration(-1, 0)),
        ("agent.spec.capabilities[0]", |s| s.capabilities = vec!["a b".into()]),
        ("agent.spec.environment[\"A-B\"]", |s| drop(s.environment.insert("A-B".into(), String::new()))),
        ("agent.spec.description", |s| s.description = "x".repeat(300)),
        ("agent.spec.default_limits.timeout", |s| {
            s.default_limits.get_or_insert_default().timeout = duration(-1, 0)
        }),
    ];
    for (field, change) in cases {
        let mut spec = v1::AgentSpec { runtime: Some(tasks::script([])), ..Default::default() };
        change(&mut spec);
        let agent = v1::Agent { spec: Some(spec), ..Default::default() };
        let request = v1::CreateAgentRequest {
            parent: "namespaces/default".into(),
            agent_id: "echo".into(),
            agent: Some(agent),
            validate_only: false,
        };
        assert_eq!(error_fields(&client.create_agent(request).await.unwrap_err()), [*field]);
    }
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let agent = v1::Agent { name: "namespaces/default/agents/echo".into(), ..Default::default() };
    let update_mask = Some(pbjson_types::FieldMask { paths: vec!["status.workers".into()] });
    let request = v1::UpdateAgentRequest { agent: Some(agent), update_mask, ..Default::default() };
    assert_eq!(error_fields(&client.update_agent(request).await.unwrap_err()), ["update_mask"]);
    Ok(())
}
