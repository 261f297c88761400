//! Creation of tasks: checked, matched with a free slot where there is one, committed, answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use rota_artifacts::Pin;
use rota_core::agent::Agent;
use rota_core::quota::CredentialId;
use rota_core::target::Route;
use rota_core::task::{Task, Trace};
use rota_core::workflow::StepRef;
use rota_core::{Namespace, TaskId};
use rota_proto::artifact_names::{CHECKPOINT, GIT, INPUT};
use rota_proto::{credential, reasons, v1};
use rota_store::{Command, Create, Given, PutAgent, Refused, Reply};
use rota_telemetry::finish;
use tonic::Status;
use uuid::Uuid;

use super::kept::Kept;
use super::managed::Scope;
use super::prepared::{Prepared, Rest, split};
use super::step_files::StepFiles;
use crate::agents::AgentRegistry;
use crate::artifacts::{self, Artifacts};
use crate::kinds::Kinds;
use crate::options::PoolKind;
use crate::room;
use crate::scheduler::{Scheduler, until_answered};
use crate::seal::{Sealed, Sealer};
use crate::store_client::{Replies, StoreClient, unexpected_reply};
use crate::wire::kind::Asked;
use crate::wire::overrides::{self, Forbidden};
use crate::wire::spec::{self, Checked};
use crate::wire::{check, status, target, task};

const MAX_KEY: usize = 256;

/// Creates tasks, by themselves or in batches.
#[derive(Clone)]
pub(crate) struct Creator {
    pub(crate) store: StoreClient,
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) agents: Arc<AgentRegistry>,
    pub(crate) artifacts: Artifacts,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) kinds: Kinds,
    pub(crate) step_files: StepFiles,
    pub(crate) pool_kind: PoolKind,
}

/// Who asks for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Caller,
    /// A caller, for a task that was accepted before.
    Retry,
    /// The driver of workflows, whose turns must not wait for the storage.
    Step,
}

impl Creator {
    /// Returns a creator of the tasks of one batch, which reads each kind once.
    pub(crate) fn of_batch(&self) -> Self {
        Self { kinds: self.kinds.of_batch(), ..self.clone() }
    }

    /// Returns a creator for a turn of the driver, which counts its own waits for the storage.
    pub(crate) fn of_turn(&self) -> Self {
        Self { step_files: self.step_files.of_turn(), ..self.clone() }
    }

    /// Returns the id of the model credential that a task brings along.
    fn credential(
        &self,
        namespace: &Namespace,
        spec: &v1::TaskSpec,
        secrets: &BTreeMap<String, String>,
    ) -> Option<CredentialId> {
        let get = |name: &str| secrets.get(name).or_else(|| spec.environment.get(name)).map(String::as_str);
        let value = credential::of_environment(get)?;
        credential::id(&self.sealer.credential_key(namespace)[..], value).parse().ok()
    }

    /// Checks one request of a caller who sees the tasks of `scope`, and reserves a free slot for its task where one fits.
    pub(crate) async fn prepare(
        &self,
        namespace: Namespace,
        trace: Trace,
        request: v1::CreateTaskRequest,
        retry_of: Option<TaskId>,
        scope: Scope,
    ) -> Result<Prepared, Status> {
        let origin = if retry_of.is_some() { Origin::Retry } else { Origin::Caller };
        self.prepare_work(namespace, trace, request, retry_of, scope, origin).await
    }

    /// As [`prepare`](Self::prepare); what was accepted before has room, as long as the store has.
    async fn prepare_work(
        &self,
        namespace: Namespace,
        trace: Trace,
        request: v1::CreateTaskRequest,
        retry_of: Option<TaskId>,
        scope: Scope,
        origin: Origin,
    ) -> Result<Prepared, Status> {
        check::idempotency_key(&request.idempotency_key, MAX_KEY)?;
        let mut given = request.task.ok_or_else(|| status::invalid("task", "is required"))?;
        let (mut asked, mut unknown) = (None, None);
        // The copy of a task has what that one got from its kind. The kind of one that exists may have been deleted.
        if retry_of.is_none() {
            asked = given.spec.as_deref().and_then(Asked::of).map(Box::new);
            unknown = self.kinds.complete(&namespace, &mut given).await.err();
        }
        if let Some(spec) = given.spec.as_mut().filter(|_| self.pool_kind == PoolKind::Processes) {
            spec.isolation = v1::Isolation::Unspecified.into();
        }
        let alias = given.alias.clone();
        let foreign_id = !request.task_id.is_empty();
        let id = match request.task_id.as_str() {
            "" => TaskId(Uuid::now_v7()),
            text => text.parse().map_err(|_| status::invalid("task_id", "is not a UUID"))?,
        };
        let Checked { mut task, mut payload, secrets, strict } = spec::check(namespace, id, trace, given)?;
        task.retry_of = retry_of;
        task.credential = self.credential(&task.namespace, &payload, &secrets);
        let sealed = self.seal(&task.namespace, id, &secrets)?;
        let (secrets, uncommitted) = sealed.map(|sealed| (sealed.bytes, sealed.uncommitted)).unzip();
        // One that succeeded before may continue a task that has been removed since.
        let (source, unfounded) = match self.source(scope, &mut task, &mut payload).await {
            Ok(source) => (source, unknown),
            Err(status) => (None, Some(unknown.unwrap_or(status))),
        };
        // Boxed, as is all that most creations never do: the state of each is moved several times.
        let inputs = match payload.inputs.is_empty() && source.is_none() {
            true => None,
            false => Some(Box::pin(self.inputs(&task.namespace, &payload.inputs, source, origin)).await?),
        };
        let (artifacts, pin) = inputs.unzip();
        let inputs = pin.into_iter().collect();
        let route = Route { namespace: task.namespace.clone(), target: task.target.clone() };
        let waits = !task.dependencies.is_empty() || task.not_before.is_some() || task.thread.is_some();
        let forbidden = self.forbidden(&task, &payload);
        let offers = !request.validate_only && !waits && forbidden.is_none();
        let reservation = if offers { self.scheduler.reserve(&route, id) } else { None };
        let command = Box::new(Create {
            task: *task,
            payload: payload.encode_to_vec().into(),
            secrets,
            given: Given { input: artifacts, work: None },
            key: Some(request.idempotency_key).filter(|key| !key.is_empty()),
            foreign_id,
            strict,
            offer: reservation.as_ref().map(|reservation| reservation.session().clone()),
        });
        let forbidden =
            forbidden.map(|it| status::hinted(reasons::OVERRIDE_FORBIDDEN, it.to_string(), it.hint()));
        if let Some(status) = forbidden.or(unfounded)
            && !self.exists(&command).await?
        {
            return Err(status);
        }
        let full = match origin {
            _ if request.validate_only => None,
            Origin::Caller => self.store.refusal(&command.task.namespace, command.task.priority),
            Origin::Retry | Origin::Step => room::refusal(self.store.space(), command.task.priority),
        };
        if let Some(full) = full
            && !self.exists(&command).await?
        {
            return Err(full);
        }
        Ok(Prepared { command, rest: Rest { reservation, payload, alias, asked, inputs, uncommitted } })
    }

    /// Checks the task of a step of a workflow, and reserves a free slot for it where one fits.
    pub(crate) async fn prepare_step(
        &self,
        namespace: Namespace,
        trace: Trace,
        task: v1::Task,
        step: StepRef,
    ) -> Result<(Create, Kept), Status> {
        let request = v1::CreateTaskRequest { task: Some(task), ..v1::CreateTaskRequest::default() };
        let prepared = self.prepare_work(namespace, trace, request, None, Scope::All, Origin::Step).await?;
        let mut create = *prepared.command;
        create.task.step = Some(Box::new(step));
        let Rest { reservation, mut inputs, uncommitted, .. } = prepared.rest;
        let kept = Kept::of(create.task.id, reservation, inputs.pop(), uncommitted);
        Ok((create, kept))
    }

    /// Returns the list of a task's input, with the checkpoint that it continues. It is stored; the pin keeps it until the commit.
    async fn inputs(
        &self,
        namespace: &Namespace,
        inputs: &[v1::Artifact],
        source: Option<v1::ArtifactList>,
        origin: Origin,
    ) -> Result<(Bytes, Arc<Pin>), Status> {
        let mut list = v1::ArtifactList { artifacts: inputs.to_vec(), ..v1::ArtifactList::default() };
        artifacts::check("task.spec.inputs", &mut list, &[INPUT])?;
        if let Some(source) = source {
            let inputs = std::mem::replace(&mut list, source).artifacts;
            list.artifacts.extend(inputs);
            artifacts::check("task.spec.continue_from", &mut list, &[INPUT, CHECKPOINT, GIT])?;
        }
        let digests = artifacts::digests(&list.artifacts);
        let (missing, pin) = match origin {
            Origin::Step => self.step_files.missing(&self.artifacts, namespace, digests).await?,
            Origin::Caller | Origin::Retry => {
                let (missing, pin) = self.artifacts.missing(namespace, &digests).await?;
                (missing, Arc::new(pin))
            }
        };
        match missing.first() {
            Some(part) => Err(artifacts::status(rota_artifacts::Error::NotFound(*part))),
            None => Ok((list.encode_to_vec().into(), pin)),
        }
    }

    /// Returns what the named agents forbid the task: its own, and those that may have later attempts. An agent that is not known
    /// yet is asked when the task is assigned.
    fn forbidden(&self, task: &Task, payload: &v1::TaskSpec) -> Option<Forbidden> {
        let first = task.target.agents().map(|agent| (agent, task.continues_other_agent));
        let continues = task.continues_other_agent || !payload.continue_from.is_empty();
        let later = task.retry.agents.iter().map(|one| (&one.agent, continues));
        first.chain(later).find_map(|(agent, of_other)| {
            let known = self.agents.get(&(task.namespace.clone(), agent.clone()))?;
            overrides::check(&known.spec, payload)
                .and_then(|()| overrides::check_source(&known.spec, of_other))
                .err()
        })
    }

    /// Whether the creation is the repetition of one that succeeded, while the agent allowed more.
    pub(crate) async fn exists(&self, command: &Create) -> Result<bool, Status> {
        if command.key.is_none() && !command.foreign_id {
            return Ok(false);
        }
        let creation = Command::Create(Box::new(command.clone()));
        let mut replies = self.store.dry_run(vec![creation]).await.map_err(status::store)?;
        Ok(matches!(replies.pop(), Some(Ok(Reply::Existing(_)))))
    }

    fn seal(
        &self,
        namespace: &Namespace,
        id: TaskId,
        secrets: &BTreeMap<String, String>,
    ) -> Result<Option<Sealed>, Status> {
        if secrets.is_empty() {
            return Ok(None);
        }
        let sealed = self.sealer.seal(namespace, id, secrets);
        sealed.map(Some).map_err(|error| Status::internal(error.to_string()))
    }

    /// Commits prepared creations in one transaction; each is answered by itself.
    pub(crate) async fn commit(
        &self,
        prepared: Vec<Prepared>,
    ) -> Result<Vec<Result<v1::Task, Status>>, Status> {
        let keeps_nothing = prepared.iter().all(|one| one.rest.keeps_nothing());
        let (commands, rest) = split(prepared);
        if keeps_nothing {
            return self.answers(self.store.apply(commands).await, rest, &[]).await;
        }
        // A caller that hangs up must not release a slot that the commit then fills, or what it refers to.
        let creator = self.clone();
        finish("create", async move {
            let (rest, replies) = until_answered(rest, creator.store.apply(commands)).await;
            creator.answers(replies, rest, &[]).await
        })
        .await
    }

    /// Answers as [`commit`](Self::commit) would once these agents exist, and changes nothing (dry run).
    pub(crate) async fn dry_run(
        &self,
        prepared: Vec<Prepared>,
        agents: Vec<Agent>,
    ) -> Result<Vec<Result<v1::Task, Status>>, Status> {
        let given: Vec<_> =
            prepared.iter().map(|one| (one.command.task.id, one.command.payload.clone())).collect();
        let (creations, rest) = split(prepared);
        // The creation of an agent that exists is refused, which leaves it as it is.
        let put = |agent| Command::PutAgent(PutAgent { agent, must_exist: Some(false) });
        let mut commands: Vec<_> = agents.into_iter().map(put).collect();
        let before = commands.len();
        commands.extend(creations);
        let mut replies = self.store.dry_run(commands).await;
        if let Ok(replies) = &mut replies {
            replies.drain(..before.min(replies.len()));
        }
        self.answers(replies, rest, &given).await
    }

    /// Turns replies into answers. `given` holds the payloads of tasks that the store does not have.
    async fn answers(
        &self,
        replies: Replies,
        mut rest: Vec<Rest>,
        given: &[(TaskId, Bytes)],
    ) -> Result<Vec<Result<v1::Task, Status>>, Status> {
        let replies = replies.map_err(status::store)?;
        // All before the first wait, which may be the last.
        for (reply, rest) in replies.iter().zip(&mut rest) {
            if let (Ok(Reply::Created(created)), Some(reservation)) = (reply, rest.reservation.take()) {
                reservation.commit_created(Some(created));
            }
        }
        let mut answers = Vec::with_capacity(replies.len());
        for (reply, rest) in replies.into_iter().zip(rest) {
            answers.push(self.answer(reply, rest, given).await);
        }
        Ok(answers)
    }

    async fn answer(
        &self,
        reply: Result<Reply, Refused>,
        rest: Rest,
        given: &[(TaskId, Bytes)],
    ) -> Result<v1::Task, Status> {
        let Rest { mut payload, alias, asked, reservation: _, inputs: _, uncommitted: _ } = rest;
        match reply.map_err(status::refused)? {
            Reply::Created(created) => {
                let mut answer = task::to_wire(&created, None, None);
                payload.target = Some(target::to_wire(&created.target));
                answer.spec = Some(payload);
                Ok(answer)
            }
            Reply::Existing(known) => {
                let stored = self.store.payload(&known).await?;
                let given =
                    || given.iter().find(|(id, _)| *id == known.id).map(|(_, payload)| payload.clone());
                let stored = stored.or_else(given).unwrap_or_default();
                // A retry follows its dependencies to their newest copies, which are others by now.
                if known.retry_of.is_some() {
                    keep_dependencies(&stored, &mut payload);
                }
                let fields = spec::differences(&stored, &mut payload, asked.as_deref());
                self.existing(&known, &stored, fields, &alias).await
            }
            _ => Err(unexpected_reply()),
        }
    }

    /// Answers with the task that exists already, if it is the one that the caller meant.
    async fn existing(
        &self,
        known: &Task,
        stored: &Bytes,
        mut fields: Vec<String>,
        alias: &str,
    ) -> Result<v1::Task, Status> {
        if known.alias.as_deref().unwrap_or_default() != alias {
            fields.push("alias".to_owned());
        }
        if !fields.is_empty() {
            return Err(status::reused(known.id, &fields));
        }
        let result = self.store.result(known).await?;
        Ok(task::to_wire(known, Some(stored), result.as_ref()))
    }
}

/// Takes over on what a stored task depends.
fn keep_dependencies(stored: &[u8], given: &mut v1::TaskSpec) {
    let Ok(kept) = v1::TaskSpec::decode(stored) else { return };
    given.depends_on = kept.depends_on;
    let git = |workspace: Option<v1::Workspace>| workspace.and_then(|workspace| workspace.git);
    let into = given.workspace.as_mut().and_then(|workspace| workspace.git.as_mut());
    if let (Some(kept), Some(into)) = (git(kept.workspace), into) {
        into.ref_from = kept.ref_from;
    }
}
