//! Dependency cycles: detected with their last edge. The task that closes one fails, and the others with it.

use rota_core::TaskId;
use rota_core::failure::Class;
use rota_core::task::{DependencyKey, OnFailure, State};

use super::follow_ups::settle;
use super::harness::{Harness, depend, make, on, on_alias, want};

/// Checks that the task which closed a cycle failed with its path, and the others with it.
async fn fail_with_path(t: &Harness, ids: &[TaskId], start: TaskId) {
    let cycle: Vec<_> = ids.iter().cycle().skip_while(|id| **id != start).take(ids.len()).collect();
    for &&id in &cycle {
        let task = t.read(id).await;
        assert_eq!(task.state, State::Failed);
        let failure = task.failure.unwrap();
        assert_eq!(failure.class, Class::Dependency);
        if id != start {
            assert_eq!(t.steps(id).await.last().unwrap(), "dependency_failed");
            continue;
        }
        assert_eq!(t.steps(id).await.last().unwrap(), "dependency_cycle");
        let steps = failure.message.strip_prefix("dependency cycle: ").unwrap();
        let mut steps: Vec<_> = steps.split(" → ").collect();
        assert_eq!(steps.pop(), Some(id.to_string().as_str()), "it ends where it began");
        let omitted =
            steps.last().and_then(|step| step.strip_prefix('(')?.strip_suffix(" more)")?.parse().ok());
        if omitted.is_some() {
            steps.pop();
        }
        let path = cycle.iter().map(ToString::to_string);
        assert_eq!(steps, path.take(steps.len()).collect::<Vec<_>>());
        assert_eq!(steps.len() + omitted.unwrap_or(0_usize), ids.len());
        assert!(steps.len() <= 10 && (ids.len() > 10 || omitted.is_none()), "{}", failure.message);
    }
}

/// Creates a ring of tasks in a shuffled order.
async fn ring(t: &mut Harness, size: usize) {
    let mut made: Vec<_> = (0..size).map(|_| t.task()).collect();
    let ids: Vec<_> = made.iter().map(|create| create.task.id).collect();
    for (index, create) in made.iter_mut().enumerate() {
        create.task.dependencies = vec![on(ids[(index + 1) % size])];
    }
    // Every third first, then the others, so that edges are created before and after their targets.
    let (thirds, others): (Vec<_>, Vec<_>) =
        made.into_iter().enumerate().partition(|(index, _)| index % 3 == 0);
    let order: Vec<_> = thirds.into_iter().chain(others).map(|(_, create)| create).collect();
    let last = order.last().unwrap().task.id;
    for create in order {
        let closes = create.task.id == last;
        let state = t.create(create).await.state;
        // The search in a large ring takes several commits, and so does its failure.
        assert_eq!(state, if closes && size <= 100 { State::Failed } else { State::Pending });
    }
    if size <= 100 {
        assert_eq!(t.commits.last().unwrap().tasks.len(), size);
    }
    settle(t).await;
    fail_with_path(t, &ids, last).await;
}

pub async fn cycle_of_one(t: &mut Harness) {
    t.agent("a").await;
    ring(t, 1).await;
}

pub async fn cycle_of_two(t: &mut Harness) {
    t.agent("a").await;
    ring(t, 2).await;
}

pub async fn cycle_of_three(t: &mut Harness) {
    ring(t, 3).await;
}

pub async fn cycle_of_fifty(t: &mut Harness) {
    t.agent("a").await;
    ring(t, 50).await;
}

/// No commit is large, and what a cycle writes grows with its members, not with their square.
pub async fn large_cycle_fails_in_pieces(t: &mut Harness) {
    t.agent("a").await;
    ring(t, 3000).await;
    let bytes: usize = t
        .commits
        .iter()
        .flat_map(|commit| &commit.tasks)
        .map(|change| format!("{:?}", change.task.failure).len())
        .sum();
    assert!(bytes < 3000 * 2000, "{bytes} bytes");
}

pub async fn cycle_by_alias(t: &mut Harness) {
    t.agent("a").await;
    let (mut one, mut two) = (t.task(), t.task());
    (one.task.alias, two.task.alias) = (Some("one".to_owned()), Some("two".to_owned()));
    one.task.dependencies = vec![on_alias("two")];
    two.task.dependencies = vec![on_alias("one")];
    let ids = [one.task.id, two.task.id];
    t.batch(vec![make(one), make(two)]).await;
    fail_with_path(t, &ids, ids[1]).await;
    // The newest task of the alias is an older one, not the task itself.
    let mut three = t.after(vec![depend(DependencyKey::Alias("one".to_owned()), OnFailure::Continue)]);
    three.task.alias = Some("one".to_owned());
    assert_eq!(t.create(three).await.state, State::Queued);
}

pub async fn members_continue_after_a_broken_cycle(t: &mut Harness) {
    t.agent("a").await;
    let middle = t.task();
    let id = middle.task.id;
    let mut sides = Vec::new();
    for _ in 0..2 {
        let side = t.after(vec![depend(DependencyKey::Id(id), OnFailure::Continue)]);
        sides.push(t.create(side).await.id);
    }
    let mut middle = middle;
    middle.task.dependencies = sides.iter().copied().map(on).collect();
    // It closes both cycles, and fails; the others asked to run nevertheless.
    assert_eq!(t.create(middle).await.state, State::Failed);
    assert_eq!(t.steps(id).await.last().unwrap(), "dependency_cycle");
    for id in sides {
        assert_eq!(t.state(id).await, State::Queued);
    }
}

/// The search is not lost, and does not hold up others.
pub async fn search_survives_a_restart(t: &mut Harness) {
    t.agent("a").await;
    let mut made: Vec<_> = (0..700).map(|_| t.task()).collect();
    let ids: Vec<_> = made.iter().map(|create| create.task.id).collect();
    for (index, create) in made.iter_mut().enumerate() {
        create.task.dependencies = vec![on(ids[(index + 1) % ids.len()])];
    }
    let last = made.remove(0);
    t.batch(made.into_iter().rev().map(make).collect()).await;
    t.commits.clear();
    t.create(last).await;
    t.reopen().await;
    settle(t).await;
    fail_with_path(t, &ids, ids[0]).await;
}

pub async fn dependents_of_a_cycle_fail(t: &mut Harness) {
    t.agent("a").await;
    let (mut one, mut two) = (t.task(), t.task());
    let (waiter, patient) = (t.after(vec![on(one.task.id)]), one.task.id);
    let patient = t.after(vec![depend(DependencyKey::Id(patient), OnFailure::Continue)]);
    let (waiter, patient) = (t.create(waiter).await, t.create(patient).await);
    one.task.dependencies = vec![on(two.task.id)];
    two.task.dependencies = vec![on(one.task.id)];
    t.create(one).await;
    t.create(two).await;
    assert_eq!(t.steps(waiter.id).await.last().unwrap(), "dependency_failed");
    assert_eq!(t.state(patient.id).await, State::Queued);
}

pub async fn diamond_is_no_cycle(t: &mut Harness) {
    t.agent("a").await;
    let (top, mut left, mut right, mut bottom) = (t.task(), t.task(), t.task(), t.task());
    left.task.dependencies = vec![on(top.task.id)];
    right.task.dependencies = vec![on(top.task.id)];
    bottom.task.dependencies = vec![on(left.task.id), on(right.task.id)];
    let ids = [bottom.task.id, right.task.id, left.task.id, top.task.id];
    for create in [bottom, right, left, top] {
        t.create(create).await;
    }
    let states = [t.state(ids[0]).await, t.state(ids[1]).await, t.state(ids[2]).await, t.state(ids[3]).await];
    assert_eq!(states, [State::Pending, State::Pending, State::Pending, State::Queued]);
}

pub async fn cancelled_tasks_form_no_cycle(t: &mut Harness) {
    t.agent("a").await;
    let (mut one, mut two) = (t.task(), t.task());
    one.task.dependencies = vec![on(two.task.id)];
    two.task.dependencies = vec![depend(DependencyKey::Id(one.task.id), OnFailure::Continue)];
    let (first, second) = (one.task.id, two.task.id);
    t.create(one).await;
    t.ask(first, want(rota_core::task::Desired::Cancelled)).await.unwrap();
    assert_eq!(t.create(two).await.state, State::Queued);
    assert_eq!(t.steps(second).await, ["created", "ready"]);
}
