//! Calls without a file of their own: explain, list, update, retry.

use anyhow::Result;
use rota_proto::v1::{self, ScriptFailure, TaskState, script_step::Kind as Step};
use rota_testkit::client::Client;
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, history, tasks};

const PARENT: &str = "namespaces/default";

async fn causes(client: &Client, task: &v1::Task) -> Result<Vec<String>> {
    let explanation = client.explain_task(v1::ExplainTaskRequest { name: task.name.clone() }).await?;
    assert!(!explanation.summary.is_empty());
    assert!(explanation.causes.iter().all(|cause| !cause.message.is_empty()));
    Ok(explanation.causes.into_iter().map(|cause| cause.code).collect())
}

fn on(worker: &str) -> v1::Task {
    let target = v1::Target { kind: Some(v1::target::Kind::Worker(worker.to_owned())) };
    v1::Task {
        spec: Some(Box::new(v1::TaskSpec { target: Some(target), ..Default::default() })),
        ..Default::default()
    }
}

#[tokio::test]
async fn explain_names_every_cause() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    let create = async |task: v1::Task| tasks::create(client, task).await;
    let no_agent = create(tasks::task("missing")).await?;
    assert_eq!(causes(client, &no_agent).await?, ["agent_missing"]);
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut task = tasks::task("echo");
    let depends = |task: &str| v1::Dependency { task: task.to_owned(), ..Default::default() };
    let spec = task.spec.get_or_insert_default();
    spec.depends_on = vec![depends(&no_agent.uid), depends("later")];
    spec.start_time = Some(pbjson_types::Timestamp { seconds: 4_000_000_000, nanos: 0 });
    task.set_desired_state(v1::DesiredState::Suspended);
    let held = create(task).await?;
    assert_eq!(causes(client, &held).await?, ["suspended", "dependency", "dependency_missing", "start_time"]);
    let first = create(tasks::task("echo")).await?;
    assert_eq!(causes(client, &first).await?, ["no_worker"]);
    let second = create(tasks::task("echo")).await?;
    let explanation = client.explain_task(v1::ExplainTaskRequest { name: second.name.clone() }).await?;
    assert_eq!(explanation.ahead, 1);
    assert_eq!(explanation.causes[1].code.as_str(), "behind");
    let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
    let assign = worker.next_assignment().await?;
    assert_eq!(causes(client, &first).await?, ["not_taken_yet"]);
    worker.accept(&assign);
    tasks::until_state(client, &first.name, TaskState::Running).await?;
    assert!(causes(client, &first).await?.is_empty());
    assert_eq!(causes(client, &second).await?, ["no_free_slot", "busy_with"]);
    worker.report(&assign, 1, vec![raw::question("q")]);
    tasks::until_state(client, &first.name, TaskState::InputRequired).await?;
    assert_eq!(causes(client, &first).await?, ["input_required"]);
    let drain = v1::DrainAgentRequest { name: "namespaces/default/agents/echo".into(), ..Default::default() };
    client.drain_agent(drain).await?;
    assert_eq!(causes(client, &second).await?, ["all_draining", "busy_with"]);
    let failure = v1::Failure {
        class: v1::FailureClass::Overload.into(),
        retry_after: Some(Box::new(tasks::millis(1_800_000))),
        ..Default::default()
    };
    worker.send(rota_proto::worker::v1::session_request::Kind::Result(Box::new(
        rota_proto::worker::v1::Result {
            task_id: assign.task_id.clone(),
            fence: assign.fence,
            last_attempt_seq: 1,
            kind: Some(rota_proto::worker::v1::result::Kind::Failed(failure)),
            ..Default::default()
        },
    )));
    assert!(worker.result_ack().await?);
    assert_eq!(causes(client, &first).await?, ["retry_delay"]);
    tasks::cancel(client, &first.name).await?;
    assert!(causes(client, &first).await?.is_empty());
    history::check(client, false).await?.check()
}

#[tokio::test]
async fn task_list_is_filtered_and_paged() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut names = Vec::new();
    for index in 0..25 {
        let mut task = tasks::task(if index % 5 == 0 { "other" } else { "echo" });
        task.alias = format!("task-{}", index % 10);
        task.labels.insert("parity".into(), (index % 2).to_string());
        task.labels.insert("mod3".into(), (index % 3).to_string());
        task.spec.get_or_insert_default().owner = if index < 10 { "ada" } else { "bob" }.to_owned();
        names.push(tasks::create(client, task).await?.name);
    }
    names.reverse();
    let list = async |filter: v1::TaskFilter| {
        let request =
            v1::ListTasksRequest { parent: PARENT.into(), filter: Some(filter), ..Default::default() };
        anyhow::Ok(
            client.all_tasks(request, None).await?.into_iter().map(|task| task.name).collect::<Vec<_>>(),
        )
    };
    assert_eq!(list(v1::TaskFilter::default()).await?, names);
    let with = |keep: &dyn Fn(usize) -> bool| {
        (0..25).rev().filter(|index| keep(*index)).map(|index| names[24 - index].clone()).collect::<Vec<_>>()
    };
    let agent = v1::TaskFilter { agent: "other".into(), ..Default::default() };
    assert_eq!(list(agent).await?, with(&|index| index % 5 == 0));
    let owner = v1::TaskFilter { owner: "ada".into(), ..Default::default() };
    assert_eq!(list(owner).await?, with(&|index| index < 10));
    let alias = v1::TaskFilter { alias: "task-3".into(), ..Default::default() };
    assert_eq!(list(alias).await?, with(&|index| index % 10 == 3));
    let labels = [("parity".to_owned(), "1".to_owned()), ("mod3".to_owned(), "2".to_owned())].into();
    let both = v1::TaskFilter { labels, ..Default::default() };
    assert_eq!(list(both).await?, with(&|index| index % 2 == 1 && index % 3 == 2));
    let pending = v1::TaskFilter { states: vec![TaskState::Pending.into()], ..Default::default() };
    assert_eq!(list(pending).await?, with(&|index| index % 5 == 0));
    let tenth = tasks::get(client, &names[14]).await?.create_time;
    let after = v1::TaskFilter { created_after: tenth, ..Default::default() };
    assert_eq!(list(after).await?, with(&|index| index >= 10));
    let before = v1::TaskFilter { created_before: tenth, ..Default::default() };
    assert_eq!(list(before).await?, with(&|index| index < 10));
    // An alias refers to its newest task.
    assert_eq!(
        tasks::get(client, "namespaces/default/tasks/task-4").await?.name,
        with(&|index| index == 24)[0]
    );
    let mut request = v1::ListTasksRequest { parent: PARENT.into(), page_size: 4, ..Default::default() };
    let mut paged = Vec::new();
    loop {
        let page = client.list_tasks(request.clone()).await?;
        assert!(page.tasks.len() <= 4);
        paged.extend(page.tasks.into_iter().map(|task| task.name));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(paged, names);
    history::check(client, false).await?.check()
}

#[tokio::test]
async fn update_changes_only_mutable_fields() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    let made = tasks::create(client, tasks::task("echo")).await?;
    let mut change = made.clone();
    change.priority = Some(9);
    change.labels.insert("a".into(), "b".into());
    change.set_desired_state(v1::DesiredState::Suspended);
    // Only the fields in the mask change.
    let updated = tasks::update(client, change.clone(), &["labels"]).await?;
    assert_eq!(updated.priority, Some(5));
    assert_eq!(updated.desired_state(), v1::DesiredState::Run);
    assert_eq!(updated.labels["a"], "b");
    let updated = tasks::update(client, change.clone(), &["priority", "desired_state"]).await?;
    assert_eq!(updated.priority, Some(9));
    assert_eq!(updated.desired_state(), v1::DesiredState::Suspended);
    // The same values again are no change.
    let before = tasks::get(client, &made.name).await?.status.unwrap().log_seq;
    tasks::update(client, change.clone(), &["priority", "desired_state", "labels"]).await?;
    assert_eq!(tasks::get(client, &made.name).await?.status.unwrap().log_seq, before);
    for (paths, priority, field) in [
        (&["spec.prompt"][..], Some(1), "update_mask"),
        (&["priority", "status"], Some(1), "update_mask"),
        (&[], Some(1), "update_mask"),
        (&["priority"], Some(11), "task.priority"),
        (&["priority"], Some(-1), "task.priority"),
    ] {
        let refused =
            tasks::update(client, v1::Task { priority, ..change.clone() }, paths).await.unwrap_err();
        assert_eq!(refused.fields[0].field, field);
    }
    let log = tasks::log(client, &made.name).await?;
    let fields: Vec<_> = log
        .iter()
        .filter_map(|event| match &event.kind {
            Some(v1::event::Kind::Change(change)) => Some(change.fields.join(",")),
            _ => None,
        })
        .collect();
    assert_eq!(fields, ["labels", "priority,desired_state"]);
    history::check(client, false).await?.check()
}

#[tokio::test]
async fn retry_creates_a_new_task() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let fail = ScriptFailure { class: "refusal".into(), ..Default::default() };
    let mut task = tasks::scripted("echo", [Step::Fail(fail)]);
    task.alias = "twice".to_owned();
    // The title is derived from this, and becomes longer than a title in a request may be.
    task.spec.get_or_insert_default().prompt = "\u{1F600}".repeat(100);
    let again = async |name: &str, key: &str| {
        let request =
            v1::RetryTaskRequest { name: name.into(), idempotency_key: key.into(), ..Default::default() };
        client.retry_task(request).await
    };
    let first = tasks::create(client, task).await?;
    assert_eq!(again(&first.name, "").await.unwrap_err().reason.as_deref(), Some("TASK_NOT_ENDED"));
    let _worker = cluster.worker("echo", "one", 1)?;
    tasks::until_state(client, &first.name, TaskState::Failed).await?;
    let second = again("namespaces/default/tasks/twice", "key").await?;
    assert_eq!(second.retry_of.as_str(), first.uid.as_str());
    assert_eq!(second.alias.as_str(), "twice");
    assert_ne!(second.uid, first.uid);
    assert_eq!(again(&first.name, "key").await?.uid, second.uid);
    tasks::until_state(client, &second.name, TaskState::Failed).await?;
    assert_eq!(tasks::get(client, &first.name).await?.status.unwrap().state(), TaskState::Failed);
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn worker_target_restricts_task_to_worker() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let _one = cluster.worker("echo", "one", 1)?;
    let task = tasks::create(client, on("two")).await?;
    let other = tasks::create(client, on("one")).await?;
    tasks::until_state(client, &other.name, TaskState::Succeeded).await?;
    assert_eq!(causes(client, &task).await?, ["no_worker"]);
    let _two = cluster.worker("echo", "two", 1)?;
    let status = tasks::ended(client, &task.name).await?.status.unwrap();
    assert_eq!(status.worker, "two");
    history::check(client, true).await?.check()
}
