//! Random workflows, whose steps are tasks, workflows and merges, and to which steps are added: driven in a random order, over
//! restarts, of some between any two commits, with pauses, and with commands that are repeated. The graph alone determines how each
//! ends.

use std::collections::{BTreeMap, HashMap, HashSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rota_core::task::Trace;
use rota_core::workflow::{
    Command as Apply, Kind, Parent, Rejected, Start, State, Step, StepRef, StepState, Workflow,
};
use rota_core::{WorkflowId, WorkflowKey};
use uuid::Uuid;

use super::harness::{Harness, namespace};
use super::workflow_run::{create, failed, ok, step, workflow};
use crate::{
    Action, AddStep, Create, CreateWorkflow, NewRound, NewStep, Refused, Reply, WorkflowCommand,
    WorkflowQuery,
};

const SEEDS: u64 = 8;
const MAX_TURNS: usize = 5_000;

/// Behavior of a step, whenever it runs.
#[derive(Debug, Clone)]
struct Plan {
    needs: Vec<(u32, bool)>,
    finally: bool,
    fails: bool,
    skips: bool,
    items: u32,
    rounds: u32,
    /// The workflow that it runs in place of tasks.
    inner: Option<Graph>,
}

#[derive(Debug, Clone)]
struct Graph {
    plans: Vec<Plan>,
    /// Whether a failure stops it. Otherwise steps that need one that has failed are skipped.
    stops: bool,
}

impl Graph {
    fn random(random: &mut StdRng, main: u32, finals: u32, depth: u32) -> Self {
        let stops = random.random_bool(0.3);
        let plans = (0..main + finals).map(|index| Plan::random(random, index, main, stops, depth)).collect();
        Self { plans, stops }
    }

    /// The workflow of a merge: without a conflict only its first step runs.
    fn merge(random: &mut StdRng) -> Self {
        let plan = |needs: &[u32], skips, fails| Plan {
            needs: needs.iter().map(|need| (*need, false)).collect(),
            finally: false,
            fails,
            skips,
            items: 1,
            rounds: 1,
            inner: None,
        };
        let (clean, fails) = (random.random_bool(0.5), random.random_range(0..8));
        let plans = vec![
            plan(&[], false, fails == 0),
            plan(&[0], clean, fails == 1),
            plan(&[0, 1], clean, fails == 2),
        ];
        Self { plans, stops: true }
    }

    /// Returns the states in which the steps end, unless a failure stops the workflow before.
    fn states(&self) -> Vec<StepState> {
        let mut states: Vec<(StepState, bool)> = Vec::new();
        for plan in &self.plans {
            let runs = plan.needs.iter().all(|(need, continues)| *continues || states[*need as usize].1);
            let fails = plan.inner.as_ref().map_or(plan.fails, Self::fails) && plan.items > 0;
            states.push(match () {
                () if !runs => (StepState::Skipped, false),
                () if plan.skips => (StepState::Skipped, true),
                () if fails => (StepState::Failed, false),
                () => (StepState::Succeeded, true),
            });
        }
        states.into_iter().map(|(state, _)| state).collect()
    }

    fn fails(&self) -> bool {
        self.states().contains(&StepState::Failed)
    }

    fn steps(&self) -> Vec<NewStep> {
        self.plans.iter().enumerate().map(|(index, plan)| plan.step(index, self.stops)).collect()
    }
}

impl Plan {
    /// A step with this index, of which those from `main` on are finally-steps.
    fn random(random: &mut StdRng, index: u32, main: u32, stops: bool, depth: u32) -> Self {
        let first = if index < main { 0 } else { main };
        let mut needs = BTreeMap::new();
        for _ in 0..random.random_range(0..3) {
            if index > first {
                needs.insert(random.random_range(first..index), !stops && random.random_bool(0.3));
            }
        }
        let inner = match random.random_range(0..8) {
            0 if depth > 0 => {
                let (main, finals) = (random.random_range(1..4), random.random_range(0..2));
                Some(Graph::random(random, main, finals, depth - 1))
            }
            1 if depth > 0 => Some(Graph::merge(random)),
            _ => None,
        };
        let rounds = random.random_range(1..3);
        Self {
            needs: needs.into_iter().collect(),
            finally: index >= main,
            fails: random.random_bool(0.15),
            skips: random.random_bool(0.1),
            // A workflow has a list or rounds.
            items: if inner.is_some() && rounds > 1 { 1 } else { random.random_range(0..4) },
            rounds,
            inner,
        }
    }

    fn step(&self, index: usize, stops: bool) -> NewStep {
        let needs: Vec<_> = self.needs.iter().map(|(need, _)| *need).collect();
        let mut new = step(&format!("s{index}"), &needs);
        for (need, (_, continues)) in new.needs.iter_mut().zip(&self.needs) {
            need.continues = *continues;
        }
        new.step.kind = if self.inner.is_some() { Kind::Workflow } else { Kind::Task };
        (new.step.finally, new.step.stops) = (self.finally, stops && !self.finally);
        (new.step.max_rounds, new.step.evaluates_end) = (self.rounds, self.rounds > 1);
        new
    }
}

struct World<'a> {
    t: &'a mut Harness,
    random: StdRng,
    /// Whether the store is reopened before each command.
    reopens: bool,
    graphs: HashMap<WorkflowId, Graph>,
    /// Places of the tasks that have run: workflow, step, round, item.
    ran: HashSet<(WorkflowId, u32, u32, u32)>,
    /// Commands of the driver that were executed.
    old: Vec<WorkflowCommand>,
}

impl World<'_> {
    async fn rows(&self, query: WorkflowQuery) -> crate::WorkflowRows {
        self.t.store.workflows(query).await.unwrap()
    }

    async fn workflow(&self, key: WorkflowKey) -> Workflow {
        self.rows(WorkflowQuery::Key(key)).await.workflows.remove(0)
    }

    fn plan(&self, id: WorkflowId, step: u32) -> Plan {
        self.graphs[&id].plans[step as usize].clone()
    }

    /// Returns what the driver creates next for a step of a workflow, at most two at a time.
    fn creates(&mut self, of: &Workflow, step: &Step, plan: &Plan) -> (Vec<Create>, Vec<CreateWorkflow>) {
        let (mut tasks, mut nested) = (Vec::new(), Vec::new());
        for item in step.created..step.created + step.wanted().min(2) {
            let place = StepRef::of(of, step, step.round, item);
            let Some(graph) = &plan.inner else {
                let mut create = self.t.task();
                create.task.step = Some(Box::new(place));
                tasks.push(create);
                continue;
            };
            let mut create = workflow(graph.steps());
            create.workflow.id = of.nested_id(step.index, step.round, item);
            create.workflow.trace = Trace::default();
            let (depth, root) = (of.depth() + 1, of.root());
            create.workflow.parent = Some(Box::new(Parent { step: place, depth, root }));
            create.foreign_id = false;
            let other = self.graphs.insert(create.workflow.id, graph.clone());
            assert!(other.is_none(), "{} is created twice", create.workflow.id);
            nested.push(create);
        }
        (tasks, nested)
    }

    async fn drive(&mut self, step: Step) {
        let of = self.workflow(step.workflow).await;
        let plan = self.plan(of.id, step.index);
        let (round, created) = (step.round, step.created);
        let action = match step.state {
            StepState::Ready if plan.skips && round == 1 => Action::Skip,
            StepState::Ready => {
                let (total, parallel) = (plan.items, self.random.random_range(0..3));
                let started = Step { state: StepState::Running, total, parallel, created: 0, ..step.clone() };
                let (tasks, nested) = self.creates(&of, &started, &plan);
                let start = Start { round, total, parallel, ..Start::default() };
                Action::Start(NewRound { start, tasks, nested, ..NewRound::default() })
            }
            StepState::Running => {
                let (tasks, nested) = self.creates(&of, &step, &plan);
                Action::More { round, created, tasks, nested }
            }
            StepState::Ending => Action::Finish { round, again: round < plan.rounds, outputs: None },
            state => panic!("a step that is {state:?} needs no driver"),
        };
        let (workflow, step) = (step.workflow, step.index);
        let command = WorkflowCommand::Drive { workflow, step, action: Box::new(action) };
        match self.t.one(command.clone().into()).await {
            Ok(_) => self.old.push(command),
            // It is driven again once the pause has ended.
            Err(Refused::Workflow(Rejected::Paused)) => {
                command.nested().iter().for_each(|nested| drop(self.graphs.remove(&nested.workflow.id)));
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// Pauses or resumes the outermost workflow, unless it stops already.
    async fn pause_or_resume(&mut self, id: WorkflowId) {
        let suspend = self.random.random_bool(0.5);
        let command = if self.random.random_bool(0.3) { Apply::Pause { suspend } } else { Apply::RESUME };
        let apply = WorkflowCommand::Apply { namespace: namespace("n"), id, command };
        match self.t.one(apply.into()).await {
            Ok(_) | Err(Refused::Workflow(Rejected::Phase(_) | Rejected::Final(_))) => {}
            Err(other) => panic!("{other}"),
        }
    }

    /// Runs a task that is ready. Returns whether there was one.
    async fn work(&mut self) -> bool {
        if !self.old.iter().any(|command| !command.tasks().is_empty()) {
            return false;
        }
        let worker = self.t.hello("w").await;
        let Some(task) = self.t.claim(&worker, 1).await.into_iter().next() else { return false };
        let place = task.step.clone().unwrap();
        let first = self.ran.insert((place.id, place.step, place.round, place.item));
        assert!(first, "{place:?} runs twice");
        let plan = self.plan(place.id, place.step);
        let needs = plan.needs.iter().map(|(need, _)| *need).collect();
        for need in self.rows(WorkflowQuery::StepsAt(place.workflow, needs)).await.steps {
            let continues = plan.needs.iter().any(|(index, continues)| *index == need.index && *continues);
            assert!(need.state.is_final() && need.satisfies(continues), "{place:?} before {}", need.name);
        }
        let completion = if plan.fails { failed() } else { ok("done") };
        self.t.finish(&task, completion).await.unwrap();
        true
    }

    /// Adds a step to the outermost workflow. Returns whether that still runs.
    async fn add(&mut self, key: WorkflowKey, id: WorkflowId, depth: u32) -> bool {
        let graph = &self.graphs[&id];
        let (index, stops) = (u32::try_from(graph.plans.len()).unwrap(), graph.stops);
        let is_finally: Vec<_> = graph.plans.iter().map(|plan| plan.finally).collect();
        let mut plan = Plan::random(&mut self.random, index, u32::MAX, stops, depth);
        plan.needs.retain(|(need, _)| !is_finally[*need as usize]);
        let add = AddStep {
            namespace: namespace("n"),
            id,
            total: index,
            step: plan.step(index as usize, stops),
            stops: plan.needs.iter().map(|(need, _)| (*need, stops)).collect(),
        };
        match self.t.one(WorkflowCommand::AddStep(Box::new(add)).into()).await {
            Ok(Reply::Step(step)) => {
                assert_eq!(step.index, index);
                self.graphs.get_mut(&id).unwrap().plans.push(plan);
                true
            }
            Err(Refused::Workflow(_)) => {
                assert_ne!(self.workflow(key).await.state, State::Running);
                false
            }
            other => panic!("{other:?}"),
        }
    }

    /// Executes everything in a random order.
    async fn finish(&mut self, key: WorkflowKey, id: WorkflowId, depth: u32) {
        let mut to_add = self.random.random_range(0..4);
        for _ in 0..MAX_TURNS {
            if self.reopens {
                self.t.reopen().await;
            }
            let mut driven = self.rows(WorkflowQuery::Driven { after: None, limit: 100 }).await.steps;
            match self.random.random_range(0..10) {
                0 if self.random.random_bool(0.3) => self.t.reopen().await,
                1 if !self.old.is_empty() => {
                    let again = self.old[self.random.random_range(0..self.old.len())].clone();
                    let reply = self.t.one(again.into()).await;
                    assert!(matches!(reply, Err(Refused::Workflow(_))), "{reply:?}");
                }
                2 if to_add > 0 => to_add = if self.add(key, id, depth).await { to_add - 1 } else { 0 },
                3 => self.pause_or_resume(id).await,
                4..7 if !driven.is_empty() => {
                    let step = driven.swap_remove(self.random.random_range(0..driven.len()));
                    self.drive(step).await;
                }
                _ if self.work().await || !driven.is_empty() => {}
                _ if self.workflow(key).await.state.is_final() => return,
                _ => drop(self.t.batch(Vec::new()).await),
            }
        }
        panic!("no end: {:#?}", self.workflow(key).await);
    }

    async fn check(&self) {
        for (id, graph) in &self.graphs {
            let found = self.rows(WorkflowQuery::Id((namespace("n"), *id))).await.workflows;
            let found = found.first().unwrap();
            let expected = if graph.fails() { State::Failed } else { State::Succeeded };
            assert_eq!((found.state, found.active), (expected, 0), "{graph:#?}");
            let steps = WorkflowQuery::Steps { workflow: found.key, from: 0, limit: 100 };
            let steps = self.rows(steps).await.steps;
            let states: Vec<_> = steps.iter().map(|step| found.state_of(step)).collect();
            if !graph.stops {
                assert_eq!(states, graph.states(), "{graph:#?}");
            }
            for step in steps.iter().filter(|step| step.kind == Kind::Task) {
                let of_round = |(of, index, round, _): &&(WorkflowId, u32, u32, u32)| {
                    (of, *index, *round) == (id, step.index, step.round)
                };
                let ran = self.ran.iter().filter(of_round).count();
                assert_eq!(ran, step.created as usize, "{step:#?}");
            }
        }
    }
}

pub async fn graph_determines_the_end_of_a_workflow(t: &mut Harness) {
    t.agent("a").await;
    for seed in 0..SEEDS {
        let mut random = StdRng::seed_from_u64(seed);
        let (main, finals, depth) = (random.random_range(1..8), random.random_range(0..3), 2);
        let graph = Graph::random(&mut random, main, finals, depth);
        let mut given = workflow(graph.steps());
        given.workflow.id = WorkflowId(Uuid::from_u128(u128::from(seed) + 1));
        given.workflow.max_parallel = random.random_range(0..4);
        let (made, _) = create(t, given).await;
        let graphs = HashMap::from([(made.id, graph)]);
        let mut world =
            World { t, random, reopens: seed == SEEDS - 1, graphs, ran: HashSet::new(), old: Vec::new() };
        world.finish(made.key, made.id, depth).await;
        world.check().await;
    }
}
