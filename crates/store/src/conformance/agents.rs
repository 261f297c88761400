//! Agents, and tasks that name them.

use std::time::Duration;

use rota_core::failure::{Class, Failure};
use rota_core::task::{Ending, State};

use super::trial::{Trial, delete_agent, make, on, put_agent};
use crate::{Refused, Reply};

pub async fn a_task_before_its_agent(t: &mut Trial) {
    let task = t.plain().await;
    assert_eq!((task.state, task.agent_known), (State::Pending, false));
    t.agent("b").await;
    assert_eq!(t.state(task.id).await, State::Pending);
    t.agent("a").await;
    assert_eq!(t.state(task.id).await, State::Queued);
    assert_eq!(t.told(task.id).before, Some(State::Pending));
}

pub async fn gone_and_back(t: &mut Trial) {
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
    assert_eq!(t.one(delete_agent("b")).await.unwrap_err().to_string(), "there is no agent b");
}

pub async fn gone_while_a_dependency_runs(t: &mut Trial) {
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

pub async fn gone_while_a_worker_has_it(t: &mut Trial) {
    t.agent("a").await;
    t.plain().await;
    let worker = t.hello("w").await;
    let task = t.claim(&worker, 1).await.remove(0);
    t.one(delete_agent("a")).await.unwrap();
    assert_eq!(t.state(task.id).await, State::Assigned);
    let failed = Ending::Failed(Failure::new(Class::Crash, "it fell"));
    t.finish(&task, failed).await.unwrap();
    t.later(Duration::from_secs(60));
    t.tick().await;
    let waiting = t.read(task.id).await;
    assert_eq!((waiting.state, waiting.agent_known), (State::Pending, false));
    t.agent("a").await;
    assert_eq!(t.state(task.id).await, State::Queued);
}

pub async fn generations_and_conditions(t: &mut Trial) {
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

pub async fn deleted_and_made_in_one_batch(t: &mut Trial) {
    t.agent("a").await;
    let (old, new) = (t.task(), t.task());
    let (old_id, new_id) = (old.new.id, new.new.id);
    let replies =
        t.batch(vec![make(old), delete_agent("a"), make(new), put_agent("a", "v2", Some(false))]).await;
    assert!(replies.iter().all(Result::is_ok), "{replies:?}");
    for id in [old_id, new_id] {
        assert_eq!(t.state(id).await, State::Queued);
    }
    assert_eq!(t.steps(old_id).await, ["created", "ready", "agent_missing", "ready"]);
    assert_eq!(t.commits.last().unwrap().agents.len(), 2);
}
