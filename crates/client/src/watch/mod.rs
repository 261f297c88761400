//! Streams that go on where they were cut: the connection may come and go, the caller sees one
//! stream. Before the first answer a failure is told soon; after it, the stream is patient.

mod engine;
mod sources;
#[cfg(test)]
mod tests;

pub use sources::is_final;

use std::pin::Pin;

use futures::Stream;
use rota_proto::v1;

use crate::{Client, Error};

/// A watch: items until the end, or until something is wrong that waiting does not mend.
pub type Watch<T> = Pin<Box<dyn Stream<Item = Result<T, Error>> + Send>>;

impl Client {
    /// A task's log after a position, each entry once and in order, until the task has ended.
    pub fn watch_task(&self, name: impl Into<String>, after: i64) -> Watch<v1::WatchTaskResponse> {
        engine::run(self.clone(), sources::Task::new(name.into(), after))
    }

    /// The logs of all tasks of a namespace from a token on (empty: from now). May repeat, never skips.
    /// An answer with `resync` means: list the tasks anew.
    pub fn watch_tasks(
        &self,
        parent: impl Into<String>,
        token: impl Into<String>,
        states_only: bool,
    ) -> Watch<v1::WatchTasksResponse> {
        engine::run(self.clone(), sources::Tasks::new(parent.into(), token.into(), states_only))
    }

    /// The agents now, then each change. After a lost connection come the agents again; what was
    /// deleted meanwhile is told as deleted.
    pub fn watch_agents(&self, parent: impl Into<String>) -> Watch<v1::WatchAgentsResponse> {
        engine::run(self.clone(), sources::Agents::new(parent.into()))
    }

    /// What each agent's pool has to do; every answer is all of it.
    pub fn watch_demand(&self, parent: impl Into<String>) -> Watch<v1::WatchDemandResponse> {
        engine::run(self.clone(), sources::Demand::new(parent.into()))
    }
}
