//! Requests that tasks have delivered, and the reads that it takes to find them.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use rota_core::target::Target;
use rota_core::{AgentName, Namespace, RouteId, Timestamp};
use rota_store::engine::Engine;
use rota_store::memory::InMemoryStore;
use rota_store::single_writer::SingleWriterStore;
use rota_store::{Backend, Changes};
use uuid::Uuid;

use super::super::settings::Follow;
use super::*;

const URL: &str = "https://github.com/team/project.git";

/// A task that has succeeded, with its payload and its result.
fn success(number: u64, url: &str, request: Option<i64>, padding: usize) -> (Task, Bytes, Bytes) {
    let target = Target::Agent(AgentName::new("coder").unwrap());
    let id = TaskId(Uuid::from_u128(number.into()));
    let mut task = Task::new(id, Namespace::new("prod").unwrap(), target);
    (task.key, task.state, task.has_result) = (TaskKey(number), State::Succeeded, true);
    let git = v1::GitSource { url: url.to_owned(), ..Default::default() };
    let workspace = v1::Workspace { git: Some(git), ..Default::default() };
    let spec = v1::TaskSpec { workspace: Some(workspace), ..Default::default() };
    let pull_request = request.map(|number| v1::OpenedRequest { number, ..Default::default() });
    let (branch, commit) = (format!("rota/{id}"), "c0de".repeat(10));
    let delivery = Some(v1::Delivery { branch, commit, pull_request, ..Default::default() });
    let result = v1::TaskResult { text: "x".repeat(padding), delivery, ..Default::default() };
    (task, spec.encode_to_vec().into(), result.encode_to_vec().into())
}

fn settings() -> Follow {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "tok").unwrap();
    let path = dir.path().join("follow.toml");
    let text = format!("[[repository]]\nnamespace = \"prod\"\ntoken_file = \"token\"\nurl = \"{URL}\"\n");
    std::fs::write(&path, text).unwrap();
    Follow::load(&path).unwrap()
}

/// Returns a store with these tasks, their payloads and their results.
fn store(tasks: &[(Task, Bytes, Bytes)]) -> (StoreClient, InMemoryStore) {
    let mut memory = InMemoryStore::default();
    let mut changes = Changes { revision: 1_000, ..Changes::default() };
    for (task, payload, result) in tasks.iter().cloned() {
        changes.results.push((task.key, result));
        changes.inserted.push((Arc::new(task), RouteId(1), payload));
    }
    memory.write(&changes).unwrap();
    let engine = Engine::new(memory.clone(), 0).unwrap();
    let store = SingleWriterStore::start(engine, memory.clone(), Arc::new(|| Timestamp(1))).unwrap();
    (StoreClient::new(Arc::new(store), Arc::new(|| Timestamp(1)), Counter::default()), memory)
}

/// Returns the numbers of the requests of these tasks, and how many reads it took to find them.
async fn found(successes: Vec<(Task, Bytes, Bytes)>) -> (Vec<i64>, u64) {
    let (store, memory) = store(&successes);
    let tasks = successes.into_iter().map(|(task, ..)| task);
    let found = Watched::of_all(&store, tasks, &settings().repositories).await.unwrap();
    let mut numbers: Vec<_> = found.iter().map(|watched| watched.number).collect();
    numbers.sort_unstable();
    (numbers, memory.body_reads())
}

#[tokio::test]
async fn requests_of_no_delivery_are_not_followed() {
    let changes: [fn(&mut v1::Delivery); 6] = [
        |_| (),
        |delivery| "main".clone_into(&mut delivery.branch),
        |delivery| "main".clone_into(&mut delivery.commit),
        |delivery| delivery.pull_request.as_mut().unwrap().number = -1,
        |delivery| delivery.branch = format!("rota/{}", Uuid::from_u128(1)),
        |delivery| delivery.branch.push('0'),
    ];
    let successes = (1..).zip(changes).map(|(number, change)| {
        let (task, payload, result) = success(number, URL, Some(number.try_into().unwrap()), 0);
        let mut result = v1::TaskResult::decode(result).unwrap();
        change(result.delivery.as_mut().unwrap());
        (task, payload, result.encode_to_vec().into())
    });
    assert_eq!(found(successes.collect()).await.0, [1]);
}

/// One that continues another task has pushed to the branch of that one.
#[tokio::test]
async fn requests_of_continued_tasks_are_followed() {
    let continues = |number: u64, change: fn(&mut v1::TaskSpec)| {
        let (task, payload, result) = success(number, URL, Some(number.try_into().unwrap()), 0);
        let mut spec = v1::TaskSpec::decode(payload).unwrap();
        change(&mut spec);
        let mut result = v1::TaskResult::decode(result).unwrap();
        result.delivery.as_mut().unwrap().branch = "rota/before".to_owned();
        (task, spec.encode_to_vec().into(), result.encode_to_vec().into())
    };
    let from = |spec: &mut v1::TaskSpec| "before".clone_into(&mut spec.continue_from);
    let fork = |spec: &mut v1::TaskSpec| {
        "before".clone_into(&mut spec.continue_from);
        spec.fork = true;
    };
    let mut of_thread = continues(4, |_| ());
    of_thread.0.thread = Some("talk".to_owned());
    let successes = vec![continues(1, from), continues(2, fork), continues(3, |_| ()), of_thread];
    assert_eq!(found(successes).await.0, [1, 4]);
}

#[tokio::test]
async fn task_that_is_continued_is_not_continued_again() {
    let (first, payload, result) = success(1, URL, Some(1), 0);
    let mut other = first.clone();
    (other.id, other.key, other.state) = (TaskId(Uuid::from_u128(2)), TaskKey(2), State::Running);
    let spec = |fork| v1::TaskSpec { continue_from: first.id.to_string(), fork, ..Default::default() };
    let ended = Task { state: State::Failed, ..other.clone() };
    for (other, spec, expected) in [
        (other.clone(), spec(false), true),
        (other.clone(), spec(true), false),
        (other, v1::TaskSpec::default(), false),
        (ended, spec(false), false),
    ] {
        let first = (first.clone(), payload.clone(), result.clone());
        let (store, _) = store(&[first.clone(), (other, spec.encode_to_vec().into(), Bytes::new())]);
        let watched = Watched::of_all(&store, [first.0], &settings().repositories).await.unwrap();
        assert_eq!(watched[0].is_continued(&store).await.unwrap(), expected, "{spec:?}");
    }
}

#[test]
fn comments_that_are_left_out_are_new_for_the_next_message() {
    let comments: Vec<_> = [10, 10, 11, 12].map(|at| Comment { at, ..Comment::default() }).into();
    assert_eq!(until(5, &[], 0), 5);
    assert_eq!(until(5, &comments, 4), 13);
    assert_eq!(until(5, &comments, 2), 11);
    assert_eq!(until(5, &comments, 1), 11, "no message is without progress");
}

#[tokio::test]
async fn requests_of_a_page_take_two_reads() {
    let page =
        |count: u64| (1..=count).map(|number| success(number, URL, Some(number.try_into().unwrap()), 0));
    let (numbers, reads) = found(page(100).collect()).await;
    assert_eq!((numbers.len(), numbers.first(), numbers.last()), (100, Some(&1), Some(&100)));
    assert_eq!(reads, 2, "of the results, and of the payloads");
    assert_eq!(found(page(1).collect()).await.1, 2);
    // None has a request, or none may have one.
    assert_eq!(found((1..=100).map(|number| success(number, URL, None, 0)).collect()).await, (vec![], 1));
    let failed = |(mut task, payload, result): (Task, Bytes, Bytes)| {
        task.state = State::Failed;
        (task, payload, result)
    };
    assert_eq!(found(page(100).map(failed).collect()).await, (vec![], 0));
    let elsewhere =
        vec![success(1, "https://github.com/team/other.git", Some(1), 0), success(2, URL, Some(2), 0)];
    assert_eq!(found(elsewhere).await, (vec![2], 2));
}

#[tokio::test]
async fn large_results_are_read_in_parts() {
    let size = usize::try_from(READ_BYTES / 4).unwrap();
    let page = (1..=10).map(|number| success(number, URL, Some(number.try_into().unwrap()), size));
    let (numbers, reads) = found(page.collect()).await;
    assert_eq!(numbers, (1..=10).collect::<Vec<i64>>());
    assert_eq!(reads, 3 + 1, "four results in a read");
}
