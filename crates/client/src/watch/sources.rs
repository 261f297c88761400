//! What can be watched, and where each watch resumes after a lost connection.

use std::collections::{BTreeSet, VecDeque};

use futures::FutureExt;
use futures::future::BoxFuture;
use rota_proto::v1::{self, watch_agents_response};
use tonic::codec::CompressionEncoding;
use tonic::{Response, Status, Streaming};

use super::engine::Source;
use crate::Client;

type OpenFuture<T> = BoxFuture<'static, Result<Response<Streaming<T>>, Status>>;

/// One task. Resumes after the last log sequence number.
pub(super) struct Task {
    name: String,
    after: i64,
    deltas: bool,
    /// Last log sequence number, known once the task has ended.
    last: Option<i64>,
}

impl Task {
    pub(super) fn new(name: String, after: i64, deltas: bool) -> Self {
        Self { name, after, deltas, last: None }
    }
}

impl Source for Task {
    type Message = v1::WatchTaskResponse;

    fn open(&self, client: &Client) -> OpenFuture<Self::Message> {
        let request =
            v1::WatchTaskRequest { name: self.name.clone(), after_log_seq: self.after, deltas: self.deltas };
        let mut tasks = client.tasks();
        async move { tasks.watch_task(request).await }.boxed()
    }

    fn accept(&mut self, mut message: Self::Message, out: &mut VecDeque<Self::Message>) {
        let after = &mut self.after;
        message.events.retain(|event| {
            let new = event.log_seq > *after;
            *after = (*after).max(event.log_seq);
            new
        });
        if let Some(task) = &message.task {
            if !task.name.is_empty() {
                // An alias refers to the newest task of that name, which may be another one later.
                self.name.clone_from(&task.name);
            }
            let status = task.status.as_ref();
            if status.is_some_and(|status| status.state().is_final()) {
                self.last = Some(status.map_or(0, |status| status.log_seq));
            }
        }
        out.push_back(message);
    }

    fn finished(&self, closed: bool) -> bool {
        self.last.is_some_and(|last| closed || self.after >= last)
    }
}

/// The tasks of a namespace. Resumes from the last token.
pub(super) struct Tasks {
    parent: String,
    token: String,
    states_only: bool,
}

impl Tasks {
    pub(super) fn new(parent: String, token: String, states_only: bool) -> Self {
        Self { parent, token, states_only }
    }
}

impl Source for Tasks {
    type Message = v1::WatchTasksResponse;

    fn open(&self, client: &Client) -> OpenFuture<Self::Message> {
        let request = v1::WatchTasksRequest {
            parent: self.parent.clone(),
            token: self.token.clone(),
            states_only: self.states_only,
            batched: true,
        };
        let mut tasks = client.tasks().accept_compressed(CompressionEncoding::Gzip);
        async move { tasks.watch_tasks(request).await }.boxed()
    }

    fn reopened(&mut self, out: &mut VecDeque<Self::Message>) {
        if self.token.is_empty() {
            // Without a token, changes may have been missed.
            out.push_back(v1::WatchTasksResponse { resync: true, ..Default::default() });
        }
    }

    fn accept(&mut self, mut message: Self::Message, out: &mut VecDeque<Self::Message>) {
        let before = self.token.clone();
        if !message.token.is_empty() {
            self.token.clone_from(&message.token);
        }
        let mut changes = std::mem::take(&mut message.changes);
        // A caller that resumes from the middle of a batch receives all of it again.
        if let Some(v1::TaskChange { task, events }) = changes.pop() {
            (message.task, message.events) = (task, events);
        }
        out.extend(changes.into_iter().map(|v1::TaskChange { task, events }| v1::WatchTasksResponse {
            task,
            events,
            token: before.clone(),
            ..Default::default()
        }));
        out.push_back(message);
    }
}

/// One workflow. Starts over: each stream begins with all steps.
pub(super) struct Workflow {
    name: String,
    has_ended: bool,
}

impl Workflow {
    pub(super) fn new(name: String) -> Self {
        Self { name, has_ended: false }
    }
}

impl Source for Workflow {
    type Message = v1::WatchWorkflowResponse;

    fn open(&self, client: &Client) -> OpenFuture<Self::Message> {
        let request = v1::WatchWorkflowRequest { name: self.name.clone(), without_steps: false };
        let mut workflows = client.workflows();
        async move { workflows.watch_workflow(request).await }.boxed()
    }

    fn accept(&mut self, message: Self::Message, out: &mut VecDeque<Self::Message>) {
        if let Some(workflow) = &message.workflow {
            // As with tasks, an alias may refer to another one later.
            self.name.clone_from(&workflow.name);
            let state = workflow.status.as_ref().map(v1::WorkflowStatus::state);
            // Only the last message about an ended workflow has no steps.
            self.has_ended = message.steps.is_empty() && state.is_some_and(v1::WorkflowState::is_final);
        }
        out.push_back(message);
    }

    fn finished(&self, _: bool) -> bool {
        self.has_ended
    }
}

/// The agents of a namespace. Starts over, and derives which agents were deleted meanwhile.
pub(super) struct Agents {
    parent: String,
    known: BTreeSet<String>,
    /// Agents received since the stream was opened again; `None` once all have been.
    received: Option<BTreeSet<String>>,
}

impl Agents {
    pub(super) fn new(parent: String) -> Self {
        Self { parent, known: BTreeSet::new(), received: None }
    }
}

impl Source for Agents {
    type Message = v1::WatchAgentsResponse;

    fn open(&self, client: &Client) -> OpenFuture<Self::Message> {
        let request = v1::WatchAgentsRequest { parent: self.parent.clone() };
        let mut agents = client.agents();
        async move { agents.watch_agents(request).await }.boxed()
    }

    fn reopened(&mut self, _: &mut VecDeque<Self::Message>) {
        self.received = Some(BTreeSet::new());
    }

    fn accept(&mut self, message: Self::Message, out: &mut VecDeque<Self::Message>) {
        use watch_agents_response::Kind;
        match &message.kind {
            Some(Kind::Agent(agent)) => {
                self.known.insert(agent.name.clone());
                if let Some(received) = &mut self.received {
                    received.insert(agent.name.clone());
                }
            }
            Some(Kind::Deleted(name)) => {
                self.known.remove(name);
            }
            Some(Kind::Synced(_)) => {
                if let Some(received) = self.received.take() {
                    for name in self.known.difference(&received) {
                        out.push_back(v1::WatchAgentsResponse { kind: Some(Kind::Deleted(name.clone())) });
                    }
                    self.known = received;
                }
            }
            None => {}
        }
        out.push_back(message);
    }
}

/// Demand for workers. The first response of each stream is complete, so there is no position.
pub(super) struct Demand {
    request: v1::WatchDemandRequest,
}

impl Demand {
    pub(super) fn new(request: v1::WatchDemandRequest) -> Self {
        Self { request }
    }
}

impl Source for Demand {
    type Message = v1::WatchDemandResponse;

    fn open(&self, client: &Client) -> OpenFuture<Self::Message> {
        let request = self.request.clone();
        let mut agents = client.agents();
        async move { agents.watch_demand(request).await }.boxed()
    }

    fn accept(&mut self, message: Self::Message, out: &mut VecDeque<Self::Message>) {
        out.push_back(message);
    }
}
