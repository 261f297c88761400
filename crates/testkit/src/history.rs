//! History checker: reads every task's log and reports violated invariants, such as gaps, two ends, overlapping attempts
//! or a start before a dependency ended. The rules are those of `docs/guarantees.md`.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};
use rota_client::Client;
use rota_core::task::ATTENTION;
use rota_proto::v1::{self, TaskState, event::Kind};

use crate::output;
use crate::tasks::{NAMESPACE, log};

/// Result of checking all logs.
#[derive(Debug, Default)]
pub struct Findings {
    /// Violated rules, each with its task.
    pub violations: Vec<String>,
    /// Number of tasks by state.
    pub states: BTreeMap<&'static str, usize>,
    /// Number of attempts started by all tasks.
    pub attempts: usize,
}

impl Findings {
    /// Fails if a rule was violated.
    pub fn check(&self) -> Result<()> {
        anyhow::ensure!(self.violations.is_empty(), "violated rules:\n{}", self.violations.join("\n"));
        Ok(())
    }
}

/// Checks the logs of all tasks. With `all_ended`, a task that has not ended violates H1.
pub async fn check(client: &Client, all_ended: bool) -> Result<Findings> {
    let parent = rota_proto::names::namespace(NAMESPACE);
    let tasks = client.all_tasks(v1::ListTasksRequest { parent, ..Default::default() }, None).await?;
    let mut findings = Findings::default();
    let mut ends: HashMap<String, (TaskState, i64)> = HashMap::new();
    let mut logs = Vec::new();
    for task in &tasks {
        let events = log(client, &task.name).await.with_context(|| task.name.clone())?;
        let state = task.status.as_deref().map(v1::TaskStatus::state).unwrap_or_default();
        *findings.states.entry(state.as_str_name()).or_default() += 1;
        check_log(task, &events, all_ended, &mut findings);
        if let Some(end) =
            events.iter().find(|event| matches!(&event.kind, Some(Kind::State(s)) if s.to().is_final()))
        {
            ends.insert(task.uid.clone(), (state, micros(end)));
        }
        logs.push((task, events));
    }
    for (task, events) in &logs {
        check_dependencies(client, task, events, &ends, &mut findings).await?;
    }
    Ok(findings)
}

fn micros(event: &v1::Event) -> i64 {
    event.time.as_ref().map_or(0, micros_of)
}

pub(crate) fn micros_of(time: &pbjson_types::Timestamp) -> i64 {
    time.seconds * 1_000_000 + i64::from(time.nanos) / 1000
}

/// Checks the rules that one log can violate.
fn check_log(task: &v1::Task, events: &[v1::Event], all_ended: bool, findings: &mut Findings) {
    let mut violated = |rule: &str| findings.violations.push(format!("{}: {rule}", task.name));
    for (index, event) in events.iter().enumerate() {
        if event.log_seq != i64::try_from(index + 1).unwrap_or(0) {
            violated("L1: the log has a gap or a repetition");
            return;
        }
    }
    let changes: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.kind {
            Some(Kind::State(change)) => Some((event, change)),
            _ => None,
        })
        .collect();
    if changes.windows(2).any(|pair| pair[1].1.from() != pair[0].1.to()) {
        violated("L2: a change does not start at the state of the last one");
    }
    let finals = changes.iter().filter(|(_, change)| change.to().is_final()).count();
    if finals > 1 {
        violated("H1: the task ended more than once");
    }
    if finals == 0 && all_ended {
        violated("H1: the task never ended");
    }
    // The log was read after the record and may be longer.
    let known = task.status.as_ref().map_or(0, |status| status.log_seq);
    let until = changes.iter().rev().find(|(event, _)| event.log_seq <= known);
    let last = until.map(|(_, change)| change.to());
    if last != task.status.as_deref().map(v1::TaskStatus::state) {
        violated("L3: record and log have different states");
    }
    let starts: Vec<_> = changes
        .iter()
        .filter(|(_, change)| change.to() == TaskState::Running && change.from() == TaskState::Assigned)
        .collect();
    findings.attempts += starts.len();
    let mut violated = |rule: &str| findings.violations.push(format!("{}: {rule}", task.name));
    // Attempts are numbered from 1 without gaps: an assignment that no worker accepted uses no number.
    for (index, (event, _)) in starts.iter().enumerate() {
        if event.attempt != i32::try_from(index + 1).unwrap_or(0) {
            violated("H3: attempts are not numbered consecutively");
        }
    }
    check_attempts(events, &mut violated);
    check_usage(task, events, &mut violated);
    check_questions(task, last, &mut violated);
    output::violations(events).into_iter().for_each(&mut violated);
    let cancel = events.iter().position(|event| {
        matches!(&event.kind, Some(Kind::Change(change)) if change.fields.iter().any(|field| field == "desired_state"))
    });
    if cancel.is_some()
        && task.desired_state() == v1::DesiredState::Cancelled
        && last == Some(TaskState::Succeeded)
    {
        violated("H8: the task succeeded after it had been cancelled");
    }
}

/// H2 and H7: events of an attempt lie between its start and its end, and attempts do not overlap.
fn check_attempts(events: &[v1::Event], violated: &mut impl FnMut(&str)) {
    let (mut running, mut over) = (0, 0);
    for event in events {
        match &event.kind {
            Some(Kind::State(change)) => {
                let runs = matches!(change.to(), TaskState::Running | TaskState::InputRequired);
                if running != 0 && !(runs && event.attempt == running) {
                    over = running;
                    if runs {
                        violated("H7: an attempt started while another one ran");
                    }
                }
                running = if runs { event.attempt } else { 0 };
                // The worker of a lost attempt came back before there was another one.
                let returned = change.reason == "worker_returned" && event.attempt == over;
                if returned {
                    over -= 1;
                }
                if runs && event.attempt <= over {
                    violated("H7: an attempt ran again after its end");
                }
            }
            // Changes, rejected late results and calls for a person are logged by the control plane at any time.
            Some(Kind::Change(_)) | None => {}
            Some(Kind::Notice(notice)) if ["stale_result", ATTENTION].contains(&notice.code.as_str()) => {}
            Some(_) if event.attempt <= over => violated("H7: an event of an attempt follows its end"),
            Some(_) if event.attempt != running => {
                violated("H2: an event of an attempt that did not run is in the log")
            }
            Some(_) => {}
        }
    }
}

/// H9: the usage of a task is at least that in its log, and exactly that if no worker was lost, or the end of a log with it; no attempt reports less than before.
fn check_usage(task: &v1::Task, events: &[v1::Event], violated: &mut impl FnMut(&str)) {
    let mut attempts: BTreeMap<i32, [i64; 3]> = BTreeMap::new();
    for event in events {
        if let Some(Kind::Usage(usage)) = &event.kind {
            let now = counted(usage);
            let before = attempts.insert(event.attempt, now).unwrap_or_default();
            if before.iter().zip(now).any(|(before, now)| now < *before) {
                violated("H9: an attempt reported less usage than before");
            }
        }
    }
    let mut reported = [0; 3];
    for attempt in attempts.values() {
        reported.iter_mut().zip(attempt).for_each(|(sum, one)| *sum += one);
    }
    let total =
        task.status.as_ref().and_then(|status| status.usage.as_ref()).map(counted).unwrap_or_default();
    // What an attempt has used after the loss of its worker, or a cancellation that it did not confirm, is counted, and is no entry of
    // the log. Neither is what was lost with the process of the worker.
    let is_loss = |event: &v1::Event| match &event.kind {
        Some(Kind::State(change)) => {
            matches!(&*change.reason, "worker_lost" | "handed_back" | "timeout" | "quarantined")
                || change.message.contains("did not confirm")
        }
        Some(Kind::Notice(notice)) => notice.code == output::LOG_CUT,
        _ => false,
    };
    let more = total.iter().zip(reported).all(|(total, reported)| *total >= reported);
    if total != reported && !(more && events.iter().any(is_loss)) {
        violated(&format!("H9: the usage is {total:?}, and its attempts reported {reported:?}"));
    }
}

fn counted(usage: &v1::Usage) -> [i64; 3] {
    [usage.input_tokens, usage.output_tokens, usage.cost_micro_usd]
}

/// H10: questions are open exactly while a task waits for an answer.
fn check_questions(task: &v1::Task, last: Option<TaskState>, violated: &mut impl FnMut(&str)) {
    let open = task.status.as_ref().map_or(0, |status| status.pending_input.len());
    if (open > 0) != (last == Some(TaskState::InputRequired)) {
        violated(&format!("H10: {open} questions are open in state {last:?}"));
    }
}

/// H4: a task starts after its dependencies have ended.
async fn check_dependencies(
    client: &Client,
    task: &v1::Task,
    events: &[v1::Event],
    ends: &HashMap<String, (TaskState, i64)>,
    findings: &mut Findings,
) -> Result<()> {
    let start = events
        .iter()
        .find(|event| matches!(&event.kind, Some(Kind::State(s)) if s.to() == TaskState::Running));
    let Some(start) = start.map(micros) else { return Ok(()) };
    let whole = client.get_task(v1::GetTaskRequest { name: task.name.clone() }).await?;
    for dependency in whole.spec.unwrap_or_default().depends_on {
        // An alias may refer to a newer task by now; ids are stable.
        let Some((_, end)) = ends.get(&dependency.task) else { continue };
        if *end > start {
            findings
                .violations
                .push(format!("{}: H4: started before {} had ended", task.name, dependency.task));
        }
    }
    Ok(())
}
