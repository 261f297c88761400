//! Registry of schedules: their decoded records, their statuses, and when each is due. Records are changed only by commits,
//! statuses only by the driver.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use prost::Message;
use rota_core::{Namespace, Timestamp};
use rota_proto::v1;
use rota_store::{Document, DocumentChange, DocumentKind, Expected, NameKey};
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use super::changes::Changes;
use super::clock::WallClock;
use super::plan::Rules;
use super::record::{StoredSchedule, StoredStatus};
use super::timetable::Timetable;

/// Namespace and name of a schedule.
pub(crate) type ScheduleKey = NameKey;

/// A position that is later than the clock by more than this was stored while the clock was wrong.
const MAX_AHEAD: Duration = Duration::from_secs(300);

/// A schedule with its decoded timetable.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) document: Arc<Document>,
    pub(crate) stored: StoredSchedule,
    pub(crate) spec: v1::ScheduleSpec,
    /// The timetable, or why there is none.
    pub(crate) timetable: Result<Timetable, String>,
    pub(super) rules: Rules,
}

impl Entry {
    pub(crate) fn new(document: Arc<Document>) -> Self {
        let decoded = StoredSchedule::decode(&document.payload[..]);
        let failed = decoded.as_ref().err().map(|error| format!("the record cannot be decoded: {error}"));
        let stored = decoded.unwrap_or_default();
        let spec = stored.spec();
        let timetable = match failed {
            Some(failed) => Err(failed),
            None => Timetable::parse(&spec.cron, &spec.time_zone)
                .map_err(|invalid| format!("{}: {}", invalid.field, invalid.why)),
        };
        let duration = |given: &Option<pbjson_types::Duration>| {
            given.and_then(|given| Duration::try_from(given).ok()).filter(|given| !given.is_zero())
        };
        let rules = Rules {
            uid: document.uid,
            jitter: duration(&spec.jitter).unwrap_or_default(),
            deadline: duration(&spec.start_deadline),
            catch_up: spec.catch_up(),
        };
        Self { document, stored, spec, timetable, rules }
    }

    pub(crate) fn key(&self) -> ScheduleKey {
        (self.document.key.namespace.clone(), self.document.key.name.clone())
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.document.key.namespace
    }

    pub(crate) fn name(&self) -> &str {
        &self.document.key.name
    }

    pub(crate) fn labels(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.stored.schedule.as_ref().map_or(&NONE, |schedule| &schedule.labels)
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.spec.paused.unwrap_or_default()
    }

    /// Returns the workflow that each run creates, if it is one.
    pub(crate) fn workflow(&self) -> Option<&v1::ScheduledWorkflow> {
        self.spec.workflow.as_ref()
    }

    /// Returns the next times after a position, with their jitter; none while the schedule is paused.
    pub(crate) fn next_times(&self, cursor: Timestamp, count: usize) -> Vec<Timestamp> {
        match &self.timetable {
            Ok(timetable) if !self.is_paused() => timetable
                .upcoming(cursor)
                .take(count)
                .map(|time| self.rules.slot(timetable, time).due)
                .collect(),
            _ => Vec::new(),
        }
    }
}

/// Status of a schedule, and what is left to do for it.
#[derive(Debug)]
pub(crate) struct Tracked {
    pub(crate) uid: Uuid,
    pub(crate) status: StoredStatus,
    pub(super) expected: Expected,
    /// Whether the status has changes that are not stored.
    pub(super) dirty: bool,
    /// Failures in a row, and when the next try is.
    pub(super) failures: u32,
    pub(super) retry_at: Option<Instant>,
    /// Whether its runs have been looked up since the start.
    pub(super) verified: bool,
    /// Runs beyond the history, whose tasks and workflows the next write removes.
    pub(super) removals: Vec<v1::ScheduleRun>,
    /// Runs whose successor exists, which are to be cancelled.
    pub(super) replaced: Vec<v1::ScheduleRun>,
}

impl Tracked {
    fn new(uid: Uuid) -> Self {
        let status = StoredStatus { schedule: uid.as_bytes().to_vec(), ..StoredStatus::default() };
        Self {
            uid,
            status,
            expected: Expected::Any,
            dirty: false,
            failures: 0,
            retry_at: None,
            verified: false,
            removals: Vec::new(),
            replaced: Vec::new(),
        }
    }

    fn restored(document: &Document) -> Option<Self> {
        let status = StoredStatus::decode(&document.payload[..]).ok()?;
        let uid = Uuid::from_slice(&status.schedule).ok()?;
        Some(Self { status, expected: document.expected(), ..Self::new(uid) })
    }

    /// Notes that the task or workflow of an active run exists. Returns whether that is new: then it replaces the runs before it,
    /// if the schedule's runs do.
    pub(super) fn note_created(&mut self, entry: &Entry, at: usize) -> bool {
        if std::mem::replace(&mut self.status.active[at].created, true) {
            return false;
        }
        if entry.spec.concurrency() == v1::ScheduleConcurrency::Replace {
            self.replaced.extend(self.status.active[..at].iter().filter_map(|run| run.run.clone()));
        }
        true
    }

    /// Moves the position to the schedule's anchor after a change, and back to now after the clock was wrong.
    pub(super) fn sync(&mut self, entry: &Entry, now: Timestamp) {
        if self.status.anchor != entry.stored.anchor {
            self.status.anchor = entry.stored.anchor;
            self.status.cursor = entry.stored.anchor;
        }
        if self.status.cursor() > now + MAX_AHEAD {
            tracing::warn!(schedule = entry.name(), "the clock was set back: times are counted from now on");
            self.status.cursor = now.0;
        }
    }
}

/// Status that its users lock: one writes at a time.
pub(crate) type SharedStatus = Arc<tokio::sync::Mutex<Tracked>>;

#[derive(Debug, Default)]
struct Due {
    times: BTreeSet<(Timestamp, ScheduleKey)>,
    of: HashMap<ScheduleKey, Timestamp>,
}

/// Schedules of all namespaces, in memory.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    entries: RwLock<BTreeMap<ScheduleKey, Arc<Entry>>>,
    statuses: Mutex<HashMap<ScheduleKey, SharedStatus>>,
    due: Mutex<Due>,
    retries: Mutex<BTreeSet<(Instant, ScheduleKey)>>,
    /// Tasks and workflows of runs that have not ended.
    active: Mutex<HashMap<(Namespace, Uuid), ScheduleKey>>,
    /// Those of them that have ended, and are not settled.
    ended: Mutex<HashMap<ScheduleKey, BTreeSet<String>>>,
    /// Why those schedules do not run that should.
    problems: Mutex<BTreeMap<ScheduleKey, String>>,
    /// Schedules to look at now.
    touched: Mutex<BTreeSet<ScheduleKey>>,
    wake: Notify,
    /// Held by a call that reads a schedule before it writes it.
    pub(crate) changes: Changes,
    pub(crate) clock: WallClock,
}

impl Registry {
    pub(crate) fn new(clock: WallClock) -> Self {
        Self { clock, ..Self::default() }
    }

    /// Takes in the documents of a store, before any commit is applied.
    pub(crate) fn restore(&self, schedules: Vec<Document>, statuses: &[Document]) {
        for document in schedules {
            self.put(Arc::new(document));
        }
        for document in statuses {
            let key = (document.key.namespace.clone(), document.key.name.clone());
            let Some(tracked) = Tracked::restored(document) else { continue };
            if self.get(&key).is_some_and(|entry| entry.document.uid == tracked.uid) {
                for id in tracked.status.active.iter().filter_map(|run| run.id().parse().ok()) {
                    self.follow(&key.0, id, &key);
                }
                self.statuses.lock().insert(key, Arc::new(tokio::sync::Mutex::new(tracked)));
            }
        }
    }

    /// Takes in a change of a document.
    pub(crate) fn apply(&self, change: &DocumentChange) {
        let document = &change.document;
        if document.key.kind != DocumentKind::Schedule {
            return;
        }
        let key = (document.key.namespace.clone(), document.key.name.clone());
        let known = self.get(&key).map(|entry| (entry.document.uid, entry.document.version));
        if change.deleted {
            if known.is_some_and(|(uid, _)| uid == document.uid) {
                self.entries.write().remove(&key);
                self.statuses.lock().remove(&key);
                self.active.lock().retain(|_, of| *of != key);
                self.ended.lock().remove(&key);
                self.problems.lock().remove(&key);
                self.set_due(&key, None);
            }
            return;
        }
        if known.is_none_or(|(uid, version)| uid != document.uid || version < document.version) {
            self.put(Arc::clone(document));
        }
    }

    fn put(&self, document: Arc<Document>) {
        let entry = Arc::new(Entry::new(document));
        let key = entry.key();
        self.entries.write().insert(key.clone(), entry);
        self.touch(key);
    }

    pub(crate) fn get(&self, key: &ScheduleKey) -> Option<Arc<Entry>> {
        self.entries.read().get(key).cloned()
    }

    /// Returns the schedules of a namespace, or all, by namespace and name.
    pub(crate) fn list(&self, namespace: Option<&Namespace>) -> Vec<Arc<Entry>> {
        let entries = self.entries.read();
        let ours =
            entries.values().filter(|entry| namespace.is_none_or(|wanted| entry.namespace() == wanted));
        ours.cloned().collect()
    }

    pub(crate) fn count(&self, namespace: &Namespace) -> usize {
        self.entries.read().keys().filter(|(space, _)| space == namespace).count()
    }

    /// Returns the status of a schedule, which begins empty.
    pub(crate) fn status(&self, entry: &Entry) -> SharedStatus {
        let mut statuses = self.statuses.lock();
        let status = statuses
            .entry(entry.key())
            .or_insert_with(|| Arc::new(tokio::sync::Mutex::new(Tracked::new(entry.document.uid))));
        Arc::clone(status)
    }

    /// Forgets the status of an earlier schedule of the same name.
    pub(super) fn replace_status(&self, entry: &Entry) -> SharedStatus {
        let fresh = Arc::new(tokio::sync::Mutex::new(Tracked::new(entry.document.uid)));
        self.statuses.lock().insert(entry.key(), Arc::clone(&fresh));
        fresh
    }

    /// Has a schedule looked at now.
    pub(crate) fn touch(&self, key: ScheduleKey) {
        self.touched.lock().insert(key);
        self.wake.notify_one();
    }

    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Sets when a schedule is due next.
    pub(super) fn set_due(&self, key: &ScheduleKey, at: Option<Timestamp>) {
        let mut due = self.due.lock();
        if let Some(before) = due.of.remove(key) {
            due.times.remove(&(before, key.clone()));
        }
        if let Some(at) = at {
            due.of.insert(key.clone(), at);
            due.times.insert((at, key.clone()));
        }
    }

    /// Has a schedule looked at later, after a failure.
    pub(super) fn retry(&self, key: &ScheduleKey, at: Instant) {
        self.retries.lock().insert((at, key.clone()));
    }

    /// Returns when the first schedule is due, and when the first retry is.
    pub(super) fn next(&self) -> (Option<Timestamp>, Option<Instant>) {
        let due = self.due.lock().times.first().map(|(at, _)| *at);
        (due, self.retries.lock().first().map(|(at, _)| *at))
    }

    /// Takes the schedules to look at: those that are due, to be retried, or touched. They are due again when that is set.
    pub(super) fn take_due(&self, now: Timestamp, instant: Instant) -> BTreeSet<ScheduleKey> {
        let mut keys = std::mem::take(&mut *self.touched.lock());
        let mut due = self.due.lock();
        while let Some(first) = due.times.first().filter(|(at, _)| *at <= now).cloned() {
            due.times.remove(&first);
            due.of.remove(&first.1);
            keys.insert(first.1);
        }
        drop(due);
        let mut retries = self.retries.lock();
        while let Some(first) = retries.first().filter(|(at, _)| *at <= instant).cloned() {
            retries.remove(&first);
            keys.insert(first.1);
        }
        keys
    }

    /// Follows the task or workflow of a run.
    pub(super) fn follow(&self, namespace: &Namespace, id: Uuid, key: &ScheduleKey) {
        self.active.lock().insert((namespace.clone(), id), key.clone());
    }

    pub(super) fn unfollow(&self, namespace: &Namespace, id: &str) {
        if let Ok(id) = id.parse() {
            self.active.lock().remove(&(namespace.clone(), id));
        }
    }

    /// Notes that a task or workflow has ended or was removed, which may be the run of a schedule.
    pub(crate) fn ended(&self, namespace: &Namespace, id: Uuid) {
        let of = {
            let active = self.active.lock();
            if active.is_empty() {
                return;
            }
            active.get(&(namespace.clone(), id)).cloned()
        };
        if let Some(key) = of {
            self.note_ended(&key, &id.to_string());
            self.touch(key);
        }
    }

    /// Notes what keeps a schedule from running, if anything does but its pause.
    pub(super) fn note_problem(&self, entry: &Entry, status: &StoredStatus) {
        let problem = match &entry.timetable {
            _ if entry.is_paused() => "",
            Err(why) => why,
            Ok(_) => &status.problem,
        };
        let key = entry.key();
        let mut problems = self.problems.lock();
        // It may have been deleted meanwhile, and its problem with it.
        if problem.is_empty() || self.get(&key).is_none() {
            problems.remove(&key);
        } else {
            problems.insert(key, problem.to_owned());
        }
    }

    /// Returns the schedules that do not run though they should, and why.
    pub(crate) fn problems(&self) -> BTreeMap<ScheduleKey, String> {
        self.problems.lock().clone()
    }

    /// Has a run looked up.
    pub(super) fn note_ended(&self, key: &ScheduleKey, id: &str) {
        self.ended.lock().entry(key.clone()).or_default().insert(id.to_owned());
    }

    /// Takes the runs of a schedule to look up.
    pub(super) fn take_ended(&self, key: &ScheduleKey) -> BTreeSet<String> {
        self.ended.lock().remove(key).unwrap_or_default()
    }
}
