//! Agents, and the tasks that name them.

use std::time::Duration;

use rota_core::failure::{Class, Failure};
use rota_core::target::Target;
use rota_core::task::{Completion, DEFAULT_CANCEL_GRACE, DEFAULT_TIMEOUT, Limits, State};

use super::harness::{Harness, delete_agent, make, on, put_agent, put_bounds};
use crate::{Refused, Reply};

pub async fn task_waits_for_its_agent(t: &mut Harness) {
    let task = t.plain().await;
    assert_eq!((task.state, task.agent_known), (State::Pending, false));
    t.agent("b").await;
    assert_eq!(t.state(task.id).await, State::Pending);
    t.agent("a").await;
    assert_eq!(t.state(task.id).await, State::Queued);
    assert_eq!(t.last_change(task.id).before, Some(State::Pending));
}

pub async fn deleted_agent_holds_and_releases_tasks(t: &mut Harness) {
    t.agent("a").await;
    let task = t.plain().await;
    for _ in 0..2 {
        assert!(matches!(t.one(delete_agent("a")).await, Ok(Reply::Deleted)));
        let waiting = t.read(task.id).await;
        assert_eq!((waiting.state, waiting.agent_known), (State::Pending, false));
        assert!(t.commits.last().unwrap().agents[0].deleted);
        t.reopen().await;
        t.agent("a").await;
        assert_eq!(t.state(task.id).await, State::Queued);
    }
    assert_eq!(
        t.steps(task.id).await,
        ["created", "ready", "agent_missing", "ready", "agent_missing", "ready"]
    );
    assert_eq!(t.one(delete_agent("b")).await.unwrap_err().to_string(), "agent b does not exist");
}

pub async fn agent_deleted_while_dependency_runs(t: &mut Harness) {
    t.agent("a").await;
    let first = t.plain().await;
    let second = t.after(vec![on(first.id)]);
    let second = t.create(second).await;
    let worker = t.hello("w").await;
    let first = t.claim(&worker, 1).await.remove(0);
    t.one(delete_agent("a")).await.unwrap();
    t.succeed(&first).await;
    let waiting = t.read(second.id).await;
    assert_eq!((waiting.state, waiting.agent_known), (State::Pending, false));
    t.agent("a").await;
    assert_eq!(t.state(second.id).await, State::Queued);
}

pub async fn agent_deleted_while_task_runs(t: &mut Harness) {
    t.agent("a").await;
    t.plain().await;
    let worker = t.hello("w").await;
    let task = t.claim(&worker, 1).await.remove(0);
    t.one(delete_agent("a")).await.unwrap();
    assert_eq!(t.state(task.id).await, State::Assigned);
    let failed = Completion::Failed(Failure::new(Class::Crash, "it fell"));
    t.finish(&task, failed).await.unwrap();
    t.later(Duration::from_secs(60));
    t.tick().await;
    let waiting = t.read(task.id).await;
    assert_eq!((waiting.state, waiting.agent_known), (State::Pending, false));
    t.agent("a").await;
    assert_eq!(t.state(task.id).await, State::Queued);
}

pub async fn generations_grow_and_conditions_hold(t: &mut Harness) {
    let refused = t.one(put_agent("a", "v1", Some(true))).await.unwrap_err();
    assert!(matches!(refused, Refused::NoAgent(name) if name.as_str() == "a"));
    let made_at = t.now();
    let first = t.agent("a").await;
    assert_eq!((first.generation, first.created_at, first.updated_at), (1, made_at, made_at));
    let before = t.commits.len();
    t.later(Duration::from_secs(1));
    assert_eq!(t.agent("a").await, first, "the same once more changes nothing");
    assert_eq!(t.commits.len(), before);
    let refused = t.one(put_agent("a", "v2", Some(false))).await.unwrap_err();
    assert!(matches!(refused, Refused::AgentExists(_)));
    let Ok(Reply::Agent(second)) = t.one(put_agent("a", "v2", Some(true))).await else { panic!("refused") };
    assert_eq!((second.generation, second.created_at, second.updated_at), (2, made_at, t.now()));
    t.reopen().await;
    assert_eq!(t.store.snapshot().await.unwrap().agents, [(*second).clone()]);
}

pub async fn agent_recreated_in_one_batch(t: &mut Harness) {
    t.agent("a").await;
    let (old, new) = (t.task(), t.task());
    let (old_id, new_id) = (old.task.id, new.task.id);
    let replies =
        t.batch(vec![make(old), delete_agent("a"), make(new), put_agent("a", "v2", Some(false))]).await;
    assert!(replies.iter().all(Result::is_ok), "{replies:?}");
    for id in [old_id, new_id] {
        assert_eq!(t.state(id).await, State::Queued);
    }
    assert_eq!(t.steps(old_id).await, ["created", "ready", "agent_missing", "ready"]);
    assert_eq!(t.commits.last().unwrap().agents.len(), 2);
}

const SECOND: Duration = Duration::from_secs(1);

fn impatient() -> Limits {
    Limits {
        timeout: Some(SECOND * 100),
        queue_timeout: Some(SECOND * 5),
        cancel_grace: Some(SECOND),
        ..Limits::default()
    }
}

pub async fn limits_apply_in_any_order(t: &mut Harness) {
    let before = t.plain().await.id;
    let mut own = t.task();
    own.task.limits = Limits {
        timeout: Some(SECOND),
        queue_timeout: Some(SECOND * 50),
        cancel_grace: None,
        ..Limits::default()
    };
    let own = t.create(own).await.id;
    t.reopen().await;
    t.later(SECOND * 20);
    t.one(put_bounds(impatient())).await.unwrap();
    let after = t.plain().await.id;
    for id in [before, after] {
        let task = t.read(id).await;
        assert_eq!(task.state, State::Queued);
        assert_eq!((task.timeout(), task.cancel_grace()), (SECOND * 100, SECOND));
    }
    let stubborn = t.read(own).await;
    assert_eq!((stubborn.timeout(), stubborn.cancel_grace()), (SECOND, SECOND));
    // Counted from the time at which it was ready, which is the creation of its agent.
    assert_eq!(t.store.snapshot().await.unwrap().next_due, Some(t.now() + SECOND * 5));
    t.later(SECOND * 5);
    assert_eq!(t.tick().await, 2);
    assert_eq!(t.state(own).await, State::Queued);
    for id in [before, after] {
        assert_eq!(t.read(id).await.failure.unwrap().class, Class::QueueTimeout);
    }
}

pub async fn changed_agent_updates_limits(t: &mut Harness) {
    t.agent("a").await;
    let first = t.plain().await.id;
    let behind = t.after(vec![on(first)]);
    let behind = t.create(behind).await.id;
    t.one(put_bounds(impatient())).await.unwrap();
    assert_eq!(t.read(first).await.queue_timeout(), Some(SECOND * 5));
    let worker = t.hello("w").await;
    let running = t.claim(&worker, 1).await.remove(0);
    t.one(put_bounds(Limits { timeout: Some(SECOND * 7), ..Limits::default() })).await.unwrap();
    assert_eq!(t.read(first).await.timeout(), SECOND * 100, "an attempt keeps what it was sent with");
    t.succeed(&running).await;
    let task = t.read(behind).await;
    assert_eq!((task.state, task.timeout(), task.queue_timeout()), (State::Queued, SECOND * 7, None));
}

pub async fn assigned_worker_brings_agent_limits(t: &mut Harness) {
    t.one(put_bounds(impatient())).await.unwrap();
    let targets = [
        Target::Capabilities(["code".to_owned()].into()),
        Target::Worker(rota_core::WorkerName::new("w").unwrap()),
    ];
    let worker = t.hello("w").await;
    t.reopen().await;
    for target in targets {
        let mut create = t.task();
        create.task.target = target.clone();
        let task = t.create(create).await;
        assert_eq!((task.timeout(), task.cancel_grace()), (DEFAULT_TIMEOUT, DEFAULT_CANCEL_GRACE));
        t.later(SECOND * 10);
        assert_eq!(t.tick().await, 0, "the agent's queue timeout is not for those who do not name it");
        let route = t.route(target).await;
        let task = t.claim_from(&worker, vec![route], 1).await.remove(0);
        assert_eq!((task.timeout(), task.cancel_grace()), (SECOND * 100, SECOND));
        assert_eq!(task.queue_timeout(), None);
        t.succeed(&task).await;
    }
}
