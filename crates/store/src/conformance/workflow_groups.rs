//! Concurrency groups of workflows and of steps.

use rota_core::workflow::{
    Command as Apply, Group, Kind, Place, Start, State, StepCommand, StepState, Workflow,
};
use rota_core::{WorkflowId, WorkflowKey};
use uuid::Uuid;

use super::follow_ups::settle;
use super::harness::{Harness, namespace};
use super::workflow_run::{create, waiting, workflow};
use crate::{
    Action, GROUP_WINDOW, GroupKey, GroupMember, NewRound, NewStep, Refused, Reply, WORKFLOW_MEMBER,
    WorkflowCommand, WorkflowQuery,
};

fn group(limit: u32, replaces: bool) -> Option<Box<Group>> {
    Some(Box::new(Group { name: "g".to_owned(), limit, replaces, place: Place::Outside }))
}

fn signal(name: &str) -> NewStep {
    waiting(name, Kind::Signal { timeout: None }, &[])
}

/// Workflows whose steps wait for signals. With `reloads`, the store is reopened before each command.
struct World<'a> {
    t: &'a mut Harness,
    count: u128,
    reloads: bool,
}

impl World<'_> {
    async fn apply(&mut self, command: WorkflowCommand) -> Result<Reply, Refused> {
        if self.reloads {
            self.t.reopen().await;
        }
        let reply = self.t.one(command.into()).await;
        settle(self.t).await;
        reply
    }

    async fn add(&mut self, change: impl FnOnce(&mut Workflow, &mut Vec<NewStep>)) -> WorkflowKey {
        self.count += 1;
        let mut given = workflow(vec![signal("a"), signal("b")]);
        given.workflow.id = WorkflowId(Uuid::from_u128(self.count));
        change(&mut given.workflow, &mut given.steps);
        let (made, created) = create(self.t, given).await;
        assert!(created);
        settle(self.t).await;
        made.key
    }

    async fn get(&self, key: WorkflowKey) -> Workflow {
        self.t.store.workflows(WorkflowQuery::Key(key)).await.unwrap().workflows.remove(0)
    }

    async fn place(&self, key: WorkflowKey) -> Place {
        self.get(key).await.group.unwrap().place
    }

    async fn states(&self, key: WorkflowKey) -> Vec<StepState> {
        let query = WorkflowQuery::Steps { workflow: key, from: 0, limit: 9 };
        self.t.store.workflows(query).await.unwrap().steps.iter().map(|step| step.state).collect()
    }

    /// Returns the steps that the driver would evaluate.
    async fn driven(&self) -> Vec<(WorkflowKey, u32)> {
        let rows =
            self.t.store.workflows(WorkflowQuery::Driven { after: None, limit: 10_000 }).await.unwrap();
        rows.steps.iter().map(|step| (step.workflow, step.index)).collect()
    }

    async fn members(&self, of_steps: bool) -> Vec<GroupMember> {
        let key = GroupKey { namespace: namespace("n"), of_steps, name: "g".to_owned() };
        self.t.store.workflows(WorkflowQuery::Group(key)).await.unwrap().members
    }

    async fn skip(&mut self, workflow: WorkflowKey, step: u32) {
        let drive = WorkflowCommand::Drive { workflow, step, action: Box::new(Action::Skip) };
        self.apply(drive).await.unwrap();
    }

    async fn start(&mut self, workflow: WorkflowKey, step: u32) {
        let start = Start { round: 1, ..Start::default() };
        let action = Action::Start(NewRound { start, ..NewRound::default() });
        self.apply(WorkflowCommand::Drive { workflow, step, action: Box::new(action) }).await.unwrap();
    }

    async fn command(&mut self, key: WorkflowKey, command: Apply) {
        let id = self.get(key).await.id;
        self.apply(WorkflowCommand::Apply { namespace: namespace("n"), id, command }).await.unwrap();
    }

    /// Ends both steps of a workflow.
    async fn end(&mut self, key: WorkflowKey) {
        self.skip(key, 0).await;
        self.skip(key, 1).await;
        assert_eq!(self.get(key).await.state, State::Succeeded);
    }
}

fn cancel() -> Apply {
    Apply::Cancel { reason: "enough".to_owned() }
}

async fn in_order(t: &mut Harness, reloads: bool) {
    let mut world = World { t, count: 0, reloads };
    let mut keys = Vec::new();
    for _ in 0..5 {
        keys.push(world.add(|workflow, _| workflow.group = group(1, false)).await);
    }
    assert_eq!(world.driven().await, [(keys[0], 0), (keys[0], 1)], "only the first one runs");
    assert_eq!((world.place(keys[0]).await, world.place(keys[1]).await), (Place::Holding, Place::Waiting));
    world.skip(keys[0], 0).await;
    assert_eq!(world.driven().await, [(keys[0], 1)]);
    // In the commit that ends the first one.
    if reloads {
        world.t.reopen().await;
    }
    let action = Box::new(Action::Skip);
    let drive = WorkflowCommand::Drive { workflow: keys[0], step: 1, action };
    world.t.one(drive.into()).await.unwrap();
    let commit = world.t.commits.last().unwrap();
    let admitted = commit.workflows.iter().find(|one| one.key == keys[1]).expect("the next one");
    assert_eq!(admitted.group.as_ref().unwrap().place, Place::Holding);
    settle(world.t).await;
    assert_eq!(world.driven().await, [(keys[1], 0), (keys[1], 1)]);
    // One that waits leaves without having started anything, its finally-steps included; then the one that holds.
    world.command(keys[2], cancel()).await;
    assert_eq!(world.get(keys[2]).await.state, State::Cancelled);
    assert_eq!(world.driven().await, [(keys[1], 0), (keys[1], 1)]);
    world.command(keys[1], cancel()).await;
    assert_eq!(world.get(keys[1]).await.state, State::Cancelled);
    assert_eq!(world.driven().await, [(keys[3], 0), (keys[3], 1)]);
    let holder = GroupMember { member: (keys[3], WORKFLOW_MEMBER), holds: true, limit: 1, joined: 0 };
    let members = world.members(false).await;
    assert_eq!(GroupMember { joined: 0, ..members[0] }, holder);
    assert_eq!((members.len(), members[1].member.0, members[1].holds), (2, keys[4], false));
    world.end(keys[3]).await;
    world.end(keys[4]).await;
    assert_eq!(world.members(false).await, []);
}

pub async fn group_is_held_in_the_order_of_creation(t: &mut Harness) {
    in_order(t, false).await;
}

pub async fn groups_continue_after_each_reopen(t: &mut Harness) {
    in_order(t, true).await;
}

pub async fn steps_share_a_group(t: &mut Harness) {
    let mut world = World { t, count: 0, reloads: false };
    let mut keys = Vec::new();
    for _ in 0..3 {
        keys.push(world.add(|_, steps| steps[1].step.group = group(2, false)).await);
    }
    let others = |indexes: &[usize]| -> Vec<_> { indexes.iter().map(|index| (keys[*index], 1)).collect() };
    let mutexed =
        |all: Vec<(WorkflowKey, u32)>| all.into_iter().filter(|(_, step)| *step == 1).collect::<Vec<_>>();
    assert_eq!(world.driven().await.len(), 5, "steps without the group run");
    assert_eq!(mutexed(world.driven().await), others(&[0, 1]));
    assert_eq!(world.get(keys[2]).await.active, 2);
    // A step holds it until its end.
    world.start(keys[0], 1).await;
    assert_eq!(mutexed(world.driven().await), others(&[1]));
    let id = world.get(keys[0]).await.id;
    let command = StepCommand::Signal;
    let signal = WorkflowCommand::Step { namespace: namespace("n"), id, step: 1, command, output: None };
    world.apply(signal).await.unwrap();
    assert_eq!(mutexed(world.driven().await), others(&[1, 2]));
    // One that waits for its place when the workflow stops is skipped.
    let late = world.add(|_, steps| steps[1].step.group = group(2, false)).await;
    world.command(late, cancel()).await;
    assert_eq!(world.states(late).await, [StepState::Skipped; 2]);
    for key in [keys[1], keys[2]] {
        world.end(key).await;
    }
    world.skip(keys[0], 0).await;
    assert_eq!(world.members(true).await, []);
}

pub async fn new_member_replaces_the_others(t: &mut Harness) {
    let mut world = World { t, count: 0, reloads: false };
    let first = world.add(|workflow, _| workflow.group = group(1, false)).await;
    let second = world.add(|workflow, _| workflow.group = group(1, false)).await;
    world.start(first, 0).await;
    let third = world.add(|workflow, _| workflow.group = group(1, true)).await;
    for key in [first, second] {
        assert_eq!(world.get(key).await.state, State::Cancelled);
    }
    assert!(world.get(first).await.message.contains("concurrency group g"));
    assert_eq!(world.place(third).await, Place::Holding);
    let fourth = world.add(|workflow, _| workflow.group = group(1, false)).await;
    assert_eq!((world.place(third).await, world.place(fourth).await), (Place::Holding, Place::Waiting));
    world.end(third).await;
    world.end(fourth).await;

    // A step gives way alone.
    let fifth = world.add(|_, steps| steps[1].step.group = group(1, false)).await;
    world.start(fifth, 1).await;
    let sixth = world.add(|_, steps| steps[1].step.group = group(1, true)).await;
    assert_eq!(world.states(fifth).await[1], StepState::Cancelled);
    assert_eq!(world.states(sixth).await[1], StepState::Ready);
    assert_eq!(world.members(true).await.iter().map(|one| one.member).collect::<Vec<_>>(), [(sixth, 1)]);
}

pub async fn replaced_workflow_finishes_its_finally_steps(t: &mut Harness) {
    let mut world = World { t, count: 0, reloads: false };
    let with_final = |workflow: &mut Workflow, steps: &mut Vec<NewStep>| {
        workflow.group = group(1, false);
        steps[1].step.finally = true;
    };
    let first = world.add(with_final).await;
    world.skip(first, 0).await;
    let second = world.add(|workflow, _| workflow.group = group(1, true)).await;
    assert_eq!(world.states(first).await, [StepState::Skipped, StepState::Ready]);
    assert_eq!((world.get(first).await.cancelled, world.place(second).await), (false, Place::Waiting));
    world.skip(first, 1).await;
    assert_eq!((world.get(first).await.state, world.place(second).await), (State::Succeeded, Place::Holding));
}

pub async fn resumed_member_replaces_no_newer_one(t: &mut Harness) {
    let mut world = World { t, count: 0, reloads: false };
    let holder = world.add(|workflow, _| workflow.group = group(1, false)).await;
    let older = world.add(|workflow, steps| {
        (workflow.group, workflow.paused) = (group(1, true), true);
        steps[1].step.finally = true;
    });
    let older = older.await;
    let newer = world.add(|workflow, _| workflow.group = group(1, true)).await;
    assert_eq!((world.get(holder).await.state, world.place(newer).await), (State::Cancelled, Place::Holding));
    world.command(older, Apply::RESUME).await;
    assert_eq!((world.get(older).await.state, world.place(newer).await), (State::Cancelled, Place::Holding));
    // One that replaces nothing waits for its turn.
    let plain = world.add(|workflow, _| (workflow.group, workflow.paused) = (group(1, false), true)).await;
    let newest = world.add(|workflow, _| workflow.group = group(1, true)).await;
    world.command(plain, Apply::RESUME).await;
    assert_eq!((world.get(newer).await.state, world.place(newest).await), (State::Cancelled, Place::Holding));
    assert_eq!(world.place(plain).await, Place::Waiting);
    world.end(newest).await;
    world.end(plain).await;

    // So do steps.
    let second = world.add(|workflow, steps| {
        workflow.paused = true;
        steps[1].step.group = group(1, true);
    });
    let second = second.await;
    let third = world.add(|_, steps| steps[1].step.group = group(1, true)).await;
    world.command(second, Apply::RESUME).await;
    assert_eq!(world.states(second).await[1], StepState::Cancelled);
    assert_eq!(world.members(true).await.iter().map(|one| one.member).collect::<Vec<_>>(), [(third, 1)]);
}

pub async fn paused_workflow_keeps_no_place(t: &mut Harness) {
    let mut world = World { t, count: 0, reloads: false };
    let pause = || Apply::Pause { suspend: false };
    let first = world.add(|workflow, _| workflow.group = group(1, false)).await;
    let second = world.add(|workflow, _| workflow.group = group(1, false)).await;
    let third = world.add(|workflow, _| (workflow.group, workflow.paused) = (group(1, false), true)).await;
    let fourth = world.add(|workflow, _| workflow.group = group(1, false)).await;
    world.command(second, pause()).await;
    world.end(first).await;
    assert_eq!(world.place(fourth).await, Place::Holding, "both before it are paused");
    // They come first again, by their age.
    for key in [third, second] {
        assert_eq!(world.place(key).await, Place::Outside);
        world.command(key, Apply::RESUME).await;
    }
    world.end(fourth).await;
    assert_eq!((world.place(second).await, world.place(third).await), (Place::Holding, Place::Waiting));
    world.end(second).await;
    world.end(third).await;

    // So do steps.
    let fifth = world.add(|_, steps| steps[1].step.group = group(1, false)).await;
    let sixth = world.add(|_, steps| steps[1].step.group = group(1, false)).await;
    let seventh = world.add(|_, steps| steps[1].step.group = group(1, false)).await;
    world.command(sixth, pause()).await;
    world.skip(fifth, 1).await;
    assert_eq!(world.states(sixth).await[1], StepState::Held);
    assert!(world.driven().await.contains(&(seventh, 1)));
    world.command(sixth, Apply::RESUME).await;
    assert!(!world.driven().await.contains(&(sixth, 1)));
    world.skip(seventh, 1).await;
    assert!(world.driven().await.contains(&(sixth, 1)));
}

pub async fn group_with_many_members_is_held_by_all_in_turn(t: &mut Harness) {
    let mut world = World { t, count: 0, reloads: false };
    let mut keys = Vec::new();
    for _ in 0..GROUP_WINDOW + 10 {
        keys.push(world.add(|workflow, _| workflow.group = group(2, false)).await);
    }
    assert_eq!(world.members(false).await.len(), 2 + GROUP_WINDOW, "a read has the first ones");
    for (index, key) in keys.iter().enumerate() {
        let holders: Vec<_> = world.members(false).await.into_iter().filter(|one| one.holds).collect();
        let holders: Vec<_> = holders.iter().map(|one| one.member.0).collect();
        assert_eq!(holders, keys[index..].iter().copied().take(2).collect::<Vec<_>>());
        world.command(*key, cancel()).await;
    }
    assert_eq!(world.members(false).await, []);
    // All of them by one command, in pieces.
    let mut keys = Vec::new();
    for _ in 0..2 * GROUP_WINDOW {
        keys.push(world.add(|workflow, _| workflow.group = group(1, false)).await);
    }
    let newest = world.add(|workflow, _| workflow.group = group(1, true)).await;
    for key in keys {
        assert_eq!(world.get(key).await.state, State::Cancelled);
    }
    assert_eq!(world.members(false).await.iter().map(|one| one.member.0).collect::<Vec<_>>(), [newest]);
}
