//! What the control plane says that each pool has to do, as last heard, and whom it wakes.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use rota_crds::resource::Agent;
use rota_proto::{names, v1};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::context::Context;
use crate::controller::Guarded;

/// Demand by the agent's full name. Empty until it was heard for the first time.
#[derive(Debug, Default)]
pub(crate) struct Book(Mutex<Option<HashMap<String, Heard>>>);

/// What was heard of one agent.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Heard {
    pub demand: v1::Demand,
    /// Tasks that need, or have, a worker of their own.
    pub isolated: Vec<v1::IsolatedDemand>,
}

impl Book {
    /// What an agent has to do; `None` while nothing was heard at all, which is not the same as nothing to do.
    pub(crate) fn get(&self, agent: &str) -> Option<Heard> {
        let book = self.0.lock();
        Some(book.as_ref()?.get(agent).cloned().unwrap_or_default())
    }

    /// Takes in an answer; returns the agents for which it says something new.
    fn put(&self, answer: v1::WatchDemandResponse) -> Vec<String> {
        let mut new: HashMap<String, Heard> = HashMap::new();
        for demand in answer.demands {
            new.insert(demand.agent.clone(), Heard { demand, isolated: Vec::new() });
        }
        for one in answer.isolated {
            let Some((namespace, _)) = names::parse(&one.task, "tasks") else { continue };
            new.entry(names::agent(namespace, &one.agent)).or_default().isolated.push(one);
        }
        let mut book = self.0.lock();
        let old = book.take().unwrap_or_default();
        let changed = new.iter().filter(|(name, heard)| old.get(*name) != Some(*heard)).map(|(name, _)| name);
        let gone = old.keys().filter(|name| !new.contains_key(*name));
        let woken = changed.chain(gone).cloned().collect();
        *book = Some(new);
        woken
    }
}

/// Listens until `shutdown`.
pub(crate) async fn run(
    context: Context,
    book: Arc<Book>,
    woken: Vec<mpsc::Sender<ObjectRef<Guarded<Agent>>>>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let mut answers = context.control.watch_demand("namespaces/-");
    loop {
        let answer = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            answer = answers.next() => answer,
        };
        let answer = match answer {
            Some(Ok(answer)) => answer,
            Some(Err(error)) => return Err(error.into()),
            None => return Err(Error::Ended("the stream of demand")),
        };
        for name in book.put(answer) {
            let Some((namespace, agent)) = names::parse(&name, "agents") else { continue };
            if !context.watches(namespace) {
                continue;
            }
            // An agent that was made over the API alone is in no scope; waking it does nothing.
            for scope in &woken {
                let _ = scope.send(ObjectRef::new(agent).within(namespace)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(queued: i64) -> v1::WatchDemandResponse {
        let demand = v1::Demand { agent: "namespaces/a/agents/x".into(), queued, ..Default::default() };
        v1::WatchDemandResponse { demands: vec![demand], ..Default::default() }
    }

    #[test]
    fn only_what_changed_is_woken() {
        let book = Book::default();
        assert_eq!(book.get("namespaces/a/agents/x"), None);
        assert_eq!(book.put(answer(1)), ["namespaces/a/agents/x"]);
        assert_eq!(book.put(answer(1)), [""; 0]);
        assert_eq!(book.put(answer(2)).len(), 1);
        assert_eq!(book.get("namespaces/a/agents/x").unwrap().demand.queued, 2);
        assert_eq!(book.put(v1::WatchDemandResponse::default()).len(), 1, "it has nothing to do any more");
        assert_eq!(book.get("namespaces/a/agents/x"), Some(Heard::default()));
    }
}
