//! Every command on workflows and on steps, in every state: the second half of `docs/state-machine.md`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use rota_core::workflow::{Group, Place, Resolution, Resolved};

use super::*;

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const NOW: Timestamp = Timestamp(1_000_000);

const TITLE: &str = "
## Workflows

All rules are in `crates/core/src/workflow`. A cell shows the state that follows, and in brackets what the store executes then, for other steps and
tasks; `kept` is a change of the record without one of the state, `–` nothing, and `✗` a rejection, which changes nothing.

### Commands on workflows

The workflow compensates, has outputs, and a step of `finally`; its time has run out.
";

const STEPS: &str = "
### Commands on steps

The workflow runs, unless the step is compensated. Driver commands name the round and state for which they were evaluated.
";

fn refusal(rejected: Rejected) -> &'static str {
    match rejected {
        Rejected::Final(_) => "✗ ended",
        Rejected::Unended => "✗ has not ended",
        Rejected::State(_) => "✗ state",
        Rejected::Phase(_) => "✗ phase",
        Rejected::Paused => "✗ paused",
        Rejected::Outdated => "✗ outdated",
        Rejected::NoApproval => "✗ no approval",
        Rejected::NoSignal => "✗ no signal",
        Rejected::NoFailedCompensation => "✗ no failed compensation",
    }
}

fn cell(change: Result<Change, Rejected>, moved: Option<&str>, is_kept: bool) -> String {
    let change = match change {
        Ok(change) => change,
        Err(rejected) => return refusal(rejected).to_owned(),
    };
    let text = match moved {
        Some(state) => format!("→ {state}"),
        None if is_kept => "kept".to_owned(),
        None => "–".to_owned(),
    };
    let names = change.follow.iter().map(|follow| {
        let name = format!("{follow:?}");
        name.split([' ', '{']).next().unwrap_or_default().to_owned()
    });
    let names: Vec<_> = names.collect();
    if names.is_empty() { text } else { format!("{text} ({})", names.join(", ")) }
}

fn render(page: &mut String, states: &[&str], rows: &[(String, Vec<String>)]) {
    let line = |page: &mut String, cells: &[String]| writeln!(page, "| {} |", cells.join(" | ")).unwrap();
    page.push('\n');
    let heads = std::iter::once("command".to_owned()).chain(states.iter().map(|state| format!("`{state}`")));
    line(page, &heads.collect::<Vec<_>>());
    line(page, &vec!["---".to_owned(); states.len() + 1]);
    for (command, cells) in rows {
        line(page, &std::iter::once(command.clone()).chain(cells.iter().cloned()).collect::<Vec<_>>());
    }
}

/// A workflow with its steps, and commands on it.
#[derive(Clone)]
struct Made {
    workflow: Workflow,
    steps: Vec<Step>,
}

impl Made {
    fn new(grouped: bool) -> Self {
        let mut workflow = Workflow::new(WorkflowId(Uuid::from_u128(1)), "default".parse().unwrap());
        (workflow.compensates, workflow.has_outputs) = (true, true);
        workflow.timeout = Some(SECOND);
        workflow.group = groups::group(grouped);
        let step = |name: &str| {
            let mut step = Step::new(name.to_owned(), Kind::Task);
            (step.compensates, step.stops, step.finally) = (name == "a", name != "f", name == "f");
            step
        };
        let mut steps = ["a", "b", "f"].map(step).to_vec();
        workflow.begin(&mut steps, NOW);
        Self { workflow, steps }
    }

    fn on(mut self, command: Command) -> Self {
        self.workflow.apply(command, NOW).unwrap();
        self
    }

    fn step(mut self, index: usize, command: StepCommand) -> Self {
        self.workflow.apply_to(&mut self.steps[index], command, NOW).unwrap();
        self
    }

    fn runs(self, index: usize) -> Self {
        self.step(index, start(1)).step(index, StepCommand::Created { count: 1 })
    }

    fn ends(self, index: usize, end: TaskEnd) -> Self {
        self.runs(index).step(index, StepCommand::TaskEnded { round: 1, end })
    }

    /// Runs the step of `finally` to its end.
    fn finally(self) -> Self {
        self.step(2, StepCommand::Release).ends(2, TaskEnd::Succeeded)
    }
}

fn start(total: u32) -> StepCommand {
    StepCommand::Start(Start { round: 1, total, ..Start::default() })
}

pub(super) fn cancel() -> Command {
    Command::Cancel { reason: String::new() }
}

pub(super) fn cancel_finally() -> Command {
    Command::CancelFinally { reason: String::new() }
}

pub(super) fn workflows() -> Vec<(&'static str, Workflow)> {
    let stopping = Made::new(false).runs(0).ends(1, TaskEnd::Failed);
    let compensating = Made::new(false).ends(0, TaskEnd::Succeeded).ends(1, TaskEnd::Failed);
    let finalizing = Made::new(false).ends(0, TaskEnd::Succeeded).ends(1, TaskEnd::Succeeded);
    let finalizing = finalizing.step(2, StepCommand::Release);
    let ending = finalizing.clone().ends(2, TaskEnd::Succeeded);
    let cancelled = Made::new(false).on(cancel()).step(0, StepCommand::Halt).step(1, StepCommand::Halt);
    let broken = compensating.clone().step(0, StepCommand::Compensate);
    let broken = broken.step(0, StepCommand::CompensationFailed { after: None, message: String::new() });
    let all = [
        ("RUNNING", Made::new(false)),
        ("RUNNING, paused", Made::new(false).on(Command::Pause { suspend: false })),
        ("RUNNING, waits for its group", Made::new(true)),
        ("STOPPING", stopping),
        ("COMPENSATING", compensating),
        ("FINALIZING", finalizing.clone()),
        ("FINALIZING, cancelled", finalizing.on(cancel())),
        ("ENDING", ending.clone()),
        ("SUCCEEDED", ending.clone().on(Command::Conclude(Ok(())))),
        ("FAILED", ending.on(Command::Conclude(Err(String::new())))),
        ("CANCELLED", cancelled.finally()),
        ("COMPENSATION_FAILED", broken.finally()),
    ];
    all.into_iter().map(|(label, made)| (label, made.workflow)).collect()
}

fn workflow_label(command: &Command) -> &'static str {
    match command {
        Command::Pause { suspend: false } => "Pause",
        Command::Pause { suspend: true } => "Pause, with tasks",
        Command::Resume { .. } => "Resume",
        Command::Admit => "Admit",
        Command::Cancel { .. } => "Cancel",
        Command::CancelFinally { .. } => "Cancel, with finally-steps",
        Command::Tick { .. } => "Tick",
        Command::Spend { .. } => "Spend",
        Command::Conclude(Ok(())) => "Conclude",
        Command::Conclude(Err(_)) => "Conclude, failed",
        Command::Delete => "Delete",
    }
}

pub(super) fn on_workflows() -> Vec<Command> {
    vec![
        Command::Pause { suspend: false },
        Command::Pause { suspend: true },
        Command::RESUME,
        Command::Admit,
        cancel(),
        cancel_finally(),
        Command::TICK,
        Command::Spend { micro_usd: 5 },
        Command::Conclude(Ok(())),
        Command::Conclude(Err("it cannot be evaluated".to_owned())),
        Command::Delete,
    ]
}

pub(super) fn apply(workflow: &Workflow, command: Command) -> String {
    let (before, mut after) = (workflow, workflow.clone());
    let change = after.apply(command, NOW + SECOND * 2);
    assert!(change.is_ok() || after == *before, "a rejected command changed the record");
    let moved = (after.state != before.state).then(|| after.state.name());
    cell(change, moved, after != *before)
}

pub(super) fn steps() -> Vec<(&'static str, Step)> {
    let of = |kind: Kind, state: StepState| {
        let mut step = Step::new("a".to_owned(), kind);
        (step.state, step.round) = (state, u32::from(!matches!(state, StepState::Waiting | StepState::Held)));
        (step.stops, step.compensates, step.max_rounds) = (true, true, 2);
        step.needs = u32::from(state == StepState::Waiting);
        if state.is_active() && state != StepState::Ready {
            (step.total, step.created) = (u32::from(kind == Kind::Task), u32::from(kind == Kind::Task));
            (step.due, step.waits_since) = (Some(NOW + SECOND), Some(NOW));
        }
        step
    };
    let approval = Kind::Approval { deadline: Some(SECOND), approves: false };
    let mut waiting = of(Kind::Task, StepState::Ready);
    let (name, place) = ("g".to_owned(), Place::Waiting);
    waiting.group = Some(Box::new(Group { name, limit: 1, replaces: false, place }));
    let compensated = |state| {
        let mut step = of(Kind::Task, StepState::Succeeded);
        step.compensation = Some(state);
        step
    };
    let elements = |state, compensation| {
        let mut step = of(Kind::Task, state);
        (step.compensates_each, step.compensation) = (true, compensation);
        (step.total, step.created, step.succeeded) = (3, 3, 2);
        if compensation.is_some() {
            (step.uncompensated, step.compensated_item) = (2, Some(2));
        }
        step
    };
    let mut task = of(Kind::Task, StepState::Running);
    task.due = None;
    vec![
        ("WAITING", of(Kind::Task, StepState::Waiting)),
        ("HELD", of(Kind::Task, StepState::Held)),
        ("READY", of(Kind::Task, StepState::Ready)),
        ("READY, waits for its group", waiting),
        ("RUNNING, task", task),
        ("RUNNING, approval", of(approval, StepState::Running)),
        ("RUNNING, signal", of(Kind::Signal { timeout: Some(SECOND) }, StepState::Running)),
        ("RUNNING, wait", of(Kind::Sleep { duration: SECOND }, StepState::Running)),
        ("ENDING", of(Kind::Task, StepState::Ending)),
        ("SUCCEEDED", of(Kind::Task, StepState::Succeeded)),
        ("SUCCEEDED, compensation READY", compensated(StepState::Ready)),
        ("SUCCEEDED, compensation RUNNING", compensated(StepState::Running)),
        ("SUCCEEDED, compensation FAILED", compensated(StepState::Failed)),
        ("SUCCEEDED, two elements left", elements(StepState::Succeeded, Some(StepState::Running))),
        ("FAILED", of(Kind::Task, StepState::Failed)),
        ("FAILED, with elements", elements(StepState::Failed, None)),
        ("SKIPPED", of(Kind::Task, StepState::Skipped)),
        ("CANCELLED", of(Kind::Task, StepState::Cancelled)),
    ]
}

fn step_label(command: &StepCommand) -> String {
    let name = match command {
        StepCommand::NeedEnded { satisfied: true, .. } => "NeedEnded",
        StepCommand::NeedEnded { satisfied: false, .. } => "NeedEnded, without success",
        StepCommand::Release => "Release",
        StepCommand::Admit => "Admit",
        StepCommand::Replace => "Replace",
        StepCommand::Skip => "Skip",
        StepCommand::Start(_) => "Start",
        StepCommand::Reuse { .. } => "Reuse",
        StepCommand::Created { .. } => "Created",
        StepCommand::Fail { .. } => "Fail",
        StepCommand::TaskEnded { round, end } => {
            let of = if *round == COMPENSATION { ", of the compensation" } else { "" };
            return format!("TaskEnded, {}{of}", format!("{end:?}").to_lowercase());
        }
        StepCommand::Finish { again: false, .. } => "Finish",
        StepCommand::Finish { again: true, .. } => "Finish, again",
        StepCommand::Decide { approves: true, .. } => "Decide, approve",
        StepCommand::Decide { approves: false, .. } => "Decide, reject",
        StepCommand::Signal => "Signal",
        StepCommand::Tick { .. } => "Tick",
        StepCommand::Resume => "Resume",
        StepCommand::Halt => "Halt",
        StepCommand::Compensate => "Compensate",
        StepCommand::CompensationCreated { .. } => "CompensationCreated",
        StepCommand::CompensationFailed { .. } => "CompensationFailed",
        StepCommand::Resolve(resolved) => {
            return format!("Resolve, {}", format!("{:?}", resolved.resolution).to_lowercase());
        }
    };
    name.to_owned()
}

pub(super) fn on_steps(step: &Step) -> Vec<StepCommand> {
    let (round, message, inputs) = (step.round, String::new(), String::new());
    let ended = |round, end| StepCommand::TaskEnded { round, end };
    let resolve = |resolution| {
        let [by, by_subject, note] = ["a person", "a subject", ""].map(str::to_owned);
        StepCommand::Resolve(Resolved { failure: 0, resolution, by, by_subject, note, at: NOW })
    };
    vec![
        StepCommand::NeedEnded { satisfied: true, reused: false },
        StepCommand::NeedEnded { satisfied: false, reused: false },
        StepCommand::Release,
        StepCommand::Admit,
        StepCommand::Replace,
        StepCommand::Skip,
        start(1),
        StepCommand::Reuse { round: 1, total: 1, inputs, lists: 0 },
        StepCommand::Created { count: 1 },
        StepCommand::Fail { round, state: step.state, created: step.created, message: message.clone() },
        ended(1, TaskEnd::Succeeded),
        ended(1, TaskEnd::Failed),
        ended(1, TaskEnd::Cancelled),
        StepCommand::Finish { round: 1, again: false },
        StepCommand::Finish { round: 1, again: true },
        StepCommand::Decide { approves: true, message: message.clone() },
        StepCommand::Decide { approves: false, message: message.clone() },
        StepCommand::Signal,
        StepCommand::TICK,
        StepCommand::Resume,
        StepCommand::Halt,
        StepCommand::Compensate,
        StepCommand::CompensationCreated { item: 0 },
        StepCommand::CompensationFailed { after: step.compensated_item, message },
        ended(COMPENSATION, TaskEnd::Succeeded),
        ended(COMPENSATION, TaskEnd::Failed),
        resolve(Resolution::Retry),
        resolve(Resolution::Done),
        resolve(Resolution::Skip),
    ]
}

pub(super) fn apply_to(step: &Step, command: StepCommand) -> String {
    let mut made = Made::new(false);
    made.workflow.main_held = 1;
    if step.compensation.is_some() || command == StepCommand::Compensate {
        (made.workflow.state, made.workflow.last_completed) = (State::Compensating, Some(0));
    }
    if step.compensation == Some(StepState::Failed) {
        // With a step of `finally` that was cancelled.
        (made.workflow.state, made.workflow.last_completed) = (State::CompensationFailed, None);
        (made.workflow.outcome, made.workflow.finals_halted) = (Some(Outcome::Failed), true);
    }
    let mut after = step.clone();
    let change = made.workflow.apply_to(&mut after, command, NOW + SECOND * 2);
    assert!(change.is_ok() || after == *step, "a rejected command changed the record");
    let compensation = after.compensation.filter(|_| after.compensation != step.compensation);
    let moved = match compensation {
        Some(state) => Some(format!("compensation {}", state.name())),
        None => (after.state != step.state).then(|| after.state.name().to_owned()),
    };
    cell(change, moved.as_deref(), after != *step)
}

/// Returns the part of the page about workflows and steps.
pub(crate) fn page() -> String {
    let mut page = TITLE.to_owned();
    let all = workflows();
    let labels: Vec<_> = all.iter().map(|(label, _)| *label).collect();
    let row = |command: Command| {
        let cells = all.iter().map(|(_, workflow)| apply(workflow, command.clone()));
        (workflow_label(&command).to_owned(), cells.collect())
    };
    render(&mut page, &labels, &on_workflows().into_iter().map(row).collect::<Vec<_>>());
    page.push_str(STEPS);
    let all = steps();
    let labels: Vec<_> = all.iter().map(|(label, _)| *label).collect();
    let rows = (0..on_steps(&all[0].1).len()).map(|index| {
        let command = |step: &Step| on_steps(step).swap_remove(index);
        let cells = all.iter().map(|(_, step)| apply_to(step, command(step)));
        (step_label(&command(&all[0].1)), cells.collect())
    });
    render(&mut page, &labels, &rows.collect::<Vec<_>>());
    page
}

#[test]
fn every_workflow_state_is_in_the_table() {
    let states: BTreeSet<_> = workflows().iter().map(|(_, workflow)| workflow.state).collect();
    assert_eq!(states, BTreeSet::from(State::ALL));
    for (label, workflow) in workflows() {
        assert!(label.starts_with(workflow.state.name()), "{label}: {:?}", workflow.state);
    }
    let states: BTreeSet<_> = steps().iter().map(|(_, step)| step.state).collect();
    assert_eq!(states, BTreeSet::from(StepState::ALL));
}
