//! Stored forms of a schedule and of its status: the payloads of their documents.

use prost::Message;
use rota_core::Timestamp;
use rota_proto::v1;

use crate::wire::time;

/// Payload of a schedule's document.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StoredSchedule {
    /// Labels and specification, without the secrets of its task.
    #[prost(message, optional, tag = "1")]
    pub(crate) schedule: Option<v1::Schedule>,
    #[prost(int64, tag = "2")]
    pub(crate) generation: i64,
    /// Time before which no time is caught up: of the creation, of the last change of the timetable, or of the end of a pause.
    #[prost(int64, tag = "3")]
    pub(crate) anchor: i64,
    /// Secrets of the task, sealed, and the id that they are sealed for.
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) sealed: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) sealed_for: Vec<u8>,
}

impl StoredSchedule {
    pub(crate) fn spec(&self) -> v1::ScheduleSpec {
        self.schedule.as_ref().and_then(|schedule| schedule.spec.clone()).unwrap_or_default()
    }

    /// Returns the anchor, if the schedule takes the place of another version of it.
    pub(crate) fn next_anchor(&self, before: Option<&Self>, now: Timestamp) -> i64 {
        let Some(before) = before else { return now.0 };
        let (old, new) = (before.spec(), self.spec());
        let resumes = old.paused.unwrap_or_default() && !new.paused.unwrap_or_default();
        let is_moved = (&old.cron, &old.time_zone) != (&new.cron, &new.time_zone);
        if resumes || is_moved { now.0 } else { before.anchor }
    }
}

/// Payload of the document of a schedule's status.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StoredStatus {
    /// Identity of the schedule that it belongs to.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) schedule: Vec<u8>,
    /// The last time that was decided about.
    #[prost(int64, tag = "2")]
    pub(crate) cursor: i64,
    /// Anchor of the schedule that the cursor has been moved to.
    #[prost(int64, tag = "3")]
    pub(crate) anchor: i64,
    /// Runs that have not ended, oldest first.
    #[prost(message, repeated, tag = "4")]
    pub(crate) active: Vec<StoredRun>,
    /// Runs that have ended, newest first.
    #[prost(message, repeated, tag = "5")]
    pub(crate) recent: Vec<v1::ScheduleRun>,
    #[prost(message, optional, tag = "6")]
    pub(crate) last_skip: Option<v1::ScheduleSkip>,
    #[prost(int64, tag = "7")]
    pub(crate) skipped: i64,
    #[prost(int64, tag = "8")]
    pub(crate) started: i64,
    /// Error of the last run that was not started.
    #[prost(string, tag = "9")]
    pub(crate) problem: String,
}

impl StoredStatus {
    pub(crate) fn cursor(&self) -> Timestamp {
        Timestamp(self.cursor)
    }
}

/// Run that has not ended. It is stored before its task or workflow is created, so that a restart creates that if it is missing.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StoredRun {
    #[prost(message, optional, tag = "1")]
    pub(crate) run: Option<v1::ScheduleRun>,
    /// Idempotency key of the task or workflow.
    #[prost(string, tag = "2")]
    pub(crate) key: String,
    /// Whether the task or workflow is known to be created.
    #[prost(bool, tag = "3")]
    pub(crate) created: bool,
    /// Time after which nothing is created for it any more, in microseconds; 0 for none.
    #[prost(int64, tag = "4")]
    pub(crate) latest_start: i64,
}

impl StoredRun {
    /// Returns the id of the task or workflow.
    pub(crate) fn id(&self) -> &str {
        let (RunOf::Task(id) | RunOf::Workflow(id)) = self.of();
        id
    }

    /// Returns its task or workflow.
    pub(crate) fn of(&self) -> RunOf<'_> {
        self.run.as_ref().map_or(RunOf::Task(""), RunOf::new)
    }

    /// Returns the time of the schedule that it runs for.
    pub(crate) fn time(&self) -> Timestamp {
        let found = self.run.as_ref().and_then(|run| run.schedule_time.as_ref());
        found.map_or(Timestamp(0), time::from_timestamp)
    }

    /// Returns when it was stored.
    pub(crate) fn began(&self) -> Timestamp {
        let found = self.run.as_ref().and_then(|run| run.start_time.as_ref());
        found.map_or(Timestamp(0), time::from_timestamp)
    }

    /// Returns the run in words: its task or its workflow.
    pub(crate) fn subject(&self) -> String {
        match self.of() {
            RunOf::Task(id) => format!("task {id}"),
            RunOf::Workflow(id) => format!("workflow {id}"),
        }
    }
}

/// Task or workflow of a run that has not failed to start, with its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunOf<'a> {
    Task(&'a str),
    Workflow(&'a str),
}

impl<'a> RunOf<'a> {
    pub(crate) fn new(run: &'a v1::ScheduleRun) -> Self {
        match run.workflow.as_str() {
            "" => Self::Task(&run.task),
            workflow => Self::Workflow(workflow),
        }
    }
}
