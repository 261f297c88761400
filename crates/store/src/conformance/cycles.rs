//! Cycles of dependencies: found when their last edge comes, and all in them fail.

use rota_core::TaskId;
use rota_core::failure::Class;
use rota_core::task::{DependencyKey, OnFailure, State};

use super::trial::{Trial, depend, make, on, on_alias, want};

async fn fails_with_its_path(t: &Trial, ids: &[TaskId]) {
    for (index, &id) in ids.iter().enumerate() {
        let task = t.read(id).await;
        assert_eq!(task.state, State::Failed, "{index}");
        assert_eq!(t.steps(id).await.last().unwrap(), "dependency_cycle");
        let failure = task.failure.unwrap();
        assert_eq!(failure.class, Class::Dependency);
        let path = ids[index..].iter().chain(&ids[..=index]).map(ToString::to_string);
        let path = path.collect::<Vec<_>>().join(" → ");
        assert!(failure.message.ends_with(&path), "{} has not {path}", failure.message);
    }
}

/// Each waits for the next, the last for the first; they come in some order.
async fn ring(t: &mut Trial, size: usize) {
    let mut made: Vec<_> = (0..size).map(|_| t.task()).collect();
    let ids: Vec<_> = made.iter().map(|create| create.new.id).collect();
    for (index, create) in made.iter_mut().enumerate() {
        create.new.dependencies = vec![on(ids[(index + 1) % size])];
    }
    // Every third first, then the others, so that edges come before and after their ends.
    let (thirds, others): (Vec<_>, Vec<_>) =
        made.into_iter().enumerate().partition(|(index, _)| index % 3 == 0);
    let order: Vec<_> = thirds.into_iter().chain(others).map(|(_, create)| create).collect();
    let last = order.last().unwrap().new.id;
    for create in order {
        let closes = create.new.id == last;
        let state = t.create(create).await.state;
        assert_eq!(state, if closes { State::Failed } else { State::Pending });
    }
    assert_eq!(t.commits.last().unwrap().tasks.len(), size);
    fails_with_its_path(t, &ids).await;
}

pub async fn of_one(t: &mut Trial) {
    t.agent("a").await;
    ring(t, 1).await;
}

pub async fn of_two(t: &mut Trial) {
    t.agent("a").await;
    ring(t, 2).await;
}

pub async fn of_three(t: &mut Trial) {
    ring(t, 3).await;
}

pub async fn of_fifty(t: &mut Trial) {
    t.agent("a").await;
    ring(t, 50).await;
}

pub async fn by_alias(t: &mut Trial) {
    t.agent("a").await;
    let (mut one, mut two) = (t.task(), t.task());
    (one.new.alias, two.new.alias) = (Some("one".to_owned()), Some("two".to_owned()));
    one.new.dependencies = vec![on_alias("two")];
    two.new.dependencies = vec![on_alias("one")];
    let ids = [one.new.id, two.new.id];
    t.batch(vec![make(one), make(two)]).await;
    fails_with_its_path(t, &ids).await;
    // The newest of an alias is an older task, not the task itself.
    let mut three = t.after(vec![depend(DependencyKey::Alias("one".to_owned()), OnFailure::Continue)]);
    three.new.alias = Some("one".to_owned());
    assert_eq!(t.create(three).await.state, State::Queued);
}

pub async fn two_closed_at_once(t: &mut Trial) {
    t.agent("a").await;
    let middle = t.task();
    let id = middle.new.id;
    let mut sides = Vec::new();
    for _ in 0..2 {
        // It would go on without the middle one; but it is in a cycle itself.
        let side = t.after(vec![depend(DependencyKey::Id(id), OnFailure::Continue)]);
        sides.push(t.create(side).await.id);
    }
    let mut middle = middle;
    middle.new.dependencies = sides.iter().copied().map(on).collect();
    t.create(middle).await;
    for id in [id, sides[0], sides[1]] {
        assert_eq!(t.steps(id).await.last().unwrap(), "dependency_cycle");
    }
}

pub async fn whoever_waits_for_a_cycle_fails(t: &mut Trial) {
    t.agent("a").await;
    let (mut one, mut two) = (t.task(), t.task());
    let (waiter, patient) = (t.after(vec![on(one.new.id)]), one.new.id);
    let patient = t.after(vec![depend(DependencyKey::Id(patient), OnFailure::Continue)]);
    let (waiter, patient) = (t.create(waiter).await, t.create(patient).await);
    one.new.dependencies = vec![on(two.new.id)];
    two.new.dependencies = vec![on(one.new.id)];
    t.create(one).await;
    t.create(two).await;
    assert_eq!(t.steps(waiter.id).await.last().unwrap(), "dependency_failed");
    assert_eq!(t.state(patient.id).await, State::Queued);
}

pub async fn none_in_a_diamond(t: &mut Trial) {
    t.agent("a").await;
    let (top, mut left, mut right, mut bottom) = (t.task(), t.task(), t.task(), t.task());
    left.new.dependencies = vec![on(top.new.id)];
    right.new.dependencies = vec![on(top.new.id)];
    bottom.new.dependencies = vec![on(left.new.id), on(right.new.id)];
    let ids = [bottom.new.id, right.new.id, left.new.id, top.new.id];
    for create in [bottom, right, left, top] {
        t.create(create).await;
    }
    let states = [t.state(ids[0]).await, t.state(ids[1]).await, t.state(ids[2]).await, t.state(ids[3]).await];
    assert_eq!(states, [State::Pending, State::Pending, State::Pending, State::Queued]);
}

pub async fn none_left_by_those_who_gave_up(t: &mut Trial) {
    t.agent("a").await;
    let (mut one, mut two) = (t.task(), t.task());
    one.new.dependencies = vec![on(two.new.id)];
    two.new.dependencies = vec![depend(DependencyKey::Id(one.new.id), OnFailure::Continue)];
    let (first, second) = (one.new.id, two.new.id);
    t.create(one).await;
    t.ask(first, want(rota_core::task::Desired::Cancelled)).await.unwrap();
    assert_eq!(t.create(two).await.state, State::Queued);
    assert_eq!(t.steps(second).await, ["created", "ready"]);
}
