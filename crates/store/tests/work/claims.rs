//! Calls of claims, and the rows and bytes that they load.

use bytes::Bytes;
use rota_core::spending::{Budget, Scope};
use rota_core::target::Target;
use rota_core::task::{self, AttemptRef, Completion, EventEffect, Item, WorkerRef};
use rota_core::usage::Usage;
use rota_core::workflow::{Parent, StepRef, Workflow};
use rota_core::{Fence, RouteId};
use rota_store::engine::Engine;
use rota_store::{Claim, Command, Reply};

use super::rounds::{step, workflow};
use super::{Calls, Counting, NOW, agent, calls, create, hello, id, namespace, on, put_agent, worker};

fn claim(routes: std::ops::Range<u32>, slots: usize) -> Command {
    Command::Claim(Claim {
        namespace: namespace(),
        worker: worker(0),
        routes: routes.map(RouteId).collect(),
        shared: Vec::new(),
        probes: None,
        not_isolating: Default::default(),
        slots,
    })
}

#[test]
fn claim_of_many_routes_loads_one_payload() {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, vec![put_agent(0), hello(0)]);
    let needing = |number: usize| create(number, Target::Capabilities([format!("c{number}")].into()), None);
    calls(&mut engine, (0..64).map(needing).collect());
    let (claimed, replies) = calls(&mut engine, vec![claim(1..65, 1)]);
    assert!(matches!(replies[..], [Reply::Claimed(1)]), "{replies:?}");
    assert_eq!((claimed.loads, claimed.rows_read, claimed.payload_bytes), (2, 64 + 1, 4));
}

#[test]
fn claims_of_a_batch_load_payloads_together() {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, vec![put_agent(0), hello(0)]);
    let needing =
        |number: usize| create(number, Target::Capabilities([format!("c{}", number % 2)].into()), None);
    calls(&mut engine, (0..200).map(needing).collect());
    let (claimed, replies) = calls(&mut engine, (0..64).map(|_| claim(1..3, 1)).collect());
    assert!(replies.iter().all(|reply| matches!(reply, Reply::Claimed(1))), "{replies:?}");
    assert!(claimed.loads <= 3, "{claimed:?}");
    assert_eq!(claimed.payload_bytes, 64 * 4, "of the assigned tasks");
}

#[test]
fn claims_of_a_batch_load_bounded_payloads() {
    const PAYLOAD: usize = 1 << 20;
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, vec![put_agent(0), hello(0)]);
    let large = |number: usize, route: usize| {
        let target = Target::Capabilities([format!("c{route}")].into());
        let Command::Create(mut create) = create(number, target, None) else { unreachable!() };
        create.payload = Bytes::from(vec![7; PAYLOAD]);
        Command::Create(create)
    };
    // Of one route, then of several.
    for (routes, first) in [(1..2, 0), (2..6, 100)] {
        let count = routes.len();
        calls(&mut engine, (0..100).map(|number| large(first + number, first + number % count)).collect());
        let mut left = 100;
        while left > 0 {
            let (claimed, replies) =
                calls(&mut engine, vec![claim(routes.clone(), 50), claim(routes.clone(), 50)]);
            assert!(claimed.payload_bytes <= 33 * PAYLOAD, "{claimed:?}");
            let given: usize = replies
                .iter()
                .map(|reply| match reply {
                    Reply::Claimed(given) => *given,
                    other => panic!("{other:?}"),
                })
                .sum();
            assert!(given > 0 && given <= 33, "{given}");
            left -= given;
        }
    }
}

/// Returns the calls of a claim of one slot on so many routes, of which each has so many tasks, while the budget is spent.
fn claim_without_money(routes: u32, tasks: usize) -> Calls {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, vec![put_agent(0), hello(0)]);
    let count = routes as usize;
    let needing =
        |number: usize| create(number, Target::Capabilities([format!("c{}", number % count)].into()), None);
    calls(&mut engine, (0..count * tasks).map(needing).collect());
    let budget = Budget { daily: Some(100), ..Budget::default() };
    let spend = Command::CorrectAccount {
        namespace: namespace(),
        scope: Scope::Namespace,
        today: Some(200),
        this_month: Some(200),
    };
    let limit = Command::PutBudget { namespace: namespace(), budget, expected: None };
    calls(&mut engine, vec![spend, limit]);
    while engine.has_backlog() {
        calls(&mut engine, Vec::new());
    }
    let (claimed, replies) = calls(&mut engine, vec![claim(1..routes + 1, 1)]);
    assert!(matches!(replies[..], [Reply::Claimed(0)]), "{replies:?}");
    assert_eq!((claimed.writes, claimed.tasks_written), (1, 256), "those wait from now on");
    assert!(claimed.payload_bytes <= 4, "nothing is assigned: {claimed:?}");
    claimed
}

#[test]
fn loads_are_independent_of_tasks_that_wait() {
    let few = claim_without_money(1, 300);
    assert_eq!(few, claim_without_money(1, 2000));
    let (some, many) = (claim_without_money(8, 100), claim_without_money(64, 20));
    for claimed in [few, some, many] {
        assert!(claimed.loads <= 10 && claimed.rows_read <= 6 * 256, "{claimed:?}");
    }
}

/// Returns the creation of an agent that may take the tasks of so many routes, with a daily budget.
fn capable(number: usize, routes: usize, daily: Option<i64>) -> Command {
    let Command::PutAgent(mut put) = put_agent(number) else { unreachable!() };
    put.agent.capabilities = (0..routes).map(|route| format!("c{route}")).collect();
    put.agent.budget = Budget { daily, ..Budget::default() };
    Command::PutAgent(put)
}

/// Returns a store with so many tasks on each of so many routes that two agents may take, of which agent 0 has spent its budget.
fn left_to_another_agent(routes: usize, tasks: usize) -> Engine<Counting> {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, vec![capable(0, routes, Some(100)), capable(1, routes, None), hello(0)]);
    let needing =
        |number: usize| create(number, Target::Capabilities([format!("c{}", number % routes)].into()), None);
    calls(&mut engine, (0..routes * tasks).map(needing).collect());
    let spend = Command::CorrectAccount {
        namespace: namespace(),
        scope: Scope::Agent(agent(0)),
        today: Some(200),
        this_month: Some(200),
    };
    calls(&mut engine, vec![spend]);
    while engine.has_backlog() {
        calls(&mut engine, Vec::new());
    }
    engine
}

#[test]
fn loads_are_bounded_by_tasks_left_to_others() {
    for (routes, tasks) in [(1, 2000), (64, 100)] {
        let mut engine = left_to_another_agent(routes, tasks);
        let (claimed, replies) = calls(&mut engine, vec![claim(1..u32::try_from(routes).unwrap() + 1, 1)]);
        assert!(matches!(replies[..], [Reply::PassedOver]), "{replies:?}");
        assert!(claimed.loads <= 12 && claimed.rows_read <= 6 * 256, "{claimed:?}");
    }
}

/// Payloads of tasks that are left to others leave room for that of one behind them.
#[test]
fn large_tasks_left_to_others_hide_none() {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    let needing =
        |number: usize| create(number, Target::Capabilities(["c0".to_owned()].into()), Some(worker(0)));
    calls(&mut engine, vec![capable(0, 1, Some(200)), capable(1, 1, None), hello(0)]);
    // An attempt of the agent costs 150, and 50 are left.
    calls(&mut engine, vec![needing(0)]);
    let finish = task::Command::Finish {
        attempt: AttemptRef { by: worker(0), fence: Fence(1) },
        last: 0,
        completion: Completion::Succeeded(None),
        usage: Some(Usage { cost_micro_usd: 150, ..Usage::default() }),
        session: String::new(),
        jitter: 0.0,
    };
    calls(&mut engine, vec![on(id(0), finish)]);
    let large = |number: usize| {
        let Command::Create(mut create) = needing(number) else { unreachable!() };
        (create.payload, create.offer) = (vec![7; 1 << 20].into(), None);
        create
    };
    calls(&mut engine, (1..=40).map(|number| Command::Create(large(number))).collect());
    let mut cheap = large(41);
    cheap.task.limits.budget_micro_usd = Some(10);
    calls(&mut engine, vec![Command::Create(cheap)]);
    let (claimed, replies) = calls(&mut engine, vec![claim(1..2, 64)]);
    assert!(matches!(replies[..], [Reply::Claimed(1)]), "{replies:?} {claimed:?}");
}

#[test]
fn claim_that_lets_tasks_wait_is_repeated() {
    let mut engine = left_to_another_agent(1, 1);
    calls(&mut engine, (1..=300).map(|number| create(number, Target::Agent(agent(0)), None)).collect());
    let claims = (0..3).flat_map(|_| calls(&mut engine, vec![claim(1..3, 1)]).1);
    let replies: Vec<_> = claims.collect();
    assert!(matches!(replies[..], [Reply::Claimed(0), Reply::Claimed(0), Reply::PassedOver]), "{replies:?}");
}

/// Creates workflows of one step, which `change` completes.
fn workflows(
    engine: &mut Engine<Counting>,
    count: usize,
    change: impl Fn(usize, &mut Workflow),
) -> Vec<Workflow> {
    let first = usize::try_from(engine.revision()).unwrap();
    let create = |number: usize| {
        workflow(first + number, |workflow| change(number, workflow), vec![step(0, None, false)])
    };
    let (_, replies) = calls(engine, (0..count).map(create).collect());
    let created = replies.iter().map(|reply| match reply {
        Reply::Workflow { workflow, .. } => Workflow::clone(workflow),
        other => panic!("{other:?}"),
    });
    created.collect()
}

fn place_in(workflow: &Workflow) -> StepRef {
    StepRef::of(workflow, &step(0, None, false).step, 1, 0)
}

/// Returns the creation of a task of the first step of a workflow.
fn task_of(workflow: &Workflow, number: usize, offer: Option<WorkerRef>) -> Command {
    let Command::Create(mut create) = create(number, Target::Agent(agent(0)), offer) else { unreachable!() };
    create.task.step = Some(Box::new(place_in(workflow)));
    Command::Create(create)
}

#[test]
fn workflows_that_pay_are_loaded_together() {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, vec![put_agent(0), hello(0)]);
    let limited = workflows(&mut engine, 64, |_, workflow| workflow.budget_micro_usd = Some(1_000_000));
    let tasks = |first: usize, offer: Option<WorkerRef>| {
        let task = |(at, workflow): (usize, &Workflow)| task_of(workflow, first + at, offer.clone());
        limited.iter().enumerate().map(task).collect::<Vec<_>>()
    };
    let (offered, _) = calls(&mut engine, tasks(100, Some(worker(0))));
    assert_eq!((offered.loads, offered.workflow_loads), (1, 1), "with the batch: {offered:?}");
    calls(&mut engine, tasks(0, None));
    let (claimed, replies) = calls(&mut engine, vec![claim(1..2, 64)]);
    assert!(matches!(replies[..], [Reply::Claimed(64)]), "{replies:?}");
    assert_eq!((claimed.loads, claimed.workflow_loads), (2, 1), "ready tasks, then workflows: {claimed:?}");
}

#[test]
fn only_workflows_of_first_tasks_are_loaded() {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, vec![put_agent(0), hello(0)]);
    let limited = workflows(&mut engine, 8, |_, workflow| workflow.budget_micro_usd = Some(1_000_000));
    let on_own_route = |(at, workflow): (usize, &Workflow)| {
        let Command::Create(mut create) = task_of(workflow, at, None) else { unreachable!() };
        create.task.target = Target::Capabilities([format!("c{at}")].into());
        Command::Create(create)
    };
    calls(&mut engine, limited.iter().enumerate().map(on_own_route).collect());
    let (claimed, replies) = calls(&mut engine, vec![claim(1..9, 1)]);
    assert!(matches!(replies[..], [Reply::Claimed(1)]), "{replies:?}");
    assert!(claimed.rows_read < 2 * 8, "a workflow and a payload besides ready tasks: {claimed:?}");
}

#[test]
fn workflows_around_that_count_costs_are_loaded_together() {
    let mut engine = Engine::new(Counting::default(), 1).unwrap();
    calls(&mut engine, vec![put_agent(0), hello(0)]);
    let outer = workflows(&mut engine, 32, |_, workflow| workflow.counts_cost = true);
    let inner = workflows(&mut engine, 32, |number, workflow| {
        let around = &outer[number];
        let parent = Parent { step: place_in(around), depth: 1, root: around.key };
        (workflow.parent, workflow.counts_cost) = (Some(Box::new(parent)), true);
    });
    let tasks = inner.iter().enumerate().map(|(number, of)| task_of(of, number, Some(worker(0))));
    calls(&mut engine, tasks.collect());
    let report = |number| {
        let usage = Usage { cost_micro_usd: 5, ..Usage::default() };
        let items = vec![Item { at: NOW, payload: "used".into(), effect: EventEffect::Usage(usage) }];
        let attempt = AttemptRef { by: worker(0), fence: Fence(1) };
        on(id(number), task::Command::Report { attempt, first: 1, items })
    };
    engine.backend().calls = Calls::default();
    let outcome = engine.run((0..32).map(report).collect(), NOW).unwrap();
    let counted = outcome.commit.workflows.iter().filter(|workflow| workflow.cost_micro_usd == 5);
    assert_eq!(counted.count(), 64, "each, and the one around it");
    let reported = engine.backend().calls;
    assert_eq!((reported.loads, reported.workflow_loads), (2, 2), "a level at a time: {reported:?}");
}
