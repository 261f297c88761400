//! Tasks that depend on others, in any order of arrival.

use anyhow::Result;
use rota_proto::v1::{
    self, OnDependencyFailure as Policy, ScriptFailure, TaskState, script_step::Kind as Step,
};
use rota_testkit::client::Client;
use rota_testkit::{Backend, Cluster, history, tasks};

fn depending_on(mut task: v1::Task, on: &[&str], policy: Policy) -> v1::Task {
    let dependencies =
        on.iter().map(|task| v1::Dependency { task: task.to_string(), on_failure: policy.into() });
    task.spec.get_or_insert_default().depends_on = dependencies.collect();
    task
}

fn with_alias(mut task: v1::Task, alias: &str) -> v1::Task {
    task.alias = alias.to_owned();
    task
}

fn wait_reasons(task: &v1::Task) -> Vec<(v1::WaitReason, String)> {
    let waiting = &task.status.as_ref().unwrap().waiting;
    waiting.iter().map(|wait| (wait.reason(), wait.subject.clone())).collect()
}

async fn task_state(client: &Client, name: &str) -> Result<TaskState> {
    Ok(tasks::ended(client, name).await?.status.unwrap().state())
}

#[tokio::test]
async fn dependents_may_arrive_before_dependencies() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        let client = cluster.client();
        let last = depending_on(with_alias(tasks::task("echo"), "last"), &["middle", "first"], Policy::Fail);
        let last = tasks::create(client, last).await?;
        use v1::WaitReason::{AgentMissing, Dependency, DependencyMissing};
        let missing = |name: &str| (DependencyMissing, name.to_owned());
        assert_eq!(
            wait_reasons(&last),
            [missing("middle"), missing("first"), (AgentMissing, "echo".to_owned())]
        );
        let middle = depending_on(with_alias(tasks::task("echo"), "middle"), &["first"], Policy::Fail);
        let middle = tasks::create(client, middle).await?;
        let dependent = tasks::get(client, &last.name).await?;
        assert_eq!(wait_reasons(&dependent)[0], (Dependency, "middle".to_owned()));
        let first = tasks::scripted("echo", [Step::Succeed("from the first".into())]);
        let first = tasks::create(client, with_alias(first, "first")).await?;
        let _worker = cluster.worker("echo", "one", 3)?;
        tasks::agent(client, "echo", tasks::script([]), &[]).await?;
        for name in [&first.name, &middle.name, &last.name] {
            assert_eq!(task_state(client, name).await?, TaskState::Succeeded);
        }
        history::check(client, true).await?.check()?;
    }
    Ok(())
}

#[tokio::test]
async fn failed_dependency_follows_its_policy() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut names = Vec::new();
    for policy in [Policy::Fail, Policy::Continue, Policy::Cancel, Policy::Unspecified] {
        names.push(tasks::create(client, depending_on(tasks::task("echo"), &["bad"], policy)).await?.name);
    }
    let chained = tasks::create(
        client,
        depending_on(tasks::task("echo"), &[rota_proto::names::last(&names[0])], Policy::Fail),
    )
    .await?;
    let fail = ScriptFailure { class: "refusal".into(), ..Default::default() };
    let bad = tasks::create(client, with_alias(tasks::scripted("echo", [Step::Fail(fail)]), "bad")).await?;
    let _worker = cluster.worker("echo", "one", 1)?;
    assert_eq!(task_state(client, &bad.name).await?, TaskState::Failed);
    let mut states = Vec::new();
    for name in &names {
        states.push(task_state(client, name).await?);
    }
    assert_eq!(states, [TaskState::Failed, TaskState::Succeeded, TaskState::Cancelled, TaskState::Failed]);
    let chained = tasks::ended(client, &chained.name).await?.status.unwrap();
    assert_eq!(chained.failure.unwrap().class(), v1::FailureClass::Dependency);
    // A dependent that is created after the end of all ends immediately.
    let late = tasks::create(client, depending_on(tasks::task("echo"), &["bad"], Policy::Fail)).await?;
    assert_eq!(late.status.unwrap().state(), TaskState::Failed);
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn edge_that_closes_cycle_is_rejected() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        let client = cluster.client();
        tasks::agent(client, "echo", tasks::script([]), &[]).await?;
        let mut made = Vec::new();
        for (alias, on) in [("a", "b"), ("b", "c")] {
            made.push(
                tasks::create(
                    client,
                    depending_on(with_alias(tasks::task("echo"), alias), &[on], Policy::Fail),
                )
                .await?,
            );
        }
        let hangs_on =
            tasks::create(client, depending_on(tasks::task("echo"), &["a"], Policy::Continue)).await?;
        made.push(
            tasks::create(client, depending_on(with_alias(tasks::task("echo"), "c"), &["a"], Policy::Fail))
                .await?,
        );
        for task in &made {
            let status = tasks::ended(client, &task.name).await?.status.unwrap();
            let failure = status.failure.clone().unwrap();
            assert_eq!(status.state(), TaskState::Failed);
            assert_eq!(failure.class(), v1::FailureClass::Dependency);
            // The task that closed the cycle names it; the others fail by their dependencies.
            let closed = task.uid == made[2].uid;
            let named = made.iter().filter(|other| failure.message.contains(&other.uid)).count();
            assert_eq!(named, if closed { 3 } else { 0 }, "{failure:?}");
            let reason = if closed { "dependency_cycle" } else { "dependency_failed" };
            let steps = tasks::steps(&tasks::log(client, &task.name).await?);
            assert!(steps.contains(&format!("PENDING>FAILED:{reason}")), "{steps:?}");
        }
        // A task that only depends on the cycle is not part of it.
        let _worker = cluster.worker("echo", "one", 1)?;
        assert_eq!(task_state(client, &hangs_on.name).await?, TaskState::Succeeded);
        // A task that depends on itself is a cycle, too.
        let alone = tasks::create(
            client,
            depending_on(with_alias(tasks::task("echo"), "self"), &["self"], Policy::Fail),
        )
        .await?;
        assert_eq!(task_state(client, &alone.name).await?, TaskState::Failed);
        history::check(client, true).await?.check()?;
    }
    Ok(())
}

#[tokio::test]
async fn strict_task_is_rejected_with_field() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    let strict = |mut task: v1::Task| {
        task.spec.get_or_insert_default().strict = true;
        task
    };
    let refused = tasks::create(client, strict(tasks::task("echo"))).await.unwrap_err();
    let refused = refused.downcast::<rota_testkit::client::Error>()?;
    assert_eq!(refused.reason.as_deref(), Some("REFERENCE_NOT_FOUND"));
    assert_eq!(refused.fields[0].field, "task.spec.target.agent");
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let there = tasks::create(client, with_alias(tasks::task("echo"), "there")).await?;
    let task = depending_on(tasks::task("echo"), &["there", "not-there"], Policy::Fail);
    let refused =
        tasks::create(client, strict(task)).await.unwrap_err().downcast::<rota_testkit::client::Error>()?;
    assert_eq!(refused.fields[0].field, "task.spec.depends_on[1].task");
    // Nothing of it was stored.
    let all = client
        .all_tasks(v1::ListTasksRequest { parent: "namespaces/default".into(), ..Default::default() }, None)
        .await?;
    assert_eq!(all.len(), 1);
    let fine = strict(depending_on(tasks::task("echo"), &[&there.uid], Policy::Fail));
    assert_eq!(tasks::create(client, fine).await?.status.unwrap().state(), TaskState::Pending);
    history::check(client, false).await?.check()
}

#[tokio::test]
async fn batch_in_any_order_passes_results() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let join = depending_on(with_alias(tasks::task("echo"), "join"), &["left", "right"], Policy::Fail);
    let side = |alias: &str| with_alias(tasks::task("echo"), alias);
    let requests = [join, side("left"), side("right")]
        .map(|task| v1::CreateTaskRequest { task: Some(task), ..Default::default() });
    let batch = v1::BatchCreateTasksRequest {
        parent: "namespaces/default".into(),
        requests: requests.into(),
        ..Default::default()
    };
    client.batch_create_tasks(batch).await?;
    let mut worker =
        rota_testkit::RawWorker::join(client, rota_testkit::raw::hello("echo", "hand", 2)).await?;
    for _ in 0..2 {
        let assign = worker.take().await?;
        worker.succeed(&assign, 0, &format!("from {}", assign.alias));
    }
    let assign = worker.take().await?;
    let previous: Vec<_> = assign
        .previous
        .iter()
        .map(|p| (p.alias.as_str(), p.result.as_ref().unwrap().text.as_str()))
        .collect();
    assert_eq!(previous, [("left", "from left"), ("right", "from right")]);
    worker.succeed(&assign, 0, "joined");
    assert!(worker.result_ack().await?);
    tasks::until_state(client, "namespaces/default/tasks/join", TaskState::Succeeded).await?;
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn retries_wait_for_copies_of_dependencies() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let fail = || Step::Fail(ScriptFailure { class: "refusal".into(), ..Default::default() });
    let again = async |task: &v1::Task| {
        client.retry_task(v1::RetryTaskRequest { name: task.name.clone(), ..Default::default() }).await
    };
    let first = tasks::create(client, with_alias(tasks::scripted("echo", [fail()]), "first")).await?;
    let nameless = tasks::create(client, tasks::scripted("echo", [fail()])).await?;
    let last = depending_on(tasks::task("echo"), &[&first.uid], Policy::Fail);
    let last = tasks::create(client, last).await?;
    let other = depending_on(tasks::task("echo"), &[&nameless.uid], Policy::Fail);
    let other = tasks::create(client, other).await?;
    let tolerant = depending_on(tasks::task("echo"), &[&nameless.uid], Policy::Continue);
    let tolerant = tasks::create(client, tolerant).await?;
    let worker = cluster.worker("echo", "one", 1)?;
    for task in [&first, &nameless, &last, &other] {
        assert_eq!(task_state(client, &task.name).await?, TaskState::Failed);
    }
    assert_eq!(task_state(client, &tolerant.name).await?, TaskState::Succeeded);
    again(&tolerant).await?;

    let refused = again(&last).await.unwrap_err();
    assert_eq!(refused.fields[0].field, "task.spec.depends_on[0].task");
    assert!(refused.to_string().contains("retry it, then this task"), "{refused}");
    let refused = again(&other).await.unwrap_err();
    assert!(refused.to_string().contains("with the id of the copy"), "{refused}");

    // A copy of the copy: the first one fails, too.
    let second = again(&first).await?;
    assert_eq!(task_state(client, &second.name).await?, TaskState::Failed);
    assert!(again(&last).await.is_err());
    worker.stop().await?;
    let third = again(&second).await?;
    let keyed = async || {
        let (name, idempotency_key) = (last.name.clone(), "once".to_owned());
        client.retry_task(v1::RetryTaskRequest { name, idempotency_key, ..Default::default() }).await
    };
    let copy = keyed().await?;
    assert_eq!(copy.spec.unwrap().depends_on[0].task, third.uid);
    // The answer was lost, and by now there is another copy, or none that may succeed.
    tasks::cancel(client, &third.name).await?;
    assert_eq!(keyed().await?.uid, copy.uid);
    let fourth = again(&third).await?;
    assert_ne!(fourth.uid, third.uid);
    assert_eq!(keyed().await?.uid, copy.uid);
    Ok(())
}

#[tokio::test]
async fn copies_of_dependencies_are_followed_within_a_limit() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    // 99 copies are followed for each.
    let often = async |alias: String| {
        let first = tasks::create(client, with_alias(tasks::task("missing"), &alias)).await?;
        let mut newest = first.clone();
        for _ in 0..100 {
            tasks::cancel(client, &newest.name).await?;
            let request = v1::RetryTaskRequest { name: newest.name, ..Default::default() };
            newest = client.retry_task(request).await?;
        }
        anyhow::Ok(first.uid)
    };
    let ids = futures::future::try_join_all((0..11).map(|number| often(format!("often-{number}")))).await?;
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    let again = async |ids: &[&str]| {
        let task = tasks::create(client, depending_on(tasks::task("missing"), ids, Policy::Fail)).await?;
        let request = v1::RetryTaskRequest { name: task.name, ..Default::default() };
        anyhow::Ok(client.retry_task(request).await?)
    };
    let copy = again(&ids[..10]).await?;
    assert_eq!(copy.spec.unwrap().depends_on.len(), 10);
    let refused = again(&ids[..]).await.unwrap_err();
    assert!(refused.to_string().contains("too often to find their newest copies"), "{refused}");
    Ok(())
}
