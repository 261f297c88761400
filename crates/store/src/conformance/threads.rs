//! Threads of tasks.

use std::sync::Arc;
use std::time::Duration;

use rota_core::TaskId;
use rota_core::task::{Command, Completion, State, Task, WorkerRef};

use super::harness::{Harness, attempt_of, make, namespace};
use crate::{Reply, THREAD_TTL, Thread};

async fn join(t: &mut Harness, name: &str) -> TaskId {
    let mut create = t.task();
    create.task.thread = Some(name.to_owned());
    t.create(create).await.id
}

async fn thread(t: &Harness, name: &str) -> Thread {
    t.store.thread((namespace("n"), name.to_owned())).await.unwrap().unwrap()
}

/// Has the control plane keep a list of an attempt.
async fn keep(t: &mut Harness, task: &Task, checkpoint: bool) {
    let attempt = attempt_of(task);
    let keep = Command::KeepArtifacts { attempt, list: "list".into(), checkpoint, unusable: false };
    t.ask(task.id, keep).await.unwrap();
}

/// Claims the only task that is ready, and ends it.
async fn run(t: &mut Harness, worker: &WorkerRef, checkpoint: bool, completion: Completion) -> Arc<Task> {
    let task = t.claim(worker, 9).await.remove(0);
    if checkpoint {
        keep(t, &task, true).await;
    }
    t.finish(&task, completion).await.unwrap();
    t.later(Duration::from_secs(1));
    task
}

pub async fn tasks_of_a_thread_run_one_after_the_other(t: &mut Harness) {
    t.agent("a").await;
    let worker = t.hello("w").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(join(t, "talk").await);
    }
    let other = join(t, "other").await;
    let ready: Vec<_> = t.claim(&worker, 9).await.iter().map(|task| task.id).collect();
    assert_eq!(ready, [ids[0], other]);
    assert_eq!(t.read(ids[1]).await.waits_in_thread(), Some(ids[0]));
    // A failed one blocks nothing.
    let first = t.read(ids[0]).await;
    let failure = rota_core::failure::Failure::new(rota_core::failure::Class::Invalid, "no");
    t.finish(&first, Completion::Failed(failure)).await.unwrap();
    t.reopen().await;
    let worker = t.hello("w").await;
    assert_eq!(run(t, &worker, false, Completion::Succeeded(None)).await.id, ids[1]);
    assert_eq!(run(t, &worker, false, Completion::Succeeded(None)).await.id, ids[2]);
    let row = thread(t, "talk").await;
    assert_eq!((row.tasks, row.open, row.last, row.tail, row.conversation), (3, 0, ids[2], None, None));
    // One that comes later waits for nothing.
    let fourth = join(t, "talk").await;
    assert_eq!(t.state(fourth).await, State::Queued);
}

pub async fn cancelled_tasks_pass_their_place_on(t: &mut Harness) {
    t.agent("a").await;
    let worker = t.hello("w").await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(join(t, "talk").await);
    }
    let first = t.claim(&worker, 9).await.remove(0);
    for index in [2, 1] {
        t.cancel(ids[index]).await;
    }
    assert_eq!(t.read(ids[3]).await.waits_in_thread(), Some(ids[0]));
    // All in one batch.
    let cancel = |id| crate::Command::Task {
        namespace: namespace("n"),
        id,
        command: Command::Update {
            priority: None,
            labels: None,
            desired: Some(rota_core::task::Desired::Cancelled),
            reason: String::new(),
        },
    };
    let finish = crate::Command::Task {
        namespace: namespace("n"),
        id: first.id,
        command: super::harness::finish(attempt_of(&first), Completion::Succeeded(None)),
    };
    let replies = t.batch(vec![finish, cancel(ids[3])]).await;
    assert!(replies.iter().all(Result::is_ok), "{replies:?}");
    assert_eq!(run(t, &worker, false, Completion::Succeeded(None)).await.id, ids[4]);
    // A whole thread in one batch, of which the middle is cancelled from the start.
    let mut batch = Vec::new();
    for index in 0..3 {
        let mut create = t.task();
        create.task.thread = Some("batch".to_owned());
        if index == 1 {
            create.task.desired = rota_core::task::Desired::Cancelled;
        }
        batch.push(make(create));
    }
    let created: Vec<_> = t
        .batch(batch)
        .await
        .into_iter()
        .map(|reply| match reply {
            Ok(Reply::Created(task)) => task,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(created[1].state, State::Cancelled);
    assert_eq!(created[2].waits_in_thread(), Some(created[0].id));
    assert_eq!(run(t, &worker, false, Completion::Succeeded(None)).await.id, created[0].id);
}

pub async fn last_conversation_is_kept_with_its_thread(t: &mut Harness) {
    t.agent("a").await;
    let worker = t.hello("w").await;
    let first = join(t, "talk").await;
    run(t, &worker, true, Completion::Succeeded(None)).await;
    // What the second has kept meanwhile is discarded at its end.
    let second = join(t, "talk").await;
    let running = t.claim(&worker, 9).await.remove(0);
    keep(t, &running, true).await;
    keep(t, &running, false).await;
    t.finish(&running, Completion::Succeeded(None)).await.unwrap();
    t.later(Duration::from_secs(1));
    assert_eq!(t.prune(t.now(), 10).await, 1);
    assert_eq!((t.find(second).await.is_some(), t.state(first).await), (false, State::Succeeded));
    assert_eq!(thread(t, "talk").await.conversation.unwrap().1, first);
    t.reopen().await;
    let worker = t.hello("w").await;
    let third = join(t, "talk").await;
    run(t, &worker, true, Completion::Succeeded(None)).await;
    assert_eq!(t.prune(t.now(), 10).await, 1);
    assert_eq!((t.find(first).await.is_some(), t.state(third).await), (false, State::Succeeded));
    let names = t.store.threads((namespace("a"), String::new()), 10).await.unwrap();
    assert_eq!(
        names.iter().map(|(name, thread)| (name.1.as_str(), thread.tasks)).collect::<Vec<_>>(),
        [("talk", 3)]
    );
    // The thread is removed first, then what it has kept.
    t.later(THREAD_TTL);
    t.later(Duration::from_secs(1));
    t.prune(t.now(), 10).await;
    t.prune(t.now(), 10).await;
    assert!(t.store.thread((namespace("n"), "talk".to_owned())).await.unwrap().is_none());
    assert_eq!(t.find(third).await, None);
}
