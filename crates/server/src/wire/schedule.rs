//! Schedules: validation of what callers send, and conversion to what they read.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;
use rota_core::task::Trace;
use rota_core::{Namespace, TaskId, Timestamp};
use rota_proto::labels::CLUSTER;
use rota_proto::{names, num, v1};
use tonic::Status;
use uuid::Uuid;

use super::status::invalid;
use super::{check, etag, scheduled_workflow, spec, time};
use crate::schedules::{Entry, StoredStatus, Timetable, label};
use crate::seal::Secrets;

const MAX_JITTER: Duration = Duration::from_hours(1);
const MIN_DEADLINE: Duration = Duration::from_secs(1);
const MAX_HISTORY: i32 = 100;
/// Bytes of a schedule: a prompt of 1 MiB with room to spare.
const MAX_BYTES: usize = 2 << 20;
/// Nothing refers to uploads between runs.
const NO_UPLOADS: &str = "must be empty: uploaded artifacts are removed before later runs";
/// Next times of a status.
const NEXT_TIMES: usize = 3;

/// A validated schedule, without the secrets of its task.
pub(crate) struct Checked {
    pub(crate) schedule: v1::Schedule,
    pub(crate) secrets: Secrets,
}

/// Parses the timetable of a specification.
pub(crate) fn timetable(field: &str, spec: &v1::ScheduleSpec) -> Result<Timetable, Status> {
    Timetable::parse(&spec.cron, &spec.time_zone)
        .map_err(|wrong| invalid(format!("{field}.{}", wrong.field), wrong.why))
}

/// Checks a jitter against its bound.
pub(crate) fn jitter(field: &str, given: Option<&pbjson_types::Duration>) -> Result<(), Status> {
    match time::from_duration(field, given)? {
        Some(jitter) if jitter > MAX_JITTER => Err(invalid(field, "must not be longer than one hour")),
        _ => Ok(()),
    }
}

/// Validates a schedule with its task. Its workflow is checked with the store, which has templates.
pub(crate) fn check(namespace: Namespace, given: v1::Schedule, now: Timestamp) -> Result<Checked, Status> {
    let mut spec = given.spec.ok_or_else(|| invalid("schedule.spec", "is required"))?;
    let at = |field: &str| format!("schedule.spec.{field}");
    check::labels("schedule.labels", &given.labels)?;
    if timetable("schedule.spec", &spec)?.next(now).is_none() {
        return Err(invalid(at("cron"), "matches no time"));
    }
    jitter(&at("jitter"), spec.jitter.as_ref())?;
    let deadline = time::from_duration(&at("start_deadline"), spec.start_deadline.as_ref())?;
    if deadline.is_some_and(|deadline| deadline < MIN_DEADLINE) {
        return Err(invalid(at("start_deadline"), "must be one second at least"));
    }
    let unknown = |field: &str| invalid(at(field), "is not a known value");
    v1::ScheduleConcurrency::try_from(spec.concurrency).map_err(|_| unknown("concurrency"))?;
    v1::ScheduleCatchUp::try_from(spec.catch_up).map_err(|_| unknown("catch_up"))?;
    for (field, number) in spec
        .history
        .iter()
        .flat_map(|history| [("history.succeeded", history.succeeded), ("history.failed", history.failed)])
    {
        if !(0..=MAX_HISTORY).contains(&number) {
            return Err(invalid(at(field), format!("must be from 0 to {MAX_HISTORY}")));
        }
    }
    let secrets = match (spec.task.take(), &spec.workflow) {
        (Some(task), None) => {
            let (task, secrets) = template(namespace, task)?;
            spec.task = Some(task);
            secrets
        }
        (None, Some(workflow)) => {
            managed(&at("workflow.labels"), &workflow.labels)?;
            if workflow.spec.as_ref().is_some_and(|spec| !spec.input_files.is_empty()) {
                return Err(invalid(at("workflow.spec.input_files"), NO_UPLOADS));
            }
            Secrets::default()
        }
        (None, None) => return Err(invalid(at("task"), "is required, or a workflow")),
        (Some(_), Some(_)) => return Err(invalid(at("workflow"), "must not be set together with a task")),
    };
    spec.paused = Some(spec.paused.unwrap_or_default());
    let schedule = v1::Schedule { labels: given.labels, spec: Some(spec), ..v1::Schedule::default() };
    if schedule.encoded_len() > MAX_BYTES {
        return Err(invalid("schedule", format!("is larger than {MAX_BYTES} bytes")));
    }
    Ok(Checked { schedule, secrets })
}

/// Refuses labels of what a cluster manages.
fn managed(field: &str, labels: &BTreeMap<String, String>) -> Result<(), Status> {
    match labels.contains_key(CLUSTER) {
        true => Err(invalid(field, format!("{CLUSTER} is set by the operator of a cluster"))),
        false => Ok(()),
    }
}

/// Validates the task of a schedule as CreateTask does. Returns its secrets apart.
fn template(namespace: Namespace, mut task: v1::Task) -> Result<(v1::Task, Secrets), Status> {
    let at = |field: &str| format!("schedule.spec.task.{field}");
    let given = task.spec.clone().unwrap_or_default();
    if given.start_time.is_some() {
        return Err(invalid(at("spec.start_time"), "must not be set: the schedule sets the time"));
    }
    if !given.inputs.is_empty() {
        return Err(invalid(at("spec.inputs"), NO_UPLOADS));
    }
    if !matches!(task.desired_state(), v1::DesiredState::Unspecified | v1::DesiredState::Run) {
        return Err(invalid(at("desired_state"), "must be RUN; pause the schedule instead"));
    }
    managed(&at("labels"), &task.labels)?;
    task.spec = Some(given);
    let mut example = task.clone();
    example.labels.extend([label("")]);
    let checked = spec::check(namespace, TaskId(Uuid::nil()), Trace::default(), example)?;
    let task = v1::Task {
        alias: task.alias,
        spec: Some(checked.payload),
        priority: task.priority,
        labels: task.labels,
        ..v1::Task::default()
    };
    Ok((task, checked.secrets))
}

/// Converts a schedule, without the prompt of its task or the steps of its workflow if it is one of a list.
pub(crate) fn to_wire(entry: &Entry, status: &StoredStatus, is_listed: bool) -> v1::Schedule {
    let document = &entry.document;
    let mut spec = entry.spec.clone();
    if let Some(task) = spec.task.as_mut().filter(|_| is_listed) {
        let whole = task.spec.take().unwrap_or_default();
        task.spec = Some(Box::new(v1::TaskSpec {
            title: whole.title,
            target: whole.target,
            ..v1::TaskSpec::default()
        }));
    }
    if is_listed {
        spec.workflow = spec.workflow.as_ref().map(scheduled_workflow::brief);
    }
    v1::Schedule {
        name: names::schedule(entry.namespace().as_str(), entry.name()),
        uid: document.uid.to_string(),
        labels: entry.labels().clone(),
        spec: Some(spec),
        status: Some(self::status(entry, status)),
        create_time: Some(time::timestamp(document.created_at)),
        update_time: Some(time::timestamp(document.updated_at)),
        generation: entry.stored.generation,
        etag: etag::of_document(document),
    }
}

fn status(entry: &Entry, stored: &StoredStatus) -> v1::ScheduleStatus {
    // The driver may not have looked at a change yet.
    let is_current = stored.anchor == entry.stored.anchor;
    let cursor = if is_current { stored.cursor() } else { Timestamp(entry.stored.anchor) };
    let next = entry.next_times(cursor, NEXT_TIMES);
    let problem = match &entry.timetable {
        Err(why) => why.clone(),
        Ok(_) if entry.is_paused() => "the schedule is paused".to_owned(),
        Ok(_) if !stored.problem.is_empty() => stored.problem.clone(),
        Ok(_) if next.is_empty() => "the expression matches no later time".to_owned(),
        Ok(_) => String::new(),
    };
    v1::ScheduleStatus {
        next_times: next.into_iter().map(time::timestamp).collect(),
        active: stored.active.iter().filter_map(|run| run.run.clone()).collect(),
        recent: stored.recent.clone(),
        last_skip: stored.last_skip.clone(),
        skipped: stored.skipped,
        started: stored.started,
        problem,
    }
}

/// Returns the next times of a timetable.
pub(crate) fn preview(timetable: &Timetable, after: Timestamp, count: i32) -> v1::PreviewScheduleResponse {
    let count = if count == 0 { 10 } else { usize::try_from(count).unwrap_or(0).min(1000) };
    let times: Vec<_> = timetable.upcoming(after).take(count).collect();
    v1::PreviewScheduleResponse {
        offsets: times.iter().map(|at| timetable.offset(*at)).collect(),
        times: times.into_iter().map(time::timestamp).collect(),
    }
}

/// Number of schedules of a namespace.
pub(crate) const MAX_SCHEDULES: usize = 1000;

/// Returns the error of a namespace that is full.
pub(crate) fn full(namespace: &Namespace) -> Status {
    let count = num::to_i64(MAX_SCHEDULES);
    super::status::error(
        "LIMIT_REACHED",
        format!("namespace {namespace} has {count} schedules, which is the limit"),
    )
}
