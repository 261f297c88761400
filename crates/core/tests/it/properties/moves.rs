//! Strategies for random tasks and commands. Most reports use the live fence, so that histories make progress.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use rota_core::failure::{Class, Failure};
use rota_core::rank::Priority;
use rota_core::retry::Policy;
use rota_core::spending::{BudgetWait, Scope};
use rota_core::task::{
    AttemptRef, Command, Completion, Dependency, DependencyKey, DependencyState, Desired, EventEffect, Item,
    Limits, Loss, OnFailure, Progress, State, Task,
};
use rota_core::usage::Usage;
use rota_core::{Epoch, Fence, Timestamp};

use crate::harness::*;

/// Sender of a report, relative to the live assignment.
#[derive(Debug, Clone)]
enum Who {
    Live,
    Worker(u8),
    Epoch(i8),
    Fence(i8),
}

impl Who {
    fn attempt_of(&self, harness: &Harness) -> AttemptRef {
        let mut attempt = harness.live();
        match self {
            Self::Live => {}
            Self::Worker(number) => attempt.by.worker = worker(&format!("w{number}"), 0).worker,
            Self::Epoch(by) => {
                attempt.by.epoch = Epoch(attempt.by.epoch.0.saturating_add_signed(i64::from(*by)))
            }
            Self::Fence(by) => attempt.fence = Fence(attempt.fence.0.saturating_add_signed(i64::from(*by))),
        }
        attempt
    }
}

#[derive(Debug, Clone)]
enum What {
    Assign(u8, u64, Limits),
    Accept(Who),
    Reject(Who),
    Report(Who, i64, Vec<Item>),
    KeepArtifacts(Who),
    Release(Who),
    Finish(Who, Completion, Option<Usage>, bool, f64),
    Resume(Who),
    LoseWorker(Who, u8),
    Tick,
    ClockJumped(u16),
    TickWhenDue,
    Update(Option<u8>, Option<bool>, Option<Desired>),
    /// Only on a worker; otherwise few histories get that far.
    CancelRun,
    GiveInput(Option<u8>),
    /// The oldest open input request.
    Answer,
    Found(u8, u8),
    Ended(u8, State),
    Cycle,
    AgentAppeared(Limits),
    AgentDeleted,
    /// Of the current fence, and whether the task is queued again.
    Stop(bool),
    AwaitBudget,
    BudgetLifted,
}

/// A command, and the movement of the clock before it in milliseconds.
#[derive(Debug, Clone)]
pub(super) struct Move {
    clock: i64,
    what: What,
}

impl Move {
    /// Moves the clock and returns the command.
    pub(super) fn command(&self, harness: &mut Harness) -> Command {
        harness.now = Timestamp(harness.now.0 + self.clock * 1000);
        match &self.what {
            What::Assign(number, epoch, defaults) => {
                let to = worker(&format!("w{number}"), *epoch);
                Command::Assign {
                    to,
                    agent: agent("coder"),
                    span_id: [1; 8],
                    defaults: *defaults,
                    reserved: 0,
                }
            }
            What::Accept(who) => Command::Accept(who.attempt_of(harness)),
            What::Reject(who) => {
                Command::Reject { attempt: who.attempt_of(harness), reason: "no room".to_owned() }
            }
            What::Report(who, shift, items) => {
                let known = harness.task.assignment.as_ref().map_or(0, |a| a.attempt_seq);
                let first = (known + 1).saturating_add_signed(*shift);
                Command::Report { attempt: who.attempt_of(harness), first, items: items.clone() }
            }
            What::KeepArtifacts(who) => Command::KeepArtifacts {
                attempt: who.attempt_of(harness),
                list: "list".into(),
                checkpoint: true,
                unusable: false,
            },
            What::Release(who) => {
                let requests = harness.task.open_questions().map(|(request, _)| request.to_owned()).collect();
                Command::Release { attempt: who.attempt_of(harness), requests }
            }
            What::Finish(who, completion, usage, session, jitter) => Command::Finish {
                attempt: who.attempt_of(harness),
                last: if *session {
                    harness.task.assignment.as_ref().map_or(0, |a| a.attempt_seq)
                } else {
                    0
                },
                completion: completion.clone(),
                usage: usage.clone(),
                session: if *session { "s-1".to_owned() } else { String::new() },
                jitter: *jitter,
            },
            What::Resume(who) => {
                let attempt = who.attempt_of(harness);
                Command::Resume { by: attempt.by, fence: attempt.fence }
            }
            What::LoseWorker(who, loss) => Command::LoseWorker {
                session: who.attempt_of(harness).by,
                loss: [Loss::Died, Loss::Planned, Loss::Undelivered, Loss::Unclear][usize::from(*loss % 4)],
                seen: (*loss < 2).then_some(harness.now),
                message: "it disconnected".to_owned(),
            },
            What::Tick => Command::TICK,
            What::ClockJumped(by) => {
                let by = secs(u64::from(*by));
                harness.now = harness.now + by;
                Command::ClockJumped { by, at: harness.now }
            }
            What::TickWhenDue => {
                harness.now = harness.task.due().unwrap_or(harness.now);
                Command::TICK
            }
            What::Update(priority, label, desired) => Command::Update {
                priority: priority.and_then(|value| Priority::new(i32::from(value))),
                labels: label.map(|on| on.then(|| ("team".to_owned(), "a".to_owned())).into_iter().collect()),
                desired: *desired,
                reason: "it is wanted".to_owned(),
            },
            What::CancelRun if harness.state().is_on_worker() => update(Desired::Cancelled),
            What::CancelRun => Command::TICK,
            What::Answer => {
                let open = harness.task.open_questions().next().map(|(request, _)| request.to_owned());
                answer(&open.unwrap_or_default())
            }
            What::GiveInput(question) => answer(&question.map_or_else(String::new, |q| format!("q{q}"))),
            What::Found(key, number) => {
                let key = DependencyKey::Alias(format!("d{key}"));
                Command::DependencyFound { key, id: id(u128::from(*number)) }
            }
            What::Ended(number, state) => {
                Command::DependencyEnded { id: id(u128::from(*number)), state: *state }
            }
            What::Cycle => Command::Cycle { path: vec![id(1), id(2)], omitted: 0 },
            What::AgentAppeared(defaults) => appeared(*defaults),
            What::AgentDeleted => Command::AgentDeleted,
            What::Stop(requeue) => stop(harness.task.fence, *requeue),
            What::AwaitBudget => {
                let until = harness.now + secs(60);
                Command::AwaitBudget(BudgetWait { since: harness.now, until, ..budget_wait() })
            }
            What::BudgetLifted => Command::BudgetLifted { scope: Scope::Namespace },
        }
    }
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![
        12 => Just(Who::Live),
        1 => (1..4u8).prop_map(Who::Worker),
        2 => (-2..3i8).prop_map(Who::Epoch),
        1 => (-3..2i8).prop_map(Who::Fence),
    ]
}

fn usage() -> impl Strategy<Value = Usage> {
    (-5..500i64, 0..90i64, -1..9i32, any::<bool>()).prop_map(|(input, cost, turns, named)| Usage {
        input_tokens: input,
        cost_micro_usd: cost,
        turns,
        model: if named { "model".to_owned() } else { String::new() },
        ..Usage::default()
    })
}

fn items() -> impl Strategy<Value = Vec<Item>> {
    let name = || (0..3u8).prop_map(|question| format!("q{question}"));
    // Only these values survive JSON without `float_roundtrip`, which loses the last bit of others.
    let odd = prop::sample::select(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, -1.0, 1.5][..]);
    let fraction = prop_oneof![9 => (0..=100i32).prop_map(|x| f64::from(x) / 100.0), 1 => odd];
    let effect = prop_oneof![
        4 => Just(EventEffect::None),
        1 => fraction.prop_map(|fraction| {
            EventEffect::Progress(Progress { fraction, step: "digging".to_owned() })
        }),
        2 => usage().prop_map(EventEffect::Usage),
        2 => name().prop_map(|request| EventEffect::InputRequested { request, payload: Bytes::from_static(&[0, 255]) }),
        1 => name().prop_map(EventEffect::InputResolved),
        1 => any::<Option<bool>>().prop_map(EventEffect::WorkEnded),
    ];
    prop::collection::vec(effect.prop_map(item), 0..5)
}

fn completion() -> impl Strategy<Value = Completion> {
    let failure = (prop::sample::select(&Class::ALL[..]), prop::option::weighted(0.2, 0..4000u64));
    prop_oneof![
        2 => any::<bool>().prop_map(|full| Completion::Succeeded(full.then(|| Bytes::from_static(b"result")))),
        5 => failure.prop_map(|(class, wait)| {
            let mut failure = Failure::new(class, "it failed");
            failure.retry_after = wait.map(Duration::from_secs);
            Completion::Failed(failure)
        }),
        1 => Just(stopped()),
        1 => Just(undelivered()),
    ]
}

fn desired() -> impl Strategy<Value = Desired> {
    prop_oneof![6 => Just(Desired::Run), 3 => Just(Desired::Suspended), 1 => Just(Desired::Cancelled)]
}

fn jitter() -> impl Strategy<Value = f64> {
    prop_oneof![9 => 0.0..1.0, 1 => any::<f64>()]
}

pub(super) fn any_move() -> impl Strategy<Value = Move> {
    let ended =
        prop::sample::select(&[State::Succeeded, State::Succeeded, State::Failed, State::Cancelled][..]);
    let what = prop_oneof![
        12 => (1..3u8, 3..6u64, limits()).prop_map(|(number, epoch, agent)| What::Assign(number, epoch, agent)),
        8 => who().prop_map(What::Accept),
        3 => who().prop_map(What::Reject),
        6 => (who(), prop_oneof![6 => Just(0), 1 => -4..3i64], items())
            .prop_map(|(who, shift, items)| What::Report(who, shift, items)),
        1 => who().prop_map(What::KeepArtifacts),
        2 => who().prop_map(What::Release),
        4 => (who(), completion(), prop::option::of(usage()), any::<bool>(), jitter())
            .prop_map(|(who, completion, usage, session, jitter)| What::Finish(who, completion, usage, session, jitter)),
        2 => who().prop_map(What::Resume),
        3 => (who(), 0..3u8).prop_map(|(who, loss)| What::LoseWorker(who, loss)),
        3 => Just(What::Tick),
        1 => any::<u16>().prop_map(What::ClockJumped),
        6 => Just(What::TickWhenDue),
        3 => (prop::option::of(0..=10u8), prop::option::of(any::<bool>()), prop::option::of(desired()))
            .prop_map(|(priority, label, desired)| What::Update(priority, label, desired)),
        1 => Just(What::CancelRun),
        1 => prop::option::of(0..3u8).prop_map(What::GiveInput),
        3 => Just(What::Answer),
        2 => (0..3u8, 2..6u8).prop_map(|(key, number)| What::Found(key, number)),
        3 => (2..6u8, ended).prop_map(|(number, state)| What::Ended(number, state)),
        1 => prop::bool::weighted(0.2).prop_map(|yes| if yes { What::Cycle } else { What::Tick }),
        3 => limits().prop_map(What::AgentAppeared),
        1 => Just(What::AgentDeleted),
        1 => any::<bool>().prop_map(What::Stop),
        2 => Just(What::AwaitBudget),
        1 => Just(What::BudgetLifted),
    ];
    let clock = prop_oneof![6 => 0..3_000i64, 2 => 0..200_000i64, 1 => -100_000..0i64];
    (clock, what).prop_map(|(clock, what)| Move { clock, what })
}

fn limits() -> impl Strategy<Value = Limits> {
    let some = prop::option::weighted;
    (some(0.7, 1..2000u64), some(0.4, 0..300u64), some(0.7, 0..60u64), prop::option::weighted(0.2, 1..300i64))
        .prop_map(|(timeout, queue_timeout, cancel_grace, budget_micro_usd)| Limits {
            budget_micro_usd,
            timeout: timeout.map(secs),
            queue_timeout: queue_timeout.map(secs),
            cancel_grace: cancel_grace.map(secs),
        })
}

fn dependency() -> impl Strategy<Value = Dependency> {
    let policy = prop::sample::select(&[OnFailure::Fail, OnFailure::Continue, OnFailure::Cancel][..]);
    (policy, 0..3u8, 2..6u8).prop_map(|(policy, kind, number)| match kind {
        0 => missing(&format!("d{}", number % 3), policy),
        1 => Dependency {
            state: DependencyState::Ended(id(u128::from(number)), State::Succeeded),
            ..after(u128::from(number), policy)
        },
        _ => after(u128::from(number), policy),
    })
}

pub(super) fn any_task() -> impl Strategy<Value = Task> {
    let conditions = (
        prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(dependency(), 1..3)],
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.3),
        prop_oneof![12 => Just(Desired::Run), 2 => Just(Desired::Suspended), 1 => Just(Desired::Cancelled)],
        prop::option::weighted(0.2, -100..300i64),
    );
    let policy = (0..5u32, 0..4u32, 0..5_000u64, 0..60u64);
    (conditions, limits(), policy, 0..=10i32).prop_map(|(conditions, limits, policy, priority)| {
        let (dependencies, agent_known, open, desired, not_before) = conditions;
        Task {
            target: if open { capabilities() } else { plain().target },
            dependencies,
            agent_known,
            desired,
            priority: Priority::new(priority).unwrap(),
            not_before: not_before.map(|seconds| Timestamp(START.0 + seconds * 1_000_000)),
            limits,
            retry: Policy {
                max_attempts: policy.0,
                max_worker_losses: policy.1,
                initial_backoff: Duration::from_millis(policy.2),
                max_backoff: secs(policy.3),
                ..Policy::default()
            },
            ..plain()
        }
    })
}

/// Removes every condition that keeps a task from running.
pub(super) fn remove_obstacles(harness: &mut Harness) {
    let _ = harness.try_apply(appeared(Limits::default()));
    let _ = harness.try_apply(update(Desired::Run));
    for dependency in harness.task.dependencies.clone() {
        let number = id(99);
        let _ = harness.try_apply(Command::DependencyFound { key: dependency.key.clone(), id: number });
        let id = dependency.id().unwrap_or(number);
        let _ = harness.try_apply(Command::DependencyEnded { id, state: State::Succeeded });
    }
    for question in harness.task.questions.clone() {
        let _ = harness.try_apply(answer(&question.request));
    }
}

/// Plays a scheduler and a correct worker.
pub(super) fn work_to_the_end(harness: &mut Harness) {
    for _ in 0..8 {
        match harness.state() {
            State::Pending => {
                harness.now = harness.now.max(harness.task.due().unwrap());
                harness.apply(Command::TICK);
            }
            State::Queued => {
                harness.assign();
            }
            State::Assigned | State::Running | State::InputRequired => {
                harness.finish(succeeded());
            }
            State::Succeeded | State::Failed | State::Cancelled => return,
        }
    }
}
