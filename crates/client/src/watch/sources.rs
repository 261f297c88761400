//! What can be watched, and where each goes on after a cut.

use std::collections::{BTreeSet, VecDeque};

use futures::FutureExt;
use futures::future::BoxFuture;
use rota_proto::v1::{self, watch_agents_response};
use tonic::{Response, Status, Streaming};

use super::engine::Source;
use crate::Client;

type Opening<T> = BoxFuture<'static, Result<Response<Streaming<T>>, Status>>;

/// One task's log: goes on after the last position seen.
pub(super) struct Task {
    name: String,
    after: i64,
    ended: Ended,
}

#[derive(PartialEq)]
enum Ended {
    No,
    /// It has, and its log goes up to here.
    At(i64),
}

impl Task {
    pub(super) fn new(name: String, after: i64) -> Self {
        Self { name, after, ended: Ended::No }
    }
}

impl Source for Task {
    type Message = v1::WatchTaskResponse;

    fn open(&self, client: &Client) -> Opening<Self::Message> {
        let request = v1::WatchTaskRequest { name: self.name.clone(), after_log_seq: self.after };
        let mut tasks = client.tasks();
        async move { tasks.watch_task(request).await }.boxed()
    }

    fn take(&mut self, mut message: Self::Message, out: &mut VecDeque<Self::Message>) {
        let after = &mut self.after;
        message.events.retain(|event| {
            let new = event.log_seq > *after;
            *after = (*after).max(event.log_seq);
            new
        });
        if let Some(task) = &message.task {
            if !task.name.is_empty() {
                // An alias means the newest task of that name, which could be another one after a cut.
                self.name.clone_from(&task.name);
            }
            let status = task.status.as_ref();
            if status.is_some_and(|status| is_final(status.state())) {
                self.ended = Ended::At(status.map_or(0, |status| status.log_seq));
            }
        }
        out.push_back(message);
    }

    fn finished(&self, closed: bool) -> bool {
        match self.ended {
            Ended::No => false,
            Ended::At(last) => closed || self.after >= last,
        }
    }
}

/// Whether a task in this state is over.
pub fn is_final(state: v1::TaskState) -> bool {
    matches!(state, v1::TaskState::Succeeded | v1::TaskState::Failed | v1::TaskState::Cancelled)
}

/// Many tasks' logs: goes on from the last token.
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

    fn open(&self, client: &Client) -> Opening<Self::Message> {
        let request = v1::WatchTasksRequest {
            parent: self.parent.clone(),
            token: self.token.clone(),
            states_only: self.states_only,
        };
        let mut tasks = client.tasks();
        async move { tasks.watch_tasks(request).await }.boxed()
    }

    fn reopened(&mut self, out: &mut VecDeque<Self::Message>) {
        if self.token.is_empty() {
            // Without a token nobody knows what happened meanwhile.
            out.push_back(v1::WatchTasksResponse { resync: true, ..Default::default() });
        }
    }

    fn take(&mut self, message: Self::Message, out: &mut VecDeque<Self::Message>) {
        if !message.token.is_empty() {
            self.token.clone_from(&message.token);
        }
        out.push_back(message);
    }
}

/// The agents: begins anew, and finds out what is gone.
pub(super) struct Agents {
    parent: String,
    known: BTreeSet<String>,
    /// Seen since the stream was opened again; `None` once all have been.
    seen: Option<BTreeSet<String>>,
}

impl Agents {
    pub(super) fn new(parent: String) -> Self {
        Self { parent, known: BTreeSet::new(), seen: None }
    }
}

impl Source for Agents {
    type Message = v1::WatchAgentsResponse;

    fn open(&self, client: &Client) -> Opening<Self::Message> {
        let request = v1::WatchAgentsRequest { parent: self.parent.clone() };
        let mut agents = client.agents();
        async move { agents.watch_agents(request).await }.boxed()
    }

    fn reopened(&mut self, _: &mut VecDeque<Self::Message>) {
        self.seen = Some(BTreeSet::new());
    }

    fn take(&mut self, message: Self::Message, out: &mut VecDeque<Self::Message>) {
        use watch_agents_response::Kind;
        match &message.kind {
            Some(Kind::Agent(agent)) => {
                self.known.insert(agent.name.clone());
                if let Some(seen) = &mut self.seen {
                    seen.insert(agent.name.clone());
                }
            }
            Some(Kind::Deleted(name)) => {
                self.known.remove(name);
            }
            Some(Kind::Synced(_)) => {
                if let Some(seen) = self.seen.take() {
                    for gone in self.known.difference(&seen) {
                        out.push_back(v1::WatchAgentsResponse { kind: Some(Kind::Deleted(gone.clone())) });
                    }
                    self.known = seen;
                }
            }
            None => {}
        }
        out.push_back(message);
    }
}

/// Demand: every answer is all of it.
pub(super) struct Demand {
    parent: String,
}

impl Demand {
    pub(super) fn new(parent: String) -> Self {
        Self { parent }
    }
}

impl Source for Demand {
    type Message = v1::WatchDemandResponse;

    fn open(&self, client: &Client) -> Opening<Self::Message> {
        let request = v1::WatchDemandRequest { parent: self.parent.clone() };
        let mut agents = client.agents();
        async move { agents.watch_demand(request).await }.boxed()
    }

    fn take(&mut self, message: Self::Message, out: &mut VecDeque<Self::Message>) {
        out.push_back(message);
    }
}
