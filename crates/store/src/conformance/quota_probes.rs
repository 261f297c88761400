//! Cool-downs of credentials of agents: their probes, which tasks concern them, and how many there are.

use std::sync::Arc;
use std::time::Duration;

use rota_core::failure::{Class, Failure};
use rota_core::quota::{CoolDown, CredentialId, MAX_OWN_COOL_DOWNS, ModelAccess};
use rota_core::task::{self, Completion, EventEffect, Item, Own, Task, WorkerRef};
use rota_core::{AgentName, TaskId};

use super::harness::{Harness, ask, attempt_of, namespace, to_agent};
use super::quota::{ONE, RESET, TWO, add, cool_downs, fail_next, limited, settle, start};
use crate::{Claim, Command, CoolDownEnd};

/// Creates a task that uses its agent's credential.
async fn plain(t: &mut Harness, own: Own) -> TaskId {
    t.later(Duration::from_millis(1));
    let mut create = t.task();
    create.task.own = own;
    t.create(create).await.id
}

/// Names what an attempt uses, as its worker does.
async fn names(t: &mut Harness, task: &Task, credential: CredentialId) {
    let access = ModelAccess { credential: Some(credential), ..ModelAccess::default() };
    t.ask(task.id, task::Command::UseModel { attempt: attempt_of(task), access }).await.unwrap();
}

/// Lets an agent reach a limit by a first task.
async fn limit_agent(t: &mut Harness, worker: &WorkerRef, resets: Option<Duration>) {
    plain(t, Own::default()).await;
    let task = t.claim(worker, 1).await.remove(0);
    names(t, &task, ONE).await;
    t.finish(&task, limited(resets)).await.unwrap();
}

/// Claims tasks for a worker whose agent's credential cools down.
async fn probe(t: &mut Harness, worker: &WorkerRef, slots: usize) -> Vec<Arc<Task>> {
    let (namespace, routes) = (namespace("n"), vec![t.route(to_agent("a")).await]);
    t.commits.clear();
    let claim = Claim {
        namespace,
        worker: worker.clone(),
        routes,
        shared: Vec::new(),
        slots,
        probes: Some(ONE),
        not_isolating: Default::default(),
    };
    t.one(Command::Claim(claim)).await.unwrap();
    let Some(commit) = t.commits.last() else { return Vec::new() };
    commit
        .tasks
        .iter()
        .filter(|change| change.dispatch.is_some())
        .map(|change| Arc::clone(&change.task))
        .collect()
}

async fn cool_down(t: &Harness) -> Option<CoolDown> {
    t.store.snapshot().await.unwrap().cool_downs.pop()
}

async fn until_probe(t: &mut Harness) {
    let at = cool_down(t).await.unwrap().probe_at;
    t.later(at.since(t.now()));
    t.tick().await;
}

pub async fn one_task_of_an_agent_probes(t: &mut Harness) {
    let worker = start(t).await;
    limit_agent(t, &worker, None).await;
    let first = cool_down(t).await.unwrap();
    assert!(first.agents.contains(&AgentName::new("a").unwrap()) && !first.reset_known);
    let mut own = t.task();
    own.task.credential = Some(TWO);
    let own = t.create(own).await.id;
    for _ in 0..3 {
        plain(t, Own::default()).await;
    }
    let given = probe(t, &worker, 1).await;
    assert_eq!(given.iter().map(|task| task.id).collect::<Vec<_>>(), [own], "it cools down");
    t.succeed(&given[0]).await;
    until_probe(t).await;
    // The store decides, also for claims of more slots, and of other workers.
    let other = t.hello("other").await;
    let given = probe(t, &worker, 3).await;
    let [first] = &given[..] else { panic!("one probes: {given:?}") };
    assert_eq!(cool_down(t).await.unwrap().probe.unwrap().task, first.id);
    assert_eq!(probe(t, &other, 1).await.len(), 0);
    // One that uses another credential shows nothing.
    names(t, first, TWO).await;
    assert_eq!(cool_down(t).await.unwrap().probe, None);
    let second = probe(t, &other, 1).await.remove(0);
    t.succeed(&second).await;
    assert!(cool_down(t).await.unwrap().probe.is_none(), "it named none");
    let third = probe(t, &other, 1).await.remove(0);
    names(t, &third, ONE).await;
    t.succeed(&third).await;
    assert_eq!(cool_downs(t).await, 0);
}

pub async fn own_key_does_not_use_up_the_probe(t: &mut Harness) {
    let worker = start(t).await;
    limit_agent(t, &worker, None).await;
    let own = add(t, TWO).await;
    let plain = plain(t, Own::default()).await;
    t.later(Duration::from_millis(1));
    let until = cool_down(t).await.unwrap().probe_at;
    t.later(until.since(t.now()));
    assert_eq!(probe(t, &worker, 1).await[0].id, own);
    assert_eq!(cool_down(t).await.unwrap().probe, None);
    assert_eq!(probe(t, &worker, 1).await[0].id, plain);
    assert!(cool_down(t).await.unwrap().probe.is_some());
}

pub async fn rejected_probe_that_chose_its_model_is_replaced(t: &mut Harness) {
    let worker = start(t).await;
    limit_agent(t, &worker, None).await;
    until_probe(t).await;
    t.claim(&worker, 8).await;
    let chosen = plain(t, Own { choice: true, ..Own::default() }).await;
    let rejected = probe(t, &worker, 1).await.remove(0);
    assert_eq!(rejected.id, chosen);
    names(t, &rejected, ONE).await;
    t.finish(&rejected, Completion::Failed(Failure::new(Class::Auth, "403"))).await.unwrap();
    let after = cool_down(t).await.unwrap();
    assert_eq!((after.probe, after.waits), (None, 1));
    plain(t, Own::default()).await;
    assert_eq!(probe(t, &worker, 1).await.len(), 1);
}

pub async fn probe_without_a_sign_is_replaced(t: &mut Harness) {
    let worker = start(t).await;
    limit_agent(t, &worker, None).await;
    until_probe(t).await;
    t.claim(&worker, 8).await;
    plain(t, Own::default()).await;
    plain(t, Own::default()).await;
    assert_eq!(probe(t, &worker, 2).await.len(), 1);
    t.later(Duration::from_mins(9));
    assert_eq!(probe(t, &worker, 1).await.len(), 0);
    t.later(Duration::from_mins(1));
    assert_eq!(probe(t, &worker, 2).await.len(), 1);
}

pub async fn endpoint_of_a_task_is_not_the_agents(t: &mut Harness) {
    let worker = start(t).await;
    for own in [Own { endpoint: true, ..Own::default() }, Own { program: true, ..Own::default() }] {
        plain(t, own).await;
        let task = t.claim(&worker, 1).await.remove(0);
        names(t, &task, ONE).await;
        t.finish(&task, limited(Some(RESET))).await.unwrap();
        assert_eq!(cool_downs(t).await, 0);
        assert!(t.read(task.id).await.quota.is_none());
    }
    // Nor does one that works end the agent's limit.
    limit_agent(t, &worker, None).await;
    let until = cool_down(t).await.unwrap().probe_at;
    plain(t, Own { endpoint: true, ..Own::default() }).await;
    t.later(until.since(t.now()));
    let task = probe(t, &worker, 1).await.remove(0);
    names(t, &task, ONE).await;
    t.succeed(&task).await;
    assert_eq!(cool_down(t).await.unwrap().probe, None);
    // The same credential at another back end has limits of its own.
    plain(t, Own::default()).await;
    let task = probe(t, &worker, 1).await.remove(0);
    let access = ModelAccess { credential: Some(ONE), at_backend: Some(TWO), backend: "two".to_owned() };
    t.ask(task.id, task::Command::UseModel { attempt: attempt_of(&task), access }).await.unwrap();
    t.finish(&task, limited(Some(RESET))).await.unwrap();
    assert_eq!(cool_downs(t).await, 2);
}

pub async fn named_reset_is_probed_and_left(t: &mut Harness) {
    let worker = start(t).await;
    let days = Duration::from_hours(5 * 24);
    limit_agent(t, &worker, Some(days)).await;
    let first = cool_down(t).await.unwrap();
    assert_eq!(first.until.since(first.since), days);
    let waiting = t.store.snapshot().await.unwrap().queued.iter().map(|(_, count)| count).sum::<u64>();
    assert_eq!(waiting, 0);
    t.later(Duration::from_mins(59));
    t.tick().await;
    assert_eq!(probe(t, &worker, 1).await.len(), 0);
    t.later(Duration::from_mins(1));
    t.tick().await;
    let task = probe(t, &worker, 1).await.remove(0);
    assert_eq!(task.quota, None);
    names(t, &task, ONE).await;
    t.finish(&task, limited(Some(days - Duration::from_hours(1)))).await.unwrap();
    assert_eq!(t.read(task.id).await.quota.as_ref().unwrap().until, first.until);
    // A new key, or a raised limit: one task tries.
    let end = |how| Command::EndCoolDown { namespace: namespace("n"), credential: ONE, how };
    t.one(end(CoolDownEnd::Probe)).await.unwrap();
    settle(t).await;
    let task = probe(t, &worker, 1).await.remove(0);
    names(t, &task, TWO).await;
    t.one(end(CoolDownEnd::Left(AgentName::new("a").unwrap()))).await.unwrap();
    assert_eq!(cool_downs(t).await, 0);
}

pub async fn cool_downs_of_a_namespace_are_bounded(t: &mut Harness) {
    let worker = start(t).await;
    for number in 0..MAX_OWN_COOL_DOWNS as u64 + 20 {
        add(t, CredentialId(number.to_be_bytes())).await;
        fail_next(t, &worker, limited(Some(RESET))).await;
    }
    assert_eq!(cool_downs(t).await, MAX_OWN_COOL_DOWNS);
    // There is room for those of agents.
    plain(t, Own::default()).await;
    let task = t.claim(&worker, 1).await.remove(0);
    names(t, &task, TWO).await;
    t.finish(&task, limited(Some(RESET))).await.unwrap();
    assert_eq!(cool_downs(t).await, MAX_OWN_COOL_DOWNS + 1);
}

/// A worker may name what an attempt uses in the commit of one of its reports.
pub async fn named_credentials_are_known_besides_reports(t: &mut Harness) {
    let worker = start(t).await;
    let id = plain(t, Own::default()).await;
    let attempt = attempt_of(&t.claim(&worker, 1).await[0]);
    t.ask(id, task::Command::Accept(attempt.clone())).await.unwrap();
    let access = ModelAccess { credential: Some(ONE), ..ModelAccess::default() };
    let named = task::Command::UseModel { attempt: attempt.clone(), access };
    let report = |first| {
        let items = vec![Item { at: t.now(), payload: "event".into(), effect: EventEffect::None }];
        ask(id, task::Command::Report { attempt: attempt.clone(), first, items })
    };
    let (both, alone) = (vec![ask(id, named), report(1)], vec![report(2)]);
    for (batch, identified) in [(both, true), (alone, false)] {
        assert!(t.batch(batch).await.iter().all(Result::is_ok));
        let change = t.last_change(id);
        assert_eq!((change.before, change.events.len()), (Some(task::State::Running), 1));
        assert_eq!(change.identified, identified);
    }
}
