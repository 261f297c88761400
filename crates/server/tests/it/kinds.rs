//! Kinds of tasks: what a task gets from its kind, over restarts, and one call from a prompt to its result.

use std::time::Duration;

use anyhow::{Context, Result};
use rota_proto::labels::KIND;
use rota_proto::names;
use rota_proto::v1::{self, Target, TaskState, script_step::Kind as Step, target};
use rota_proto::worker::v1::result;
use rota_proto::worker::v1::session_request::Kind as Outgoing;
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, tasks};

fn agent_of(name: &str) -> Option<Target> {
    Some(Target { kind: Some(target::Kind::Agent(name.to_owned())) })
}

fn capable(words: &[&str]) -> Option<Target> {
    let capabilities = words.iter().map(ToString::to_string).collect();
    Some(Target { kind: Some(target::Kind::Capabilities(v1::CapabilitySet { capabilities })) })
}

fn task(kind: &str, prompt: &str) -> v1::Task {
    let spec = v1::TaskSpec { kind: kind.to_owned(), prompt: prompt.to_owned(), ..Default::default() };
    v1::Task { spec: Some(Box::new(spec)), ..Default::default() }
}

async fn put(cluster: &Cluster, name: &str, spec: v1::TaskKindSpec) -> Result<v1::TaskKind> {
    let kind = v1::TaskKind { name: names::kind("default", name), spec: Some(spec), ..Default::default() };
    let request =
        v1::PutTaskKindRequest { task_kind: Some(kind), validate_only: false, ..Default::default() };
    Ok(cluster.client().put_task_kind(request).await?)
}

async fn get(cluster: &Cluster, name: &str) -> Result<v1::TaskKind> {
    Ok(cluster.client().get_task_kind(v1::GetTaskKindRequest { name: names::kind("default", name) }).await?)
}

#[tokio::test]
async fn tasks_get_what_their_kind_presets() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client().clone();
    tasks::agent(&client, "writer", tasks::script([]), &["prose"]).await?;
    let limits = v1::Limits { max_turns: 7, budget_micro_usd: 9_000, ..Default::default() };
    let notes = v1::TaskKindSpec {
        words: vec!["notes".to_owned()],
        target: agent_of("writer"),
        frame: "Write for users:\n${{ prompt }}\nBe short.\n".to_owned(),
        limits: Some(limits),
        retry: Some(v1::RetryPolicy { max_attempts: 2, ..Default::default() }),
        result_schema: Some(serde_json::from_str(r#"{"type": "object"}"#)?),
        ..Default::default()
    };
    assert!(!put(&cluster, "notes", notes.clone()).await?.shipped);
    cluster.kill().await;
    cluster.restart().await?;
    assert_eq!(get(&cluster, "notes").await?.spec, Some(notes.clone()));

    // The prompt is not read as an expression.
    let mut given = task("auto", "Notes on ${{ prompt }}");
    given.spec.as_mut().unwrap().limits = Some(v1::Limits { max_turns: 3, ..Default::default() });
    given.spec.as_mut().unwrap().prompt_frame = "not the caller's ${{ prompt }}".to_owned();
    let made = tasks::create(&client, given).await?;
    let spec = made.spec.clone().unwrap();
    assert_eq!((spec.kind.as_str(), made.labels[KIND].as_str()), ("notes", "notes"));
    assert_eq!((spec.target, spec.retry), (agent_of("writer"), notes.retry));
    assert_eq!(spec.title, "Notes on ${{ prompt }}");
    let limits = spec.limits.unwrap();
    assert_eq!((limits.max_turns, limits.budget_micro_usd), (3, 9_000));
    assert!(spec.result_schema.is_some());
    let mut worker = RawWorker::join(&client, raw::hello("writer", "w", 1)).await?;
    let assign = worker.take().await?;
    let prompt = assign.spec.as_ref().unwrap().prompt.clone();
    assert_eq!(prompt, "Write for users:\nNotes on ${{ prompt }}\nBe short.");
    worker.report(&assign, 1, vec![]);
    let mut done = raw::success(&assign, 0, "done");
    if let Outgoing::Result(result) = &mut done
        && let Some(result::Kind::Succeeded(result)) = &mut result.kind
    {
        result.data = Some(pbjson_types::Struct::default());
    }
    worker.send(done);
    tasks::until_state(&client, &made.name, TaskState::Succeeded).await?;

    // A copy has what the task had, although the kind was deleted.
    let request = v1::DeleteTaskKindRequest { name: names::kind("default", "notes"), ..Default::default() };
    client.delete_task_kind(request.clone()).await?;
    let missing = client.delete_task_kind(request).await.unwrap_err();
    assert_eq!(missing.reason.as_deref(), Some("TASK_KIND_NOT_FOUND"));
    let request = v1::RetryTaskRequest { name: made.name.clone(), ..Default::default() };
    client.retry_task(request).await?;
    assert_eq!(worker.take().await?.spec.unwrap().prompt, prompt);
    let unknown = tasks::create(&client, task("notes", "x")).await.unwrap_err();
    assert!(unknown.to_string().contains("use one of auto, bug_fix, code"), "{unknown}");

    let labels = [(KIND.to_owned(), "notes".to_owned())].into();
    let filter = Some(v1::TaskFilter { labels, ..Default::default() });
    let request = v1::ListTasksRequest { parent: names::namespace("default"), filter, ..Default::default() };
    assert_eq!(client.all_tasks(request, None).await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn shipped_kinds_ask_for_capabilities_that_exist() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    let create = async |kind: &str, prompt: &str| -> Result<v1::TaskSpec> {
        Ok(*tasks::create(client, task(kind, prompt)).await?.spec.unwrap())
    };
    assert_eq!(create("review", "x").await?.target, agent_of("default"));
    tasks::agent(client, "critic", tasks::script([]), &["code_review", "code_generation"]).await?;
    let review = create("review", "x").await?;
    assert_eq!(review.target, capable(&["code_review"]));
    assert!(review.result_schema.is_some() && review.limits.is_some());
    for (prompt, kind) in [
        ("Fix the failing test", "bug_fix"),
        ("Write tests for the parser", "test"),
        ("Why is the queue slow?", "investigation"),
        ("Implement the export", "code"),
        ("Hello there", "auto"),
    ] {
        assert_eq!(create("auto", prompt).await?.kind, kind, "{prompt}");
    }
    Ok(())
}

#[tokio::test]
async fn limits_of_kinds_hold_on_every_agent() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    let create = async |target: Option<Target>| {
        let mut given = task("review", "x");
        given.spec.as_mut().unwrap().target = target;
        let request = v1::CreateTaskRequest {
            parent: names::namespace("default"),
            task: Some(given),
            ..Default::default()
        };
        client.create_task(request).await.map(|made| made.spec.unwrap())
    };
    // It would refuse limits that its task did not set.
    let spec = v1::AgentSpec {
        runtime: Some(tasks::script([])),
        capabilities: vec!["code_review".to_owned()],
        management: v1::Management::External.into(),
        overrides: v1::Overrides::None.into(),
        ..Default::default()
    };
    let agent = v1::Agent { name: names::agent("default", "strict"), spec: Some(spec), ..Default::default() };
    let request = v1::UpdateAgentRequest { agent: Some(agent), allow_missing: true, ..Default::default() };
    client.update_agent(request).await?;
    let made = create(agent_of("strict")).await?;
    assert_eq!((made.target, made.limits), (agent_of("strict"), None));
    assert!(!made.prompt_frame.is_empty());
    assert_eq!(create(None).await?.limits, None);

    // One agent keeps its limits, the other one would have none.
    tasks::agent(client, "critic", tasks::script([]), &["code_review"]).await?;
    let refused = create(None).await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("OVERRIDE_FORBIDDEN"), "{refused}");
    assert!(refused.to_string().contains("agent critic lets tasks set, and agent strict"), "{refused}");
    assert!(create(agent_of("critic")).await?.limits.is_some());
    let (one, two) = (raw::hello("strict", "one", 1), raw::hello("critic", "two", 1));
    let _workers = [RawWorker::join(client, one).await?, RawWorker::join(client, two).await?];
    let worker = |name: &str| Some(Target { kind: Some(target::Kind::Worker(name.to_owned())) });
    assert_eq!(create(worker("one")).await?.limits, None);
    assert!(create(worker("two")).await?.limits.is_some());
    assert!(create(worker("of-either")).await.is_err());
    Ok(())
}

#[tokio::test]
async fn repeated_creation_keeps_what_its_kind_gave() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    let create = async |key: &str, kind: &str, limits: Option<v1::Limits>| {
        let mut task = task(kind, "Notes on x");
        task.spec.get_or_insert_default().limits = limits;
        let request = v1::CreateTaskRequest {
            parent: names::namespace("default"),
            task: Some(task),
            idempotency_key: key.to_owned(),
            ..Default::default()
        };
        client.create_task(request).await
    };
    let turns = |max_turns| Some(v1::Limits { max_turns, ..Default::default() });
    let notes = v1::TaskKindSpec {
        words: vec!["notes".to_owned()],
        limits: Some(v1::Limits { budget_micro_usd: 9_000, ..Default::default() }),
        retry: Some(v1::RetryPolicy { max_attempts: 2, ..Default::default() }),
        ..Default::default()
    };
    put(&cluster, "notes", notes).await?;
    let first = create("review", "review", None).await?;
    let (own, auto) = (create("own", "notes", turns(3)).await?, create("auto", "auto", None).await?);
    assert_eq!(first.spec.as_ref().unwrap().target, agent_of("default"));
    assert_eq!(auto.spec.as_ref().unwrap().kind, "notes");

    // Another agent, another kind of the same name, and none.
    tasks::agent(client, "critic", tasks::script([]), &["code_review"]).await?;
    put(&cluster, "review", v1::TaskKindSpec { limits: turns(9), ..Default::default() }).await?;
    client
        .delete_task_kind(v1::DeleteTaskKindRequest {
            name: names::kind("default", "notes"),
            ..Default::default()
        })
        .await?;
    for (made, key, kind, limits) in
        [(&first, "review", "review", None), (&own, "own", "notes", turns(3)), (&auto, "auto", "auto", None)]
    {
        let again = create(key, kind, limits).await?;
        let preset = |task: &v1::Task| task.spec.clone().map(|spec| (spec.kind, spec.limits, spec.retry));
        assert_eq!((&again.name, preset(&again)), (&made.name, preset(made)), "{key}");
    }
    assert!(create("new", "notes", None).await.is_err());
    for (key, kind, limits, field) in [
        ("review", "review", turns(4), "spec.limits"),
        ("own", "notes", turns(4), "spec.limits"),
        ("own", "review", turns(3), "spec.kind"),
        ("own", "", turns(3), "spec.kind"),
    ] {
        let refused = create(key, kind, limits).await.unwrap_err();
        assert_eq!(refused.reason.as_deref(), Some("IDEMPOTENCY_KEY_CONFLICT"), "{refused}");
        assert!(refused.to_string().contains(field), "{refused}");
    }
    Ok(())
}

#[tokio::test]
async fn kinds_of_a_namespace_are_bounded_and_listed_with_others() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    let shipped = client.all_task_kinds("namespaces/default").await?;
    assert!(shipped.len() == 9 && shipped.iter().all(|kind| kind.shipped), "{shipped:?}");
    let large =
        v1::TaskKindSpec { frame: format!("{} ${{{{ prompt }}}}", "a".repeat(15_000)), ..Default::default() };
    put(&cluster, "review", large.clone()).await?;
    for number in 1..50 {
        put(&cluster, &format!("kind-{number}"), large.clone()).await?;
    }
    let full = put(&cluster, "one-more", large.clone()).await.unwrap_err();
    assert!(full.to_string().contains("50 kinds"), "{full}");
    put(&cluster, "kind-7", v1::TaskKindSpec::default()).await?;
    let all = client.all_task_kinds("namespaces/default").await?;
    assert_eq!(all.len(), 9 + 49);
    assert!(all.is_sorted_by(|a, b| a.name < b.name));
    assert_eq!(all.iter().filter(|kind| kind.shipped).count(), 8);
    let request = v1::ListTaskKindsRequest {
        parent: "namespaces/default".to_owned(),
        page_size: 2,
        page_token: names::kind("default", "code"),
    };
    let page = client.list_task_kinds(request).await?;
    let names: Vec<_> = page.task_kinds.iter().map(|kind| names::last(&kind.name)).collect();
    assert_eq!(names, ["data", "docs"]);
    assert_eq!(page.next_page_token, "namespaces/default/kinds/docs");
    let request = v1::DeleteTaskKindRequest { name: names::kind("default", "review"), ..Default::default() };
    client.delete_task_kind(request).await?;
    assert!(get(&cluster, "review").await?.shipped);
    Ok(())
}

#[tokio::test]
async fn execute_returns_result_cost_and_agents() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    let steps = [
        Step::Delay(tasks::millis(50)),
        Step::Usage(v1::ScriptUsage { cost_micro_usd: 1_500, ..Default::default() }),
        Step::Succeed("three findings".to_owned()),
    ];
    tasks::agent(client, "writer", tasks::script(steps), &["documentation"]).await?;
    let _worker = cluster.worker("writer", "one", 1)?;
    let done = client.execute("The page about queues", "docs").await?;
    assert!(done.success, "{:?}", done.task.status);
    assert_eq!((done.output.as_str(), done.cost_micro_usd), ("three findings", 1_500));
    assert_eq!(done.agents, ["writer"]);
    let status = done.task.status.unwrap();
    let micros = |time: Option<pbjson_types::Timestamp>| {
        time.map_or(0, |time| time.seconds * 1_000_000 + i64::from(time.nanos) / 1000)
    };
    let took = micros(status.end_time) - micros(status.start_time);
    assert!(took > 0 && done.time == Duration::from_micros(took.unsigned_abs()), "{:?}", done.time);

    let mut failing = tasks::scripted("writer", [Step::Fail(v1::ScriptFailure::default())]);
    failing.spec.get_or_insert_default().retry =
        Some(v1::RetryPolicy { max_attempts: 1, ..Default::default() });
    let failed = client.execute_task("namespaces/default", failing).await?;
    assert!(!failed.success && failed.output.is_empty());
    assert_eq!(failed.agents, ["writer"]);
    assert!(client.execute("x", "no-such-kind").await.is_err());

    // A task that is left to another agent has used both.
    tasks::agent(client, "senior", tasks::script([]), &[]).await?;
    let _senior = cluster.worker("senior", "two", 1)?;
    let fails = v1::ScriptFailure { attempts: 1, ..Default::default() };
    let mut moving = tasks::scripted("writer", [Step::Fail(fails), Step::Succeed("done".to_owned())]);
    moving.spec.get_or_insert_default().retry = Some(v1::RetryPolicy {
        initial_backoff: Some(tasks::millis(1)),
        escalate: vec!["agent/senior".to_owned()],
        ..Default::default()
    });
    let moved = client.execute_task("namespaces/default", moving).await?;
    assert!(moved.success, "{:?}", moved.task.status);
    assert_eq!(moved.agents, ["senior", "writer"]);
    Ok(())
}

#[tokio::test]
async fn steps_of_workflows_have_kinds() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "default", tasks::script([Step::Succeed("ok".to_owned())]), &[]).await?;
    let _worker = cluster.worker("default", "one", 1)?;
    let spec = serde_json::from_str(
        r#"{"steps": [{"name": "write", "task": {"kind": "docs", "prompt": "Describe ${{ 'it' }}"}}]}"#,
    )?;
    let workflow = Some(v1::Workflow { spec: Some(spec), ..Default::default() });
    let request =
        v1::CreateWorkflowRequest { parent: "namespaces/default".to_owned(), workflow, ..Default::default() };
    let made = Box::pin(client.create_workflow(request)).await?;
    let watched = async {
        let request = v1::WatchWorkflowRequest { name: made.name.clone(), ..Default::default() };
        let mut watch = client.watch_workflow(request).await?;
        while watch.message().await?.is_some() {}
        anyhow::Ok(())
    };
    tokio::time::timeout(tasks::WAIT_TIMEOUT, watched).await??;
    let filter = v1::TaskFilter {
        labels: [(KIND.to_owned(), "docs".to_owned())].into(),
        workflow: made.uid.clone(),
        ..Default::default()
    };
    let request = v1::ListTasksRequest {
        parent: "namespaces/default".to_owned(),
        filter: Some(filter),
        ..Default::default()
    };
    let found = client.all_tasks(request, None).await?.pop().context("a task of the kind")?;
    let step = tasks::get(client, &found.name).await?.spec.unwrap();
    assert_eq!(step.prompt, "Describe it");
    assert!(step.prompt_frame.contains("${{ prompt }}"));
    Ok(())
}

#[tokio::test]
async fn own_kinds_are_listed_over_namespaces() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    let mut expected = Vec::new();
    for (namespace, kind) in [("alpha", "notes"), ("alpha", "review"), ("beta", "notes")] {
        let kind = v1::TaskKind {
            name: names::kind(namespace, kind),
            spec: Some(v1::TaskKindSpec { description: namespace.to_owned(), ..Default::default() }),
            ..Default::default()
        };
        let request = v1::PutTaskKindRequest { task_kind: Some(kind), ..Default::default() };
        expected.push(client.put_task_kind(request).await?);
    }
    // None that comes with Rota is among them.
    assert_eq!(client.all_task_kinds(&names::namespace("-")).await?, expected);
    let mut request =
        v1::ListTaskKindsRequest { parent: names::namespace("-"), page_size: 2, ..Default::default() };
    let first = client.list_task_kinds(request.clone()).await?;
    assert_eq!(first.task_kinds, expected[..2]);
    request.page_token = first.next_page_token;
    let rest = client.list_task_kinds(request).await?;
    assert_eq!((rest.task_kinds, rest.next_page_token), (expected[2..].to_vec(), String::new()));
    Ok(())
}
