//! Reads every task's log and looks for what must never be: gaps, two ends, results of two attempts,
//! starts before what they depend on. The rules are named as in `docs/reliability.md`.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};
use rota_client::Client;
use rota_proto::v1::{self, TaskState, event::Kind};

use crate::said;
use crate::tasks::{NAMESPACE, log};

/// What a look at all logs found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Rules that were broken; empty when all is well.
    pub broken: Vec<String>,
    /// How many tasks stand in each state.
    pub states: BTreeMap<&'static str, usize>,
    /// Attempts that were started, in all.
    pub attempts: usize,
}

impl Findings {
    /// Fails if any rule was broken.
    pub fn check(&self) -> Result<()> {
        anyhow::ensure!(self.broken.is_empty(), "broken rules:\n{}", self.broken.join("\n"));
        Ok(())
    }
}

fn is_final(state: TaskState) -> bool {
    matches!(state, TaskState::Succeeded | TaskState::Failed | TaskState::Cancelled)
}

/// Checks all tasks. With `all_ended`, a task that has not ended breaks a rule too.
pub async fn check(client: &Client, all_ended: bool) -> Result<Findings> {
    let parent = rota_proto::names::namespace(NAMESPACE);
    let tasks = client.all_tasks(v1::ListTasksRequest { parent, ..Default::default() }, None).await?;
    let mut findings = Findings::default();
    let mut ends: HashMap<String, (TaskState, i64)> = HashMap::new();
    let mut logs = Vec::new();
    for task in &tasks {
        let events = log(client, &task.name).await.with_context(|| task.name.clone())?;
        let state = task.status.as_ref().map(v1::TaskStatus::state).unwrap_or_default();
        *findings.states.entry(state.as_str_name()).or_default() += 1;
        one(task, &events, all_ended, &mut findings);
        if let Some(end) =
            events.iter().find(|event| matches!(&event.kind, Some(Kind::State(s)) if is_final(s.to())))
        {
            ends.insert(task.uid.clone(), (state, micros(end)));
        }
        logs.push((task, events));
    }
    for (task, events) in &logs {
        started_after_dependencies(client, task, events, &ends, &mut findings).await?;
    }
    Ok(findings)
}

fn micros(event: &v1::Event) -> i64 {
    event.time.as_ref().map_or(0, |time| time.seconds * 1_000_000 + i64::from(time.nanos) / 1000)
}

/// The rules of one log.
fn one(task: &v1::Task, events: &[v1::Event], all_ended: bool, findings: &mut Findings) {
    let mut broken = |rule: &str| findings.broken.push(format!("{}: {rule}", task.name));
    for (index, event) in events.iter().enumerate() {
        if event.log_seq != i64::try_from(index + 1).unwrap_or(0) {
            broken("L1: the log has a gap or repeats itself");
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
        broken("L2: a change does not begin where the one before ended");
    }
    let finals = changes.iter().filter(|(_, change)| is_final(change.to())).count();
    if finals > 1 {
        broken("H1: it ended more than once");
    }
    if finals == 0 && all_ended {
        broken("H1: it never ended");
    }
    // The log was read after the record, and may have gone on.
    let known = task.status.as_ref().map_or(0, |status| status.log_seq);
    let until = changes.iter().rev().find(|(event, _)| event.log_seq <= known);
    let last = until.map(|(_, change)| change.to());
    if last != task.status.as_ref().map(v1::TaskStatus::state) {
        broken("L3: its record and its log tell different states");
    }
    let starts: Vec<_> = changes
        .iter()
        .filter(|(_, change)| change.to() == TaskState::Running && change.from() == TaskState::Assigned)
        .collect();
    findings.attempts += starts.len();
    let mut broken = |rule: &str| findings.broken.push(format!("{}: {rule}", task.name));
    // Attempts are numbered from 1 without gaps: one that was not taken costs none.
    for (index, (event, _)) in starts.iter().enumerate() {
        if event.attempt != i32::try_from(index + 1).unwrap_or(0) {
            broken("H3: attempts are not numbered one after the other");
        }
    }
    between_start_and_end(events, &mut broken);
    said::broken(events).into_iter().for_each(&mut broken);
    let cancel = events.iter().position(|event| {
        matches!(&event.kind, Some(Kind::Change(change)) if change.fields.iter().any(|field| field == "desired_state"))
    });
    if cancel.is_some()
        && task.desired_state() == v1::DesiredState::Cancelled
        && last == Some(TaskState::Succeeded)
    {
        broken("H8: it succeeded after its end had been asked for");
    }
}

/// H2 and H7: what an attempt did lies between its start and its end, and attempts lie one after the other.
fn between_start_and_end(events: &[v1::Event], broken: &mut impl FnMut(&str)) {
    let (mut running, mut over) = (0, 0);
    for event in events {
        match &event.kind {
            Some(Kind::State(change)) => {
                let runs = matches!(change.to(), TaskState::Running | TaskState::InputRequired);
                if running != 0 && !(runs && event.attempt == running) {
                    over = running;
                    if runs {
                        broken("H7: an attempt started while another one was running");
                    }
                }
                running = if runs { event.attempt } else { 0 };
                if runs && event.attempt <= over {
                    broken("H7: an attempt that was over was running again");
                }
            }
            // Changes and late results come from the control plane, at any time.
            Some(Kind::Change(_)) | None => {}
            Some(Kind::Notice(notice)) if notice.code == "stale_result" => {}
            Some(_) if event.attempt <= over => broken("H7: something of an attempt came after its end"),
            Some(_) if event.attempt != running => {
                broken("H2: something of an attempt that was not running is in the log")
            }
            Some(_) => {}
        }
    }
}

/// H4: no start before everything it depends on has ended.
async fn started_after_dependencies(
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
        // Aliases may since have passed to newer tasks; ids cannot.
        let Some((_, end)) = ends.get(&dependency.task) else { continue };
        if *end > start {
            findings
                .broken
                .push(format!("{}: H4: it started before {} had ended", task.name, dependency.task));
        }
    }
    Ok(())
}
