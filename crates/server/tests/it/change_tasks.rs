//! One action on all tasks that match a filter.

use anyhow::Result;
use rota_proto::v1::{self, DesiredState, TaskAction, TaskFilter, TaskState};
use rota_testkit::client::{Client, Code};
use rota_testkit::{Backend, Cluster, tasks};

/// Creates tasks that wait for a worker.
async fn waiting(client: &Client, owner: &str, count: usize) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for _ in 0..count {
        let mut task = tasks::task("missing");
        task.spec.get_or_insert_default().owner = owner.to_owned();
        names.push(tasks::create(client, task).await?.name);
    }
    Ok(names)
}

fn request(action: TaskAction, owner: &str) -> v1::ChangeTasksRequest {
    v1::ChangeTasksRequest {
        parent: "namespaces/default".to_owned(),
        filter: Some(TaskFilter { owner: owner.to_owned(), ..TaskFilter::default() }),
        action: action.into(),
        ..Default::default()
    }
}

/// Makes all calls of a change, and adds up what they return; the token is that of the last.
async fn all(client: &Client, mut request: v1::ChangeTasksRequest) -> Result<v1::ChangeTasksResponse> {
    let mut sum = v1::ChangeTasksResponse::default();
    loop {
        let answer = client.change_tasks(request.clone()).await?;
        sum.count += answer.count;
        sum.failed_count += answer.failed_count;
        sum.errors.extend(answer.errors);
        sum.start_token = answer.start_token;
        if answer.next_page_token.is_empty() {
            return Ok(sum);
        }
        request.page_token = answer.next_page_token;
    }
}

async fn count(client: &Client, action: TaskAction, owner: &str) -> Result<v1::ChangeTasksResponse> {
    all(client, v1::ChangeTasksRequest { validate_only: true, ..request(action, owner) }).await
}

/// Counts, and changes what was counted.
async fn change(client: &Client, request: v1::ChangeTasksRequest) -> Result<v1::ChangeTasksResponse> {
    let counted = all(client, v1::ChangeTasksRequest { validate_only: true, ..request.clone() }).await?;
    let (expected_count, page_token) = (counted.count, counted.start_token);
    all(client, v1::ChangeTasksRequest { expected_count, page_token, ..request }).await
}

async fn states(client: &Client, names: &[String]) -> Result<Vec<(TaskState, DesiredState, i32)>> {
    let mut found = Vec::new();
    for name in names {
        let task = tasks::get(client, name).await?;
        let desired = task.desired_state();
        found.push((task.status.unwrap_or_default().state(), desired, task.priority.unwrap_or(5)));
    }
    Ok(found)
}

#[tokio::test]
async fn all_that_match_are_changed_and_no_others() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        let client = cluster.client();
        // More than one commit changes.
        let mine = waiting(client, "me", 230).await?;
        let others = waiting(client, "you", 2).await?;
        assert_eq!(count(client, TaskAction::Cancel, "me").await?.count, 230);
        assert_eq!(count(client, TaskAction::Resume, "me").await?.count, 0);
        assert_eq!(count(client, TaskAction::Retry, "me").await?.count, 0);

        let priority = v1::ChangeTasksRequest { priority: 8, ..request(TaskAction::SetPriority, "me") };
        assert_eq!(change(client, priority).await?.count, 230);
        assert_eq!(change(client, request(TaskAction::Suspend, "me")).await?.count, 230);
        // Those that are suspended need not be again.
        assert_eq!(count(client, TaskAction::Suspend, "me").await?.count, 0);
        let (first, last) = (&mine[..1], &mine[229..]);
        assert!(states(client, first).await?.iter().chain(&states(client, last).await?).all(
            |(state, desired, priority)| {
                (*state, *desired, *priority) == (TaskState::Pending, DesiredState::Suspended, 8)
            }
        ));
        assert_eq!(change(client, request(TaskAction::Resume, "me")).await?.count, 230);
        let cancelled = change(client, request(TaskAction::Cancel, "me")).await?;
        assert_eq!((cancelled.count, cancelled.failed_count), (230, 0), "{:?}", cancelled.errors);
        assert!(states(client, &mine).await?.iter().all(|(state, ..)| *state == TaskState::Cancelled));
        assert!(
            states(client, &others)
                .await?
                .iter()
                .all(|one| { *one == (one.0, DesiredState::Run, 5) && !one.0.is_final() })
        );
    }
    Ok(())
}

#[tokio::test]
async fn retried_call_creates_no_second_copy() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    waiting(client, "me", 3).await?;
    change(client, request(TaskAction::Cancel, "me")).await?;
    let counted = count(client, TaskAction::Retry, "me").await?;
    let retry = v1::ChangeTasksRequest {
        expected_count: counted.count,
        page_token: counted.start_token,
        idempotency_key: "once".to_owned(),
        ..request(TaskAction::Retry, "me")
    };
    // The second call is that of a caller which has not received the first response.
    for _ in 0..2 {
        assert_eq!(client.change_tasks(retry.clone()).await?.count, 3);
    }
    let filter = Some(TaskFilter { owner: "me".to_owned(), ..TaskFilter::default() });
    let list = v1::ListTasksRequest { parent: "namespaces/default".into(), filter, ..Default::default() };
    assert_eq!(client.all_tasks(list, None).await?.len(), 6);
    let without_key = v1::ChangeTasksRequest { idempotency_key: String::new(), ..retry };
    let error = client.change_tasks(without_key).await.unwrap_err();
    assert!(error.to_string().contains("idempotency_key"), "{error}");
    Ok(())
}

#[tokio::test]
async fn dependencies_are_retried_before_their_dependents() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        let client = cluster.client();
        let create = async |alias: &str, dependency: Option<&str>| {
            let mut task = tasks::task("missing");
            task.alias = alias.to_owned();
            let spec = task.spec.get_or_insert_default();
            spec.owner = "me".to_owned();
            let dependency =
                dependency.map(|task| v1::Dependency { task: task.to_owned(), ..Default::default() });
            spec.depends_on = dependency.into_iter().collect();
            tasks::create(client, task).await
        };
        let first = create("", None).await?;
        let second = create("", Some(first.uid.as_str())).await?;
        create("named", None).await?;
        // The last ones are on an earlier page than what they depend on.
        waiting(client, "me", 120).await?;
        create("", Some(second.uid.as_str())).await?;
        create("", Some("named")).await?;
        change(client, request(TaskAction::Cancel, "me")).await?;
        let retry =
            v1::ChangeTasksRequest { idempotency_key: "once".to_owned(), ..request(TaskAction::Retry, "me") };
        let retried = change(client, retry).await?;
        assert_eq!((retried.count, retried.failed_count), (125, 0), "{:?}", retried.errors);

        let filter = Some(TaskFilter { owner: "me".to_owned(), ..TaskFilter::default() });
        let list = v1::ListTasksRequest { parent: "namespaces/default".into(), filter, ..Default::default() };
        let all = client.all_tasks(list, None).await?;
        assert_eq!(all.len(), 250);
        let copies: Vec<_> = all.iter().filter(|task| !task.retry_of.is_empty()).collect();
        assert!(copies.iter().all(|copy| !copy.status.as_ref().unwrap().state().is_final()));
        // None waits for a task that was repeated.
        let mut dependencies = Vec::new();
        for copy in &copies {
            // Lists have no specs.
            let whole = tasks::get(client, &copy.name).await?;
            dependencies.extend(whole.spec.unwrap_or_default().depends_on);
        }
        assert_eq!(dependencies.len(), 3);
        for dependency in dependencies {
            assert!(
                dependency.task == "named" || copies.iter().any(|copy| copy.uid == dependency.task),
                "{dependency:?}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn no_more_than_counted_is_changed() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    let old = waiting(client, "me", 2).await?;
    let counted = count(client, TaskAction::Cancel, "me").await?;
    let new = waiting(client, "me", 1).await?;
    let cancel =
        v1::ChangeTasksRequest { expected_count: counted.count, ..request(TaskAction::Cancel, "me") };
    // From the newest on there is one more than was counted.
    let error = client.change_tasks(cancel.clone()).await.unwrap_err();
    assert_eq!(error.code, Code::FailedPrecondition, "{error}");
    assert!(states(client, &old).await?.iter().all(|(state, ..)| !state.is_final()));
    // What was created after the count is left alone.
    let done = all(client, v1::ChangeTasksRequest { page_token: counted.start_token, ..cancel }).await?;
    assert_eq!(done.count, 2);
    assert!(states(client, &old).await?.iter().all(|(state, ..)| *state == TaskState::Cancelled));
    assert!(states(client, &new).await?.iter().all(|(state, ..)| !state.is_final()));
    let error = client.change_tasks(request(TaskAction::Cancel, "me")).await.unwrap_err();
    assert!(error.to_string().contains("expected_count"), "{error}");
    Ok(())
}

#[tokio::test]
async fn older_tasks_that_match_later_are_left_alone() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    let old = waiting(client, "me", 30).await?;
    change(client, request(TaskAction::Suspend, "me")).await?;
    let new = waiting(client, "me", 120).await?;
    let counted = count(client, TaskAction::Suspend, "me").await?;
    assert_eq!(counted.count, 120);
    change(client, request(TaskAction::Resume, "me")).await?;

    let suspend = v1::ChangeTasksRequest { expected_count: 120, ..request(TaskAction::Suspend, "me") };
    let suspend_counted =
        v1::ChangeTasksRequest { page_token: counted.start_token.clone(), ..suspend.clone() };
    // The response to the first call is lost.
    client.change_tasks(suspend_counted.clone()).await?;
    all(client, suspend_counted).await?;
    let desired = |states: Vec<(TaskState, DesiredState, i32)>, wanted| {
        states.iter().all(|(_, desired, _)| *desired == wanted)
    };
    assert!(desired(states(client, &new).await?, DesiredState::Suspended));
    assert!(desired(states(client, &old).await?, DesiredState::Run));
    Ok(())
}

#[tokio::test]
async fn excess_ends_a_change_with_its_counts() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    waiting(client, "me", 150).await?;
    let cancel = v1::ChangeTasksRequest { expected_count: 120, ..request(TaskAction::Cancel, "me") };
    let first = client.change_tasks(cancel.clone()).await?;
    assert_eq!(first.count, 100);
    let next = v1::ChangeTasksRequest { page_token: first.next_page_token, ..cancel };
    for _ in 0..2 {
        let error = client.change_tasks(next.clone()).await.unwrap_err();
        assert_eq!(error.code, Code::FailedPrecondition, "{error}");
    }
    assert_eq!(count(client, TaskAction::Cancel, "me").await?.count, 50);
    Ok(())
}
