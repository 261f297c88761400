//! `ScheduleService`.

mod wanted;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pbjson_types::Empty;
use prost::Message;
use rota_core::rank::Priority;
use rota_core::{Namespace, TaskId};
use rota_proto::v1;
use rota_proto::v1::schedule_service_server::ScheduleService;
use rota_store::{Command, Document, DocumentKey, DocumentKind, Expected, PutDocument, Reply};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use self::wanted::{Wanted, masked};
use super::answers::page;
use crate::barrier::Barriers;
use crate::creation::{Scope, managed};
use crate::room;
use crate::schedules::{Driver, Entry, ScheduleKey, StoredSchedule, StoredStatus, observe};
use crate::store_client::{no_reply, unexpected_reply};
use crate::wire::schedule::{self as wire, Checked};
use crate::wire::status::{self, error, invalid};
use crate::wire::{check, etag, names, scheduled_workflow};

const MAX_KEY: usize = 128;
/// Bytes of a page, unless its only schedule has more.
const MAX_PAGE_BYTES: usize = 1 << 20;
/// Active runs whose states are read for an answer.
const MAX_STATES: usize = 100;
/// Time for the states of runs in a list.
const STATES_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(crate) struct Schedules {
    pub(crate) driver: Driver,
    pub(crate) barriers: Barriers,
}

fn document_key(kind: DocumentKind, (namespace, name): &ScheduleKey) -> DocumentKey {
    DocumentKey { kind, namespace: namespace.clone(), name: name.clone() }
}

impl Schedules {
    async fn find(&self, key: &ScheduleKey) -> Result<Arc<Entry>, Status> {
        if let Some(known) = self.driver.registry.get(key) {
            return Ok(known);
        }
        // One that cannot be decoded is known to the store alone, which has the reason.
        let stored = self.driver.store.reads().document(document_key(DocumentKind::Schedule, key));
        stored.await.map_err(status::store)?;
        let text = format!("schedule {} does not exist in namespace {}", key.1, key.0);
        Err(error("SCHEDULE_NOT_FOUND", text))
    }

    async fn stored_status(&self, entry: &Entry) -> StoredStatus {
        let shared = self.driver.registry.status(entry);
        let tracked = shared.lock().await;
        if tracked.uid == entry.document.uid { tracked.status.clone() } else { StoredStatus::default() }
    }

    /// Returns a schedule with the states of its runs.
    async fn whole(&self, entry: &Entry) -> Result<v1::Schedule, Status> {
        let mut schedule = wire::to_wire(entry, &self.stored_status(entry).await, false);
        let active = schedule.status.iter_mut().flat_map(|status| &mut status.active);
        for run in active.take(MAX_STATES) {
            self.observe(entry, run).await?;
        }
        Ok(schedule)
    }

    /// Gives an active run the state of its task or workflow, whose end the stored status has a moment later.
    async fn observe(&self, entry: &Entry, run: &mut v1::ScheduleRun) -> Result<(), Status> {
        if let Some(observed) = observe(&self.driver.store, entry.namespace(), run.clone()).await? {
            *run = observed.run;
        }
        Ok(())
    }

    /// Creates or changes a schedule.
    async fn put(&self, key: &ScheduleKey, wanted: Wanted, dry_run: bool) -> Result<v1::Schedule, Status> {
        let known = self.driver.registry.get(key);
        let stored = self.stored(key, known.as_deref(), wanted)?;
        let expected = match &known {
            Some(known) if known.stored == stored => return self.whole(known).await,
            Some(known) => known.document.expected(),
            None if self.driver.registry.count(&key.0) >= wire::MAX_SCHEDULES => {
                return Err(wire::full(&key.0));
            }
            None => match room::refusal(self.driver.store.space(), Priority::NORMAL) {
                Some(full) if !dry_run => return Err(full),
                _ => Expected::Absent,
            },
        };
        let kind = |stored: &StoredSchedule| {
            let task = stored.schedule.as_ref()?.spec.as_ref()?.task.as_ref()?;
            Some(task.spec.as_ref()?.kind.clone())
        };
        // Its other fields change without the kind, which may have been deleted.
        let new = kind(&stored)
            .filter(|new| known.as_deref().and_then(|known| kind(&known.stored)).as_ref() != Some(new));
        let new = new.as_deref().unwrap_or_default();
        self.driver.creator.kinds.check(&key.0, "schedule.spec.task.spec.kind", &[new]).await?;
        self.check_workflow(key, known.as_deref(), &stored).await?;
        let payload = Bytes::from(stored.encode_to_vec());
        let put = PutDocument { key: document_key(DocumentKind::Schedule, key), payload, expected };
        let document = self.apply(vec![Command::PutDocument(put)], dry_run).await?;
        if dry_run {
            return Ok(wire::to_wire(&Entry::new(document), &StoredStatus::default(), false));
        }
        self.barriers.flush().await;
        self.whole(&Entry::new(document)).await
    }

    /// Checks the workflow of a schedule, with its template, if it is new or has changed.
    async fn check_workflow(
        &self,
        key: &ScheduleKey,
        known: Option<&Entry>,
        stored: &StoredSchedule,
    ) -> Result<(), Status> {
        let Some(given) = stored.spec().workflow else { return Ok(()) };
        if known.and_then(Entry::workflow) == Some(&given) {
            return Ok(());
        }
        let request = v1::CreateWorkflowRequest {
            validate_only: true,
            ..scheduled_workflow::request(&key.0, &key.1, given)
        };
        let checked = self.driver.workflows.create_scheduled(key.0.clone(), request).await;
        checked.map(drop).map_err(scheduled_workflow::located)
    }

    async fn apply(&self, batch: Vec<Command>, dry_run: bool) -> Result<Arc<Document>, Status> {
        let store = &self.driver.store;
        let replies = if dry_run { store.dry_run(batch).await } else { store.apply(batch).await };
        let reply = replies.map_err(status::store)?.into_iter().next().ok_or_else(no_reply)?;
        match reply.map_err(status::refused)? {
            Reply::Document(document) => Ok(document),
            _ => Err(unexpected_reply()),
        }
    }

    /// Returns the record of a schedule as it is to be.
    fn stored(
        &self,
        key: &ScheduleKey,
        known: Option<&Entry>,
        wanted: Wanted,
    ) -> Result<StoredSchedule, Status> {
        let now = self.driver.registry.clock.now();
        let before = known.map(|known| known.stored.clone()).unwrap_or_default();
        let mut new = before.clone();
        match wanted {
            Wanted::Whole(checked) => {
                let Checked { schedule, secrets } = *checked;
                new.schedule = Some(schedule);
                self.seal(&key.0, &mut new, &secrets)?;
            }
            Wanted::Parts { labels, paused, given } => {
                let schedule = new.schedule.get_or_insert_default();
                if labels {
                    check::labels("schedule.labels", &given.labels)?;
                    schedule.labels = given.labels;
                }
                if let (Some(paused), Some(spec)) = (paused, schedule.spec.as_mut()) {
                    spec.paused = Some(paused);
                }
            }
        }
        if known.is_some() && new == before {
            return Ok(before);
        }
        new.generation = before.generation + 1;
        new.anchor = new.next_anchor(known.map(|_| &before), now);
        Ok(new)
    }

    fn seal(
        &self,
        namespace: &Namespace,
        stored: &mut StoredSchedule,
        secrets: &BTreeMap<String, String>,
    ) -> Result<(), Status> {
        if secrets.is_empty() {
            (stored.sealed, stored.sealed_for) = (Vec::new(), Vec::new());
            return Ok(());
        }
        let sealer = &self.driver.sealer;
        if let Ok(id) = Uuid::from_slice(&stored.sealed_for)
            && sealer.open_sealed(namespace, TaskId(id), &stored.sealed).is_ok_and(|known| *known == *secrets)
        {
            return Ok(());
        }
        let id = Uuid::new_v4();
        let sealed = sealer.seal(namespace, TaskId(id), secrets);
        stored.sealed = sealed.map_err(|error| Status::internal(error.to_string()))?.bytes.to_vec();
        stored.sealed_for = id.as_bytes().to_vec();
        Ok(())
    }
}

/// Checks that a schedule which a cluster manages is changed by its operator, and another one is not.
fn check_managed(
    scope: Scope,
    known: Option<&Entry>,
    given: &BTreeMap<String, String>,
) -> Result<(), Status> {
    let Some(known) = known else { return scope.check_new(given) };
    scope.check_schedule(known.name(), known.labels())?;
    let (namespace, name) = (known.namespace(), known.name());
    let hint = || format!("change the resource: kubectl -n {namespace} edit schedules.rota.dev {name}");
    managed::check(known.labels(), given, &format!("schedule {name}"), hint)
}

#[tonic::async_trait]
impl ScheduleService for Schedules {
    async fn create_schedule(
        &self,
        request: Request<v1::CreateScheduleRequest>,
    ) -> Result<Response<v1::Schedule>, Status> {
        let request = request.into_inner();
        let namespace = names::parent("parent", &request.parent)?;
        let name = names::schedule_id("schedule_id", &request.schedule_id)?;
        let given = request.schedule.ok_or_else(|| invalid("schedule", "is required"))?;
        let checked = wire::check(namespace.clone(), given, self.driver.registry.clock.now())?;
        let key = (namespace, name);
        let _exclusive = self.driver.registry.changes.lock(&key.0).await;
        if self.driver.registry.get(&key).is_some() {
            return Err(error("SCHEDULE_EXISTS", format!("schedule {} already exists", key.1)));
        }
        let put = self.put(&key, Wanted::Whole(Box::new(checked)), request.validate_only);
        put.await.map(Response::new)
    }

    async fn get_schedule(
        &self,
        request: Request<v1::GetScheduleRequest>,
    ) -> Result<Response<v1::Schedule>, Status> {
        let key = names::schedule("name", &request.into_inner().name)?;
        self.whole(&*self.find(&key).await?).await.map(Response::new)
    }

    async fn list_schedules(
        &self,
        request: Request<v1::ListSchedulesRequest>,
    ) -> Result<Response<v1::ListSchedulesResponse>, Status> {
        let request = request.into_inner();
        let namespace = names::parent_or_all("parent", &request.parent)?;
        let all = self
            .driver
            .registry
            .list(namespace.as_ref())
            .into_iter()
            .map(|entry| (rota_proto::names::schedule(entry.namespace().as_str(), entry.name()), entry));
        let (entries, next_page_token) = page(all.collect(), request.page_size, &request.page_token)?;
        let mut found = v1::ListSchedulesResponse { next_page_token, ..Default::default() };
        let (mut bytes, mut unread) = (0, MAX_STATES);
        let end = Instant::now() + STATES_TIMEOUT;
        for entry in entries {
            let mut schedule = wire::to_wire(&entry, &self.stored_status(&entry).await, true);
            let last = schedule.status.as_mut().and_then(|status| status.active.last_mut());
            if let Some(run) = last.filter(|_| unread > 0) {
                // Where the store is slow, or cannot be read, runs are listed as they are known.
                let read = timeout_at(end, self.observe(&entry, run)).await;
                unread = if matches!(read, Ok(Ok(()))) { unread - 1 } else { 0 };
            }
            bytes += schedule.encoded_len();
            if let Some(last) = found.schedules.last().filter(|_| bytes > MAX_PAGE_BYTES) {
                found.next_page_token.clone_from(&last.name);
                break;
            }
            found.schedules.push(schedule);
        }
        Ok(Response::new(found))
    }

    async fn update_schedule(
        &self,
        request: Request<v1::UpdateScheduleRequest>,
    ) -> Result<Response<v1::Schedule>, Status> {
        let scope = Scope::of(&request);
        let request = request.into_inner();
        let mut given = request.schedule.ok_or_else(|| invalid("schedule", "is required"))?;
        let key = names::schedule("schedule.name", &given.name)?;
        let paths = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
        // A mask reads before it writes: two that name different fields must not undo each other.
        let _exclusive = self.driver.registry.changes.lock(&key.0).await;
        let known = self.driver.registry.get(&key);
        check_managed(scope, known.as_deref(), &given.labels)?;
        etag::expected(&request.etag, known.as_deref().map(|known| &*known.document))?;
        match (&known, &mut given.spec) {
            (None, _) if !request.allow_missing => drop(self.find(&key).await?),
            (Some(known), Some(spec)) if spec.paused.is_none() => spec.paused = Some(known.is_paused()),
            _ => {}
        }
        let paths = if known.is_some() { paths } else { Vec::new() };
        let wanted = masked(key.0.clone(), given, &paths, self.driver.registry.clock.now())?;
        self.put(&key, wanted, request.validate_only).await.map(Response::new)
    }

    async fn delete_schedule(
        &self,
        request: Request<v1::DeleteScheduleRequest>,
    ) -> Result<Response<Empty>, Status> {
        let scope = Scope::of(&request);
        let request = request.into_inner();
        let key = names::schedule("name", &request.name)?;
        let _exclusive = self.driver.registry.changes.lock(&key.0).await;
        if let Some(known) = self.driver.registry.get(&key) {
            // The operator deletes what has lost its resource.
            let own = known.labels().clone();
            let given = if scope == Scope::All { BTreeMap::new() } else { own };
            check_managed(scope, Some(&known), &given)?;
        }
        // One that cannot be decoded is removed.
        if let Err(missing) = self.find(&key).await
            && missing.code() == Code::NotFound
        {
            return if request.allow_missing { Ok(Response::new(Empty {})) } else { Err(missing) };
        }
        let known = self.driver.registry.get(&key);
        let expected = etag::expected(&request.etag, known.as_deref().map(|known| &*known.document))?;
        let delete = |kind, expected| Command::DeleteDocument(document_key(kind, &key), expected);
        // One that has never run has no status.
        let runs = delete(DocumentKind::ScheduleStatus, Expected::Any);
        let batch = vec![delete(DocumentKind::Schedule, expected), runs];
        let replies = self.driver.store.apply(batch).await.map_err(status::store)?;
        replies.into_iter().next().ok_or_else(no_reply)?.map_err(status::refused)?;
        self.barriers.flush().await;
        Ok(Response::new(Empty {}))
    }

    async fn run_schedule(
        &self,
        request: Request<v1::RunScheduleRequest>,
    ) -> Result<Response<v1::RunScheduleResponse>, Status> {
        let request = request.into_inner();
        check::idempotency_key(&request.idempotency_key, MAX_KEY)?;
        let entry = self.find(&names::schedule("name", &request.name)?).await?;
        let key = match request.idempotency_key {
            key if key.is_empty() => Uuid::now_v7().to_string(),
            key => key,
        };
        let driver = self.driver.clone();
        // A caller that hangs up must not leave a run half begun.
        let run = async move { driver.run_now(&entry, &key).await };
        rota_telemetry::finish("schedule-run", run).await.map(Response::new)
    }

    async fn preview_schedule(
        &self,
        request: Request<v1::PreviewScheduleRequest>,
    ) -> Result<Response<v1::PreviewScheduleResponse>, Status> {
        let request = request.into_inner();
        let after = request.after.as_ref().map(crate::wire::time::from_timestamp);
        let after = after.unwrap_or_else(|| self.driver.registry.clock.now());
        let timetable = match &request.spec {
            Some(spec) => {
                names::parent("name", &request.name)?;
                wire::timetable("spec", spec)?
            }
            None => {
                let entry = self.find(&names::schedule("name", &request.name)?).await?;
                entry.timetable.clone().map_err(|why| error("INVALID_FIELD", why))?
            }
        };
        if request.count < 0 {
            return Err(invalid("count", "must not be negative"));
        }
        Ok(Response::new(wire::preview(&timetable, after, request.count)))
    }
}
