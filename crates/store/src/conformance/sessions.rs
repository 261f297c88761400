//! Sessions of workers: which attempts continue, which are lost, and which sessions decide.

use rota_core::task::{Command, EventEffect, Item, Reply, State};
use rota_core::{AgentName, Epoch, Fence, WorkerName};

use super::harness::{Harness, attempt_of, end_session, make, namespace, open_session, session};
use crate::{Command as Change, OpenSession, Refused, Reply as Answer};

pub async fn epochs_grow_with_each_hello(t: &mut Harness) {
    for epoch in 1..=3 {
        assert_eq!(t.hello("w").await.epoch.0, epoch);
        t.reopen().await;
    }
    assert_eq!(t.hello("v").await.epoch.0, 1);
    t.one(end_session(&session("w", 3))).await.unwrap();
    assert_eq!(t.hello("w").await.epoch.0, 4, "an ended session's number does not come again");
    let sessions = t.store.snapshot().await.unwrap().sessions;
    let open: Vec<_> = sessions.iter().map(|one| (one.worker.as_str(), one.epoch.0, one.open)).collect();
    assert_eq!(open, [("v", 1, true), ("w", 4, true)]);
}

pub async fn named_attempts_continue(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    t.plain().await;
    let old = t.hello("w").await;
    let tasks = t.claim(&old, 2).await;
    t.ask(tasks[0].id, Command::Accept(attempt_of(&tasks[0]))).await.unwrap();
    let running = tasks.iter().map(|task| (task.id, task.fence)).collect();
    let (new, resumed) = t.hello_again("w", "process 1", running).await;
    for (task, resumed) in tasks.iter().zip(&resumed) {
        let (live, seq) = resumed.live.clone().unwrap();
        assert_eq!((resumed.id, live.state, seq), (task.id, State::Running, 0));
        assert_eq!(live.assignment.as_ref().unwrap().epoch, new.epoch);
        assert_eq!(t.finish(task, rota_core::task::Completion::Succeeded(None)).await, Ok(Reply::Stale));
        t.succeed(&live).await;
    }
}

pub async fn unnamed_attempts_are_lost(t: &mut Harness) {
    t.agent("a").await;
    let task = t.plain().await;
    let worker = t.hello("w").await;
    t.claim(&worker, 1).await;
    let (_, resumed) = t.hello_again("w", "process 1", Vec::new()).await;
    assert!(resumed.is_empty());
    let task = t.read(task.id).await;
    assert_eq!((task.state, task.attempts, task.worker_losses), (State::Queued, 0, 0));
}

pub async fn attempt_with_older_fence_is_lost(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    let worker = t.hello("w").await;
    let first = t.claim(&worker, 1).await.remove(0);
    let reject = Command::Reject { attempt: attempt_of(&first), reason: "no room".to_owned() };
    t.ask(first.id, reject).await.unwrap();
    let second = t.claim(&worker, 1).await.remove(0);
    assert_eq!(second.id, first.id);
    let (_, resumed) = t.hello_again("w", "process 1", vec![(first.id, first.fence)]).await;
    assert!(resumed[0].live.is_none());
    let task = t.read(first.id).await;
    assert!(task.assignment.is_none(), "the second assignment never arrived: {task:?}");
}

pub async fn new_process_replaces_the_old(t: &mut Harness) {
    t.agent("a").await;
    let task = t.plain().await;
    let worker = t.hello("w").await;
    let given = t.claim(&worker, 1).await.remove(0);
    t.ask(task.id, Command::Accept(attempt_of(&given))).await.unwrap();
    // Also in the batch that assigns it.
    t.hello_again("w", "process 2", Vec::new()).await;
    let task = t.read(task.id).await;
    assert_eq!((task.state, task.attempts, task.worker_losses), (State::Queued, 1, 1));
    assert_eq!(t.steps(task.id).await[3..], ["started", "worker_lost", "ready"]);
}

pub async fn replaced_process_cannot_return(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    let back = |instance: &str, last: &rota_core::task::WorkerRef, running| {
        let Change::OpenSession(open) = open_session("w", instance, running) else { unreachable!() };
        Change::OpenSession(OpenSession { last: Some(last.epoch), ..open })
    };
    let first = t.hello("w").await;
    let (second, _) = t.hello_again("w", "process 2", Vec::new()).await;
    let task = t.claim(&second, 1).await.remove(0);
    assert_eq!(t.one(back("process 1", &first, Vec::new())).await.unwrap_err(), Refused::Replaced);
    assert_eq!(t.state(task.id).await, State::Assigned);
    // The current process may reconnect any number of times, even if it missed its last Welcome.
    let attempt = vec![(task.id, task.fence)];
    for last in [&second, &first] {
        let Ok(Answer::Session(..)) = t.one(back("process 2", last, attempt.clone())).await else { panic!() };
        assert_eq!(t.state(task.id).await, State::Running);
    }
    // After its session has ended, the name is free.
    t.one(end_session(&session("w", 4))).await.unwrap();
    let Ok(Answer::Session(epoch, _)) = t.one(back("process 1", &first, Vec::new())).await else { panic!() };
    assert_eq!(epoch.0, 5);
}

/// As after a restore: a process that the store has forgotten names an epoch that comes later, or that another process has now.
pub async fn lost_epochs_are_not_given_again(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    let back = |instance: &str, last| {
        let Change::OpenSession(open) = open_session("w", instance, Vec::new()) else { unreachable!() };
        Change::OpenSession(OpenSession { last: Some(Epoch(last)), ..open })
    };
    let Ok(Answer::Session(epoch, _)) = t.one(back("process 1", 5)).await else { panic!() };
    assert_eq!(epoch, Epoch(6));
    let (second, _) = t.hello_again("w", "process 2", Vec::new()).await;
    let task = t.claim(&second, 1).await.remove(0);
    let forgotten = t.one(back("process 1", second.epoch.0)).await;
    assert_eq!(forgotten.unwrap_err(), Refused::Replaced);
    assert_eq!(t.state(task.id).await, State::Assigned);
    // No store can have lost so many.
    let Ok(Answer::Session(epoch, _)) = t.one(back("process 2", u64::MAX >> 1)).await else { panic!() };
    assert_eq!(epoch, Epoch(second.epoch.0 + 1));
}

pub async fn superseded_end_releases_nothing(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    let old = t.hello("w").await;
    let task = t.claim(&old, 1).await.remove(0);
    let (new, _) = t.hello_again("w", "process 1", vec![(task.id, task.fence)]).await;
    assert_eq!(t.one(end_session(&old)).await.unwrap_err(), Refused::Superseded);
    assert_eq!(t.one(end_session(&session("x", 1))).await.unwrap_err(), Refused::Superseded);
    assert_eq!(t.state(task.id).await, State::Running);
    assert!(matches!(t.one(end_session(&new)).await, Ok(Answer::Ended(1))));
    assert!(matches!(t.one(end_session(&new)).await, Ok(Answer::Ended(0))));
}

pub async fn session_end_releases_its_tasks(t: &mut Harness) {
    t.agent("a").await;
    for _ in 0..3 {
        t.plain().await;
    }
    let (one, two) = (t.hello("w1").await, t.hello("w2").await);
    let lost = t.claim(&one, 2).await;
    let kept = t.claim(&two, 1).await.remove(0);
    t.succeed(&lost[0]).await;
    assert!(matches!(t.one(end_session(&one)).await, Ok(Answer::Ended(1))));
    assert_eq!(t.state(lost[1].id).await, State::Queued);
    assert_eq!(t.state(kept.id).await, State::Assigned);
    // Assigned and lost in the same batch.
    let mut create = t.task();
    create.offer = Some(two.clone());
    let id = create.task.id;
    let replies = t.batch(vec![make(create), end_session(&two), open_session("w2", "2", Vec::new())]).await;
    assert!(matches!(replies[1], Ok(Answer::Ended(2))), "{replies:?}");
    assert!(t.last_change(id).dispatch.is_none());
    assert_eq!(t.state(id).await, State::Queued);
}

pub async fn sessions_survive_a_reopen(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    t.plain().await;
    let worker = t.hello("w").await;
    let tasks = t.claim(&worker, 2).await;
    t.reopen().await;
    let snapshot = t.store.snapshot().await.unwrap();
    assert_eq!(snapshot.on_workers.len(), 2);
    assert_eq!(snapshot.sessions[0].instance, "process 1");
    let (_, resumed) = t.hello_again("w", "process 1", vec![(tasks[1].id, tasks[1].fence)]).await;
    assert!(resumed[0].live.is_some());
    assert_eq!(t.state(tasks[0].id).await, State::Queued);
    assert_eq!(t.state(tasks[1].id).await, State::Running);
    let (_, resumed) = t.hello_again("w", "process 1", vec![(tasks[1].id, Fence(9))]).await;
    assert!(resumed[0].live.is_none());
}

pub async fn lost_attempt_returns_after_a_reopen(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    let worker = t.hello("w").await;
    let task = t.claim(&worker, 1).await.remove(0);
    t.ask(task.id, Command::Accept(attempt_of(&task))).await.unwrap();
    t.one(end_session(&worker)).await.unwrap();
    assert_eq!(t.state(task.id).await, State::Queued);
    t.reopen().await;
    let (again, resumed) = t.hello_again("w", "process 1", vec![(task.id, task.fence)]).await;
    let (live, _) = resumed[0].live.clone().unwrap();
    assert_eq!((live.state, live.worker_losses), (State::Running, 0));
    // It is not in its queue any more, and is the worker's again.
    assert!(t.claim(&again, 1).await.is_empty());
    t.one(end_session(&again)).await.unwrap();
    assert_eq!(t.state(task.id).await, State::Queued);
    let (again, _) = t.hello_again("w", "process 1", vec![(task.id, task.fence)]).await;
    assert_eq!(t.state(task.id).await, State::Running);
    t.succeed(&t.read(task.id).await).await;
    assert!(t.claim(&again, 1).await.is_empty());
}

pub async fn worker_of_another_agent_resumes_nothing(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    let worker = t.hello("w").await;
    let task = t.claim(&worker, 1).await.remove(0);
    t.ask(task.id, Command::Accept(attempt_of(&task))).await.unwrap();
    let open = |agent| match open_session("w", "process 2", vec![(task.id, task.fence)]) {
        Change::OpenSession(open) => {
            Change::OpenSession(OpenSession { agent: AgentName::new(agent).unwrap(), ..open })
        }
        other => other,
    };
    let Ok(Answer::Session(_, resumed)) = t.one(open("b")).await else { panic!("no session") };
    assert!(resumed[0].live.is_none());
    let lost = t.read(task.id).await;
    assert_eq!((lost.state, lost.worker_losses, lost.hand_backs), (State::Queued, 0, 1), "no worker crashed");
    // Nor after the loss.
    let Ok(Answer::Session(_, resumed)) = t.one(open("b")).await else { panic!("no session") };
    assert!(resumed[0].live.is_none());
}

pub async fn names_stay_with_their_agent(t: &mut Harness) {
    t.agent("a").await;
    let open = |agent: &str, takes_name| {
        let Change::OpenSession(open) = open_session("w", "process 2", Vec::new()) else { unreachable!() };
        Change::OpenSession(OpenSession { agent: AgentName::new(agent).unwrap(), takes_name, ..open })
    };
    let taken = Refused::NameTaken(AgentName::new("a").unwrap());
    let worker = t.hello("w").await;
    assert_eq!(t.one(open("b", false)).await.unwrap_err(), taken);
    t.one(end_session(&worker)).await.unwrap();
    t.reopen().await;
    assert_eq!(t.one(open("b", false)).await.unwrap_err(), taken, "its worker is away");
    let Ok(Answer::Session(..)) = t.one(open("a", false)).await else { panic!("no session") };
    // Its identity has this name.
    let Ok(Answer::Session(epoch, _)) = t.one(open("b", true)).await else { panic!("no session") };
    // The process that had it ends, and keeps no attempts that others have by now.
    let Change::OpenSession(back) = open_session("w", "process 1", Vec::new()) else { unreachable!() };
    let back = Change::OpenSession(OpenSession { takes_name: false, last: Some(worker.epoch), ..back });
    assert_eq!(t.one(back).await.unwrap_err(), Refused::Replaced);
    t.one(end_session(&session("w", epoch.0))).await.unwrap();
    // No agent `b` exists, as after it was renamed: nothing is aimed at its workers.
    let Ok(Answer::Session(..)) = t.one(open("c", false)).await else { panic!("no session") };
}

/// What an attempt has left on the disk of its worker is lost only with a process of that name that does not have it.
pub async fn files_wait_for_the_disk_of_their_worker(t: &mut Harness) {
    t.agent("a").await;
    let mut workers = Vec::new();
    let mut tasks = Vec::new();
    for outlives_worker in [true, true, false] {
        t.plain().await;
        let worker = t.hello(&format!("w{}", workers.len())).await;
        let task = t.claim(&worker, 1).await.remove(0);
        let effect = EventEffect::WorkEnded(Some(outlives_worker));
        let items = vec![Item { at: t.now(), payload: "stored later".into(), effect }];
        t.ask(task.id, Command::Report { attempt: attempt_of(&task), first: 1, items }).await.unwrap();
        t.one(end_session(&worker)).await.unwrap();
        t.reopen().await;
        workers.push(worker);
        tasks.push(task);
    }
    let expected = [State::Running, State::Running, State::Queued];
    for (task, expected) in tasks.iter().zip(expected) {
        assert_eq!(t.state(task.id).await, expected);
    }
    let (_, resumed) = t.hello_again("w0", "process 2", vec![(tasks[0].id, tasks[0].fence)]).await;
    let (live, seq) = resumed[0].live.clone().unwrap();
    assert_eq!((seq, live.storing().is_some()), (1, true));
    t.succeed(&live).await;
    t.hello_again("w1", "process 2", Vec::new()).await;
    for task in &tasks[1..] {
        let task = t.read(task.id).await;
        assert_eq!((task.state, task.worker_losses, task.hand_backs), (State::Queued, 0, 1));
    }
}

/// Next to those whose files are stored, the one that runs is what ended the worker.
pub async fn attempt_that_only_stores_ends_no_worker(t: &mut Harness) {
    t.agent("a").await;
    for outlives_worker in [true, false] {
        let ids = [t.plain().await.id, t.plain().await.id];
        let worker = t.hello("w").await;
        let tasks = t.claim(&worker, 2).await;
        let effect = EventEffect::WorkEnded(Some(outlives_worker));
        let items = vec![Item { at: t.now(), payload: "stored later".into(), effect }];
        let report = |task, items| Command::Report { attempt: attempt_of(task), first: 1, items };
        t.ask(ids[0], report(&tasks[0], items)).await.unwrap();
        t.ask(ids[1], report(&tasks[1], Vec::new())).await.unwrap();
        t.one(end_session(&worker)).await.unwrap();
        let (stores, ran) = (t.read(ids[0]).await, t.read(ids[1]).await);
        assert_eq!((stores.worker_losses, stores.blamed_losses()), (0, 0));
        assert_eq!((ran.worker_losses, ran.blamed_losses(), ran.unclear_losses.len()), (1, 1, 0));
        t.cancel(ids[0]).await;
        t.cancel(ids[1]).await;
    }
}

async fn drain(t: &mut Harness, instance: &str) {
    let (worker, instance) = (WorkerName::new("w").unwrap(), instance.to_owned());
    t.one(Change::DrainWorker { namespace: namespace("n"), worker, instance }).await.unwrap();
}

/// Returns whether the only open session is that of a drained process.
async fn is_draining(t: &Harness) -> bool {
    let sessions = t.store.snapshot().await.unwrap().sessions;
    assert_eq!(sessions.len(), 1);
    sessions[0].draining
}

pub async fn drains_end_with_the_session_of_their_process(t: &mut Harness) {
    drain(t, "process 1").await;
    t.hello("w").await;
    drain(t, "process 2").await;
    assert!(!is_draining(t).await);
    drain(t, "process 1").await;
    t.reopen().await;
    assert!(is_draining(t).await);
    let (again, _) = t.hello_again("w", "process 1", Vec::new()).await;
    assert!(is_draining(t).await);
    t.one(end_session(&again)).await.unwrap();
    drain(t, "process 1").await;
    t.hello_again("w", "process 1", Vec::new()).await;
    assert!(!is_draining(t).await, "its session had ended");
    drain(t, "process 1").await;
    t.hello_again("w", "process 2", Vec::new()).await;
    assert!(!is_draining(t).await, "it is another process");
}
