//! Watches: streams that outlive their connection. After a lost connection a watch resumes from its last position, and
//! its caller sees one stream. Before the first response, failures are returned after [`crate::Options::retry_for`];
//! after it, the watch retries until the server is back.

mod engine;
mod sources;
#[cfg(test)]
mod tests;

use std::pin::Pin;

use futures::Stream;
use rota_proto::v1;

use crate::{Client, Error};

/// Stream of a watch. It ends with what it watches, or after an error that retrying does not fix.
pub type Watch<T> = Pin<Box<dyn Stream<Item = Result<T, Error>> + Send>>;

impl Client {
    /// Watches a task: every log entry after the sequence number `after`, each once and in order, until the task ends.
    pub fn watch_task(&self, name: impl Into<String>, after: i64) -> Watch<v1::WatchTaskResponse> {
        engine::run(self.clone(), sources::Task::new(name.into(), after, false))
    }

    /// As [`Client::watch_task`], with parts of messages before they are complete. Parts may be missing, and messages never are.
    pub fn watch_task_streamed(&self, name: impl Into<String>, after: i64) -> Watch<v1::WatchTaskResponse> {
        engine::run(self.clone(), sources::Task::new(name.into(), after, true))
    }

    /// Watches all tasks of a namespace from a resume token on; an empty token starts now. Entries may repeat and are
    /// never skipped. After a response with `resync`, the caller must list the tasks again.
    pub fn watch_tasks(
        &self,
        parent: impl Into<String>,
        token: impl Into<String>,
        states_only: bool,
    ) -> Watch<v1::WatchTasksResponse> {
        engine::run(self.clone(), sources::Tasks::new(parent.into(), token.into(), states_only))
    }

    /// Watches a workflow: all of its steps, then their changes, until the workflow ends. After a lost connection, all steps follow
    /// again. The last message has the workflow alone, with its outputs. [`Client::watch_workflow`] is the single call: its stream ends
    /// with the connection, and takes what the request has, such as `without_steps`.
    pub fn follow_workflow(&self, name: impl Into<String>) -> Watch<v1::WatchWorkflowResponse> {
        engine::run(self.clone(), sources::Workflow::new(name.into()))
    }

    /// Watches the agents of a namespace: first each agent as it is, then every change. After a lost connection, all
    /// agents follow again, and those that were deleted meanwhile are reported as deleted.
    pub fn watch_agents(&self, parent: impl Into<String>) -> Watch<v1::WatchAgentsResponse> {
        engine::run(self.clone(), sources::Agents::new(parent.into()))
    }

    /// Watches the demand for workers of each agent. Every response is complete.
    pub fn watch_demand(&self, parent: impl Into<String>) -> Watch<v1::WatchDemandResponse> {
        let request = v1::WatchDemandRequest { parent: parent.into(), ..Default::default() };
        engine::run(self.clone(), sources::Demand::new(request))
    }

    /// Watches the demand for workers of each agent. Responses with `difference` change the last complete one; after a lost
    /// connection a complete one follows. One with `more` is continued by the next. They include why tasks wait.
    pub fn watch_demand_differences(&self, parent: impl Into<String>) -> Watch<v1::WatchDemandResponse> {
        let request = v1::WatchDemandRequest { parent: parent.into(), differences: true, waits: true };
        engine::run(self.clone(), sources::Demand::new(request))
    }
}
