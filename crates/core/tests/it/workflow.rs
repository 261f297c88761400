//! Random graphs of steps, orders of completion and failure policies, executed as a store would: each consequence at a random
//! time.

mod added;
mod compensations;
mod disturbances;
mod driver;
mod ends;
mod graphs;
mod groups;
mod nested;
mod pauses;
mod states;
pub(crate) mod table;
mod timeouts;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use rota_core::workflow::{
    COMPENSATION, Change, Command, Follow, Kind, Outcome, Rejected, Start, State, Step, StepCommand,
    StepState, TaskEnd, Workflow,
};
use rota_core::{Timestamp, WorkflowId};
use uuid::Uuid;

use self::graphs::{Graph, Plan, Policy, graph};
use self::nested::Inner;

/// What may happen next, in any order.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Work {
    Follow(Follow),
    /// The rest of the edges of an ended step, from this one.
    Edge(usize, usize),
    Drive(usize),
    /// A task of a round, for an item; a person or a time in round 0.
    Task(usize, u32, u32),
    Compensation(usize, u32),
    /// The workflow, or a step, may get a place in its group.
    Admit(Option<usize>),
    /// Something happens in a workflow that is a step.
    Inner(usize),
    /// The next step is added.
    Add,
}

struct World {
    graph: Graph,
    workflow: Workflow,
    steps: Vec<Step>,
    edges: Edges,
    work: Vec<Work>,
    starts: BTreeMap<(usize, u32), u32>,
    /// Items whose tasks have succeeded, by step and round.
    done: BTreeMap<(usize, u32), BTreeSet<u32>>,
    /// Steps that have ended with effects, in this order.
    completed: Vec<usize>,
    /// Compensations by step and item, in the order of their creation.
    compensated: Vec<(usize, u32)>,
    /// Steps that wait for the one that holds their group.
    waiting: Vec<usize>,
    /// Workflows that its steps have created.
    inner: Vec<Inner>,
    /// Whether its end was passed on to the workflow around it, if there is one.
    is_reported: bool,
    /// Commands of the driver that were executed, with their steps.
    executed: Vec<(usize, StepCommand)>,
    /// Steps that were not added, since it had stopped before.
    missed: usize,
    /// Whether it was cancelled while its finally-steps ran, and not before.
    is_cut: bool,
    /// Random number of the turn.
    chance: usize,
    now: Timestamp,
}

type Edges = BTreeMap<usize, Vec<(usize, bool)>>;

/// Whether the failure of a step stops its workflow.
fn stops(graph: &Graph, edges: &Edges, index: usize) -> bool {
    let continues = edges.get(&index).is_some_and(|edges| edges.iter().all(|(_, continues)| *continues));
    matches!(graph.policy, Policy::Stop | Policy::Compensate) && !continues
}

impl World {
    fn new(graph: Graph) -> Self {
        let main = graph.steps.len() - graph.finals;
        let mut workflow = Workflow::new(WorkflowId(Uuid::from_u128(1)), "default".parse().unwrap());
        workflow.max_parallel = graph.max_parallel;
        workflow.group = groups::group(graph.grouped);
        workflow.compensates = graph.policy == Policy::Compensate;
        let mut edges = Edges::new();
        for (index, plan) in graph.steps.iter().enumerate() {
            for (need, continues) in &plan.needs {
                let continues = *continues || graph.policy == Policy::Continue;
                edges.entry(*need).or_default().push((index, continues));
            }
        }
        let mut steps: Vec<_> = graph
            .steps
            .iter()
            .enumerate()
            .map(|(index, plan)| {
                let mut step = Self::planned(index, plan);
                step.finally = index >= main;
                step.needs = u32::try_from(plan.needs.len()).unwrap();
                step.stops = stops(&graph, &edges, index) && !step.finally;
                step.has_dependents = edges.contains_key(&index);
                step
            })
            .collect();
        let now = Timestamp(1);
        let change = workflow.begin(&mut steps, now);
        let mut world = Self {
            graph,
            workflow,
            steps,
            edges,
            work: Vec::new(),
            starts: BTreeMap::new(),
            done: BTreeMap::new(),
            completed: Vec::new(),
            compensated: Vec::new(),
            waiting: Vec::new(),
            inner: Vec::new(),
            is_reported: false,
            executed: Vec::new(),
            missed: 0,
            is_cut: false,
            chance: 0,
            now,
        };
        world.work.extend(world.graph.added.iter().map(|_| Work::Add));
        world.settle(change);
        (0..world.steps.len()).for_each(|step| world.observe(step, None));
        world
    }

    /// Returns the record of a step, without its place in the graph.
    fn planned(index: usize, plan: &Plan) -> Step {
        let kind = match plan.kind {
            _ if plan.inner.is_some() => Kind::Workflow,
            0 => Kind::Approval { deadline: Some(Duration::from_secs(1)), approves: false },
            1 => Kind::Sleep { duration: Duration::from_secs(1) },
            2 => Kind::Signal { timeout: None },
            _ => Kind::Task,
        };
        let mut step = Step::new(format!("s{index}"), kind);
        step.compensates = plan.compensates;
        step.compensates_each = plan.each && kind == Kind::Task;
        step.max_rounds = plan.rounds;
        let has_attempts = kind == Kind::Workflow && plan.rounds == 1 && plan.items == 1;
        step.max_attempts = if has_attempts { 2 } else { 0 };
        step.group = groups::group(plan.grouped);
        step.evaluates_end = plan.rounds > 1;
        step
    }

    fn settle(&mut self, change: Change) {
        self.work.extend(change.follow.into_iter().map(Work::Follow));
    }

    /// Checks what a command has changed, and adds what the driver and workers do next.
    fn observe(&mut self, index: usize, before: Option<&Step>) {
        let step = &self.steps[index];
        if self.workflow.is_paused() {
            let begins = |before: &Step| {
                let starts = before.state == StepState::Ready && step.state == StepState::Running;
                // Another attempt waits as well.
                let fails = before.state == StepState::Running && step.state == StepState::Ready;
                let continues = (before.round, before.created) < (step.round, step.created);
                !step.reused && (starts || continues && !fails)
            };
            assert!(!before.is_some_and(begins), "step {index} continues while the workflow is paused");
        }
        self.check_group();
        let was = before.filter(|step| !step.waits_for_group()).map(|step| (step.state, step.round));
        let starts = step.state == StepState::Ready && !step.waits_for_group();
        if starts && was != Some((StepState::Ready, step.round)) {
            *self.starts.entry((index, step.round)).or_default() += 1;
            assert_eq!(self.starts[&(index, step.round)], 1, "step {index} has started twice");
            let main = step.finally || self.workflow.state == State::Running;
            assert!(main, "step {index} has started in {:?}", self.workflow.state);
            for (need, continues) in &self.graph.steps[index].needs {
                let continues = *continues || self.graph.policy == Policy::Continue;
                let need = &self.steps[*need];
                assert!(
                    need.state.is_final() && need.satisfies(continues),
                    "step {index} before {}",
                    need.name
                );
            }
            let active = self.steps.iter().filter(|step| step.state.is_active()).count();
            let max = self.graph.max_parallel as usize;
            assert!(max == 0 || active <= max, "{active} steps at a time");
        }
        if before.is_none_or(|before| !before.state.is_final()) && self.has_effects(index) {
            self.completed.push(index);
        }
        assert!(before.is_none_or(|before| !before.state.is_final() || before.state == step.state));
        if step.needs_driver() && !self.work.contains(&Work::Drive(index)) {
            self.work.push(Work::Drive(index));
        }
        if step.state == StepState::Running
            && !step.kind.is_created()
            && !self.work.contains(&Work::Task(index, 0, 0))
        {
            self.work.push(Work::Task(index, 0, 0));
        }
    }

    fn step(&mut self, index: usize, command: StepCommand) {
        let before = self.steps[index].clone();
        match self.workflow.apply_to(&mut self.steps[index], command.clone(), self.now) {
            Ok(change) => {
                if disturbances::may_come_again(&command) {
                    self.executed.push((index, command));
                }
                self.settle(change);
            }
            Err(Rejected::Outdated | Rejected::State(_)) => assert_eq!(before, self.steps[index]),
            // The driver asks again once the pause has ended.
            Err(Rejected::Paused) => return assert_eq!(before, self.steps[index]),
            Err(other) => panic!("{other}"),
        }
        self.observe(index, Some(&before));
    }

    fn run(&mut self, work: Work) {
        match work {
            Work::Edge(step, from) => {
                let Some((dependent, continues)) =
                    self.edges.get(&step).and_then(|edges| edges.get(from)).copied()
                else {
                    return;
                };
                self.work.push(Work::Edge(step, from + 1));
                let satisfied = self.steps[step].satisfies(continues);
                let reused = self.steps[step].reused;
                self.step(dependent, StepCommand::NeedEnded { satisfied, reused });
            }
            Work::Follow(Follow::Ended { step }) => self.work.push(Work::Edge(step as usize, 0)),
            Work::Follow(Follow::Release) => {
                let room = self.workflow.releasable() as usize;
                let finally = self.workflow.state == State::Finalizing;
                let held = |(index, step): (usize, &Step)| {
                    (step.state == StepState::Held && step.finally == finally).then_some(index)
                };
                let held: Vec<_> = self.steps.iter().enumerate().filter_map(held).take(room).collect();
                held.into_iter().for_each(|index| self.step(index, StepCommand::Release));
            }
            Work::Follow(Follow::Halt) => {
                for index in 0..self.steps.len() {
                    let step = &self.steps[index];
                    if step.state.is_active() && self.workflow.is_stopped(step.index) {
                        self.step(index, StepCommand::Halt);
                    }
                }
            }
            Work::Follow(Follow::Compensate { step }) => {
                self.step(step as usize, StepCommand::Compensate);
            }
            Work::Follow(Follow::CancelTasks) => {
                let concerned = |work: &Work| match work {
                    Work::Task(index, 1.., _) => self.workflow.is_stopped(self.steps[*index].index),
                    _ => false,
                };
                let open: Vec<_> = self.work.iter().copied().filter(concerned).collect();
                let rest = self.work.iter().copied().filter(|work| !concerned(work)).collect();
                self.work = rest;
                for work in open {
                    if let Work::Task(index, round, _) = work {
                        self.step(index, StepCommand::TaskEnded { round, end: TaskEnd::Cancelled });
                    }
                }
            }
            Work::Follow(Follow::Join { step }) => {
                self.work.push(Work::Admit(step.map(|step| step as usize)))
            }
            Work::Follow(Follow::Leave { .. }) => {
                self.work.extend(self.waiting.drain(..).map(|index| Work::Admit(Some(index))));
            }
            Work::Follow(Follow::ResumeSteps) => {
                for index in 0..self.steps.len() {
                    if self.steps[index].state.is_active() {
                        self.step(index, StepCommand::Resume);
                    }
                }
            }
            Work::Follow(Follow::Nested { command, only }) => self.pass_on(command, only),
            Work::Follow(Follow::EndedAsStep) => {
                assert!(!std::mem::replace(&mut self.is_reported, true), "its end counts once");
            }
            Work::Follow(_) => {}
            Work::Inner(at) => self.run_inner(at),
            Work::Add => self.add(),
            Work::Admit(member) => self.admit(member),
            Work::Drive(index) => self.drive(index),
            Work::Task(index, 0, _) => self.person(index),
            Work::Task(index, round, item) => {
                let fails = self.graph.steps[index].fails && (item == 0 || !self.graph.steps[index].each);
                if !fails {
                    self.done.entry((index, round)).or_default().insert(item);
                }
                let end = if fails { TaskEnd::Failed } else { TaskEnd::Succeeded };
                self.step(index, StepCommand::TaskEnded { round, end });
            }
            Work::Compensation(index, item) => {
                let fails = self.graph.steps[index].compensation_fails && item == 0;
                let end = if fails { TaskEnd::Failed } else { TaskEnd::Succeeded };
                self.step(index, StepCommand::TaskEnded { round: COMPENSATION, end });
            }
        }
    }

    fn apply(&mut self, command: Command) {
        self.try_apply(command).unwrap();
    }

    fn try_apply(&mut self, command: Command) -> Result<(), Rejected> {
        let cuts = matches!(command, Command::CancelFinally { .. });
        let is_open = self.workflow.outcome.is_none();
        self.is_cut |= cuts && is_open && self.workflow.state == State::Finalizing;
        let change = self.workflow.apply(command, self.now)?;
        self.settle(change);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn policies_hold_in_any_order(graph in graph(), order in prop::collection::vec(any::<u32>(), 50), other in prop::collection::vec(any::<u32>(), 50)) {
        let (mut first, mut second) = (World::new(graph.clone()), World::new(graph.clone()));
        let (states, others) = (first.finish(&order, None), second.finish(&other, None));
        // What is added after the end is refused.
        let missed = first.misses() || second.misses();
        // A failure that stops the workflow may meet other steps before or after their start: which failure is first is a
        // matter of time, and whether the workflow fails is not.
        if matches!(graph.policy, Policy::SkipDependents | Policy::Continue) && !missed {
            prop_assert_eq!(states, others);
            prop_assert_eq!(first.workflow.state, second.workflow.state);
        }
        if !missed {
            prop_assert_eq!(first.workflow.outcome, second.workflow.outcome);
        }
    }

    #[test]
    fn cancelled_workflows_end_in_any_order(graph in graph(), order in prop::collection::vec(any::<u32>(), 50), at in 0..30usize, also_finally in any::<bool>()) {
        let mut world = World::new(graph);
        world.finish(&order, Some((at, also_finally)));
        let finals: Vec<_> = world.steps.iter().filter(|step| step.finally).collect();
        // Finally-steps run unless they were cancelled themselves, or nothing had begun.
        let has_begun = world.workflow.group.is_none() || world.workflow.admitted_at.is_some();
        prop_assert!(also_finally || !has_begun || !world.workflow.finals_halted);
        prop_assert!(world.workflow.finals_halted || finals.iter().all(|step| step.state.is_final()));
    }
}
