//! What `rota schedule` prints.

use rota_proto::names;
use rota_proto::v1::{
    PreviewScheduleResponse, Schedule, ScheduleRun, ScheduleStatus, ScheduledWorkflow, TaskState,
    WorkflowState, WorkflowStatus,
};

use crate::commands::workflow;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, Paint, Table, clean, elapsed, first_line, time};

/// Returns the next time of a schedule as text.
pub(super) fn next(schedule: &Schedule) -> String {
    let first = schedule.status.as_ref().and_then(|status| status.next_times.first());
    first.map_or_else(|| "none".to_owned(), |at| time(Some(at)))
}

fn zone(schedule: &Schedule) -> &str {
    let zone = schedule.spec.as_ref().map_or("", |spec| spec.time_zone.as_str());
    if zone.is_empty() { "UTC" } else { zone }
}

/// Returns the last run: of those that have ended, or that runs now.
fn last(status: &ScheduleStatus) -> Option<&ScheduleRun> {
    status.active.last().or(status.recent.first())
}

fn state(run: &ScheduleRun) -> (String, Paint) {
    if run.workflow_state() != WorkflowState::Unspecified {
        let status = WorkflowStatus { state: run.workflow_state, ..WorkflowStatus::default() };
        let (state, paint) = workflow::state(&status);
        return (state.to_lowercase().replace('_', " "), paint);
    }
    let paint = match run.state() {
        TaskState::Succeeded => Paint::Good,
        TaskState::Failed => Paint::Bad,
        TaskState::Unspecified if run.task.is_empty() && run.workflow.is_empty() => {
            return ("not started".to_owned(), Paint::Bad);
        }
        TaskState::Unspecified if run.end_time.is_none() => return ("active".to_owned(), Paint::Plain),
        TaskState::Unspecified => return ("unknown".to_owned(), Paint::Faint),
        _ => Paint::Plain,
    };
    (output::state(run.state()).to_lowercase(), paint)
}

pub(super) fn list(context: &Context, schedules: &[Schedule], all: bool) -> anyhow::Result<Exit> {
    if !context.out.is_human() {
        context.out.list("schedules", schedules)?;
        return Ok(Exit::Ok);
    }
    let mut header = vec!["NAME", "CRON", "ZONE", "NEXT", "ACTIVE", "LAST RUN", "OUTCOME", "PROBLEM"];
    if all {
        header.insert(0, "NAMESPACE");
    }
    let mut table = Table::new(&header);
    let plain = |text: String| (text, Paint::Plain);
    for schedule in schedules {
        let status = schedule.status.clone().unwrap_or_default();
        let cron = schedule.spec.as_ref().map_or("", |spec| spec.cron.as_str());
        let (namespace, name) = names::parse(&schedule.name, "schedules").unwrap_or_default();
        let last = last(&status);
        let mut row = vec![
            plain(name.to_owned()),
            plain(clean(cron)),
            plain(zone(schedule).to_owned()),
            plain(time(status.next_times.first())),
            plain(status.active.len().to_string()),
            plain(time(last.and_then(|run| run.schedule_time.as_ref()))),
            last.map_or_else(|| plain("none".to_owned()), state),
            (first_line(&status.problem, 60), Paint::Faint),
        ];
        if all {
            row.insert(0, plain(namespace.to_owned()));
        }
        table.row(row);
    }
    if table.is_empty() {
        context.reporter.line("no schedules");
    }
    context.out.table(&table)?;
    Ok(Exit::Ok)
}

pub(super) fn one(context: &Context, schedule: &Schedule) -> anyhow::Result<Exit> {
    if !context.out.is_human() {
        context.out.value(schedule)?;
        return Ok(Exit::Ok);
    }
    let (spec, status) =
        (schedule.spec.clone().unwrap_or_default(), schedule.status.clone().unwrap_or_default());
    let times: Vec<_> = status.next_times.iter().map(|at| time(Some(at))).collect();
    let next = if times.is_empty() { "none".to_owned() } else { times.join(", ") };
    let line = |name: &str, value: &str| context.out.line(&format!("{name:<14}{value}"));
    line("Name", names::last(&schedule.name))?;
    line("Cron", &format!("{} ({})", clean(&spec.cron), zone(schedule)))?;
    match &spec.workflow {
        Some(workflow) => line("Workflow", &title(workflow))?,
        None => {
            let task = spec.task.as_ref().and_then(|task| task.spec.as_ref());
            line("Task", &task.map(|task| first_line(&task.title, 80)).unwrap_or_default())?;
        }
    }
    line("Next times", &next)?;
    line("Runs", &format!("{} started, {} skipped", status.started, status.skipped))?;
    if !status.problem.is_empty() {
        line("Not running", &clean(&status.problem))?;
    }
    if let Some(skip) = &status.last_skip {
        line("Last skip", &format!("{}: {}", time(skip.schedule_time.as_ref()), clean(&skip.reason)))?;
    }
    let mut table = Table::new(&["TIME", "STATE", "RUN", "TOOK", "MESSAGE"]);
    for run in status.active.iter().rev().chain(&status.recent) {
        let took = match run.end_time {
            Some(_) => elapsed(run.start_time.as_ref(), run.end_time.as_ref()),
            None => String::new(),
        };
        let requested = if run.requested { "requested " } else { "" };
        let plain = |text: String| (text, Paint::Plain);
        table.row([
            plain(time(run.schedule_time.as_ref())),
            state(run),
            plain(match run.workflow.as_str() {
                "" => run.task.clone(),
                id => format!("workflow {id}"),
            }),
            plain(took),
            plain(format!("{requested}{}", first_line(&run.message, 80))),
        ]);
    }
    if !table.is_empty() {
        context.out.line("")?;
        context.out.table(&table)?;
    }
    Ok(Exit::Ok)
}

/// Returns a workflow in one line: its template or its title.
fn title(workflow: &ScheduledWorkflow) -> String {
    match (workflow.template.as_str(), &workflow.spec) {
        ("", spec) => spec.as_ref().map(|spec| first_line(&spec.title, 80)).unwrap_or_default(),
        (template, _) => format!("template {}", clean(template)),
    }
}

pub(super) fn times(context: &Context, answer: &PreviewScheduleResponse) -> anyhow::Result<Exit> {
    if !context.out.is_human() {
        context.out.value(answer)?;
        return Ok(Exit::Ok);
    }
    for (at, offset) in answer.times.iter().zip(&answer.offsets) {
        context.out.line(&local(at, offset))?;
    }
    if answer.times.is_empty() {
        context.reporter.line("the expression matches no later time");
    }
    Ok(Exit::Ok)
}

/// Returns a time with the offset of its zone, as in RFC 3339.
fn local(at: &pbjson_types::Timestamp, offset: &str) -> String {
    let parsed = jiff::Timestamp::new(at.seconds, at.nanos).ok();
    let seconds = seconds(offset);
    let zoned = parsed
        .and_then(|at| Some(at.to_zoned(jiff::tz::Offset::from_seconds(seconds?).ok()?.to_time_zone())));
    zoned
        .map_or_else(|| time(Some(at)), |zoned| format!("{}{offset}", zoned.strftime("%a %Y-%m-%dT%H:%M:%S")))
}

/// Parses an offset such as `+02:00`.
fn seconds(offset: &str) -> Option<i32> {
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let amount = hours.parse::<i32>().ok()? * 3600 + minutes.parse::<i32>().ok()? * 60;
    Some(if offset.starts_with('-') { -amount } else { amount })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_their_zone() {
        let at = pbjson_types::Timestamp { seconds: 1_774_747_800, nanos: 0 };
        assert_eq!(local(&at, "+01:00"), "Sun 2026-03-29T02:30:00+01:00");
        assert_eq!(local(&at, "-03:30"), "Sat 2026-03-28T22:00:00-03:30");
    }
}
