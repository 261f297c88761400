//! `AgentService`.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use pbjson_types::Empty;
use rota_core::agent::Agent;
use rota_core::{AgentName, Namespace, Timestamp};
use rota_proto::v1::agent_service_server::AgentService;
use rota_proto::{names as n, v1};
use rota_store::{Command, PutAgent, Reply};
use rota_telemetry::{OnExit, redact, spawn};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::answers::{masked, page, worker_to_wire};
use super::{demand, pools};
use crate::dispatch::WorkerView;
use crate::sessions;
use crate::shared::{Shared, now};
use crate::wire::status::{error, invalid};
use crate::wire::{agent as wire, names};

pub(crate) struct Agents {
    pub(crate) shared: Arc<Shared>,
}

type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Agents {
    fn status(&self, namespace: &Namespace, name: &AgentName) -> v1::AgentStatus {
        let key = (namespace.clone(), name.clone());
        demand::status(demand::standing(&self.shared).get(&key), self.shared.pools.message(&key))
    }

    async fn put(
        &self,
        agent: Agent,
        must_exist: Option<bool>,
        only_check: bool,
    ) -> Result<v1::Agent, Status> {
        let (namespace, name) = (agent.namespace.clone(), agent.name.clone());
        // Structured fields have no one encoding: what is equal in meaning must not count as a change.
        if must_exist != Some(false)
            && let Some(known) = self.shared.agent(&namespace, &name)
            && wire::kept(&known.agent) == wire::kept(&agent)
        {
            return Ok(wire::to_wire(&known.agent, self.status(&namespace, &name)));
        }
        let command = Command::PutAgent(PutAgent { agent, must_exist });
        let reply = match only_check {
            true => self.shared.rehearse(command).await?,
            false => self.shared.apply(command).await?,
        };
        match reply {
            Reply::Agent(agent) => {
                self.shared.caught_up().await;
                Ok(wire::to_wire(&agent, self.status(&namespace, &name)))
            }
            _ => Err(Status::internal("the store gave another answer than was asked for")),
        }
    }

    pub(super) fn missing(name: &AgentName) -> Status {
        error("AGENT_NOT_FOUND", format!("there is no agent {name}"))
    }

    /// Agents and what they look like now.
    fn all(&self, namespace: Option<&Namespace>) -> BTreeMap<String, v1::Agent> {
        let standing = demand::standing(&self.shared);
        let agents = self.shared.agents.read();
        let ours = agents.iter().filter(|((at, _), _)| namespace.is_none_or(|namespace| at == namespace));
        ours.map(|(key, known)| {
            let status = demand::status(standing.get(key), self.shared.pools.message(key));
            let told = wire::to_wire(&known.agent, status);
            (told.name.clone(), told)
        })
        .collect()
    }

    /// What tells whether an agent has changed.
    fn versions(&self, namespace: Option<&Namespace>) -> BTreeMap<Key, Version> {
        let agents = self.shared.agents.read();
        let ours = agents.iter().filter(|((at, _), _)| namespace.is_none_or(|namespace| at == namespace));
        ours.map(|(key, known)| (key.clone(), (known.agent.generation, known.agent.created_at))).collect()
    }

    pub(super) fn workers(&self, namespace: Option<&Namespace>) -> Vec<WorkerView> {
        let mut workers = self.shared.fleet.workers();
        workers.retain(|worker| namespace.is_none_or(|namespace| worker.profile.namespace == *namespace));
        workers
    }
}

#[tonic::async_trait]
impl AgentService for Agents {
    type WatchAgentsStream = Boxed<v1::WatchAgentsResponse>;
    type WatchDemandStream = Boxed<v1::WatchDemandResponse>;

    async fn create_agent(
        &self,
        request: Request<v1::CreateAgentRequest>,
    ) -> Result<Response<v1::Agent>, Status> {
        let request = request.into_inner();
        let namespace = names::parent("parent", &request.parent)?;
        let name = names::agent_id("agent_id", &request.agent_id)?;
        let given = request.agent.ok_or_else(|| invalid("agent", "is required"))?;
        let agent = wire::check(namespace, name, given)?;
        let _one_at_a_time = self.shared.agent_changes.lock().await;
        self.put(agent, Some(false), request.validate_only).await.map(Response::new)
    }

    async fn get_agent(&self, request: Request<v1::GetAgentRequest>) -> Result<Response<v1::Agent>, Status> {
        let (namespace, name) = names::agent("name", &request.into_inner().name)?;
        let known = self.shared.agent(&namespace, &name).ok_or_else(|| Self::missing(&name))?;
        Ok(Response::new(wire::to_wire(&known.agent, self.status(&namespace, &name))))
    }

    async fn list_agents(
        &self,
        request: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        let request = request.into_inner();
        let namespace = names::parent_or_all("parent", &request.parent)?;
        let all = self.all(namespace.as_ref()).into_iter().collect();
        let (agents, next_page_token) = page(all, request.page_size, &request.page_token)?;
        Ok(Response::new(v1::ListAgentsResponse { agents, next_page_token }))
    }

    async fn update_agent(
        &self,
        request: Request<v1::UpdateAgentRequest>,
    ) -> Result<Response<v1::Agent>, Status> {
        let request = request.into_inner();
        let given = request.agent.ok_or_else(|| invalid("agent", "is required"))?;
        let (namespace, name) = names::agent("agent.name", &given.name)?;
        let paths = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
        // A mask reads before it writes: two that name different fields must not undo each other.
        let _one_at_a_time = self.shared.agent_changes.lock().await;
        let whole = match self.shared.agent(&namespace, &name) {
            Some(known) => masked(wire::kept(&known.agent), given, &paths)?,
            None if request.allow_missing => given,
            None => return Err(Self::missing(&name)),
        };
        let agent = wire::check(namespace, name, whole)?;
        let must_exist = (!request.allow_missing).then_some(true);
        self.put(agent, must_exist, request.validate_only).await.map(Response::new)
    }

    async fn delete_agent(
        &self,
        request: Request<v1::DeleteAgentRequest>,
    ) -> Result<Response<Empty>, Status> {
        let request = request.into_inner();
        let (namespace, name) = names::agent("name", &request.name)?;
        let _one_at_a_time = self.shared.agent_changes.lock().await;
        if self.shared.agent(&namespace, &name).is_none() {
            return if request.allow_missing {
                Ok(Response::new(Empty {}))
            } else {
                Err(Self::missing(&name))
            };
        }
        self.shared.apply(Command::DeleteAgent { namespace: namespace.clone(), name: name.clone() }).await?;
        self.shared.caught_up().await;
        self.drain(&namespace, &name, "", false, "its agent was deleted");
        Ok(Response::new(Empty {}))
    }

    async fn watch_agents(
        &self,
        request: Request<v1::WatchAgentsRequest>,
    ) -> Result<Response<Self::WatchAgentsStream>, Status> {
        let namespace = names::parent_or_all("parent", &request.into_inner().parent)?;
        let agents = Self { shared: Arc::clone(&self.shared) };
        Ok(Response::new(Box::pin(watch(agents, namespace))))
    }

    async fn drain_agent(
        &self,
        request: Request<v1::DrainAgentRequest>,
    ) -> Result<Response<v1::DrainAgentResponse>, Status> {
        let request = request.into_inner();
        let (namespace, name) = names::agent("name", &request.name)?;
        self.is_there(&namespace, &name, &request.worker)?;
        let workers =
            self.drain(&namespace, &name, &request.worker, request.only_idle, "it was asked to drain");
        Ok(Response::new(v1::DrainAgentResponse { workers }))
    }

    async fn watch_demand(
        &self,
        request: Request<v1::WatchDemandRequest>,
    ) -> Result<Response<Self::WatchDemandStream>, Status> {
        let namespace = names::parent_or_all("parent", &request.into_inner().parent)?;
        Ok(Response::new(Box::pin(demand::watch(&self.shared, namespace))))
    }

    async fn list_workers(
        &self,
        request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let request = request.into_inner();
        let namespace = names::parent_or_all("parent", &request.parent)?;
        let workers = self.workers(namespace.as_ref()).into_iter();
        let ours = workers
            .filter(|worker| request.agent.is_empty() || worker.profile.agent.as_str() == request.agent);
        let now = now();
        let named = ours.map(|worker| {
            let told = worker_to_wire(worker, now);
            (told.name.clone(), told)
        });
        let (workers, next_page_token) = page(named.collect(), request.page_size, &request.page_token)?;
        Ok(Response::new(v1::ListWorkersResponse { workers, next_page_token }))
    }

    async fn report_worker_death(
        &self,
        request: Request<v1::ReportWorkerDeathRequest>,
    ) -> Result<Response<v1::ReportWorkerDeathResponse>, Status> {
        let request = request.into_inner();
        let key = names::worker("name", &request.name)?;
        let told = self.shared.fleet.with_any(&key, |seat| {
            let same = request.instance.is_empty() || request.instance == seat.instance;
            same.then(|| (seat.worker(), seat.outgoing.take()))
        });
        let Some(Some((worker, outgoing))) = told else {
            return Ok(Response::new(v1::ReportWorkerDeathResponse { freed_tasks: 0 }));
        };
        if let Some(outgoing) = outgoing {
            outgoing.hang_up.cancel();
        }
        let mut what = crate::wire::failure::cut(request.message, 256);
        redact::own_text(&mut what);
        let message = format!("its worker's process has ended ({what})");
        let freed = sessions::lose(&self.shared, &key, worker.clone(), &message).await;
        if freed.is_err() {
            // The caller hears of it and says it again; should it not, the lease decides.
            let message = "its worker's process has ended";
            sessions::lose_after(&self.shared, &key, worker, self.shared.timing.reconnect_grace, message);
        }
        let freed = freed?;
        let freed_tasks = i32::try_from(freed).unwrap_or(i32::MAX);
        Ok(Response::new(v1::ReportWorkerDeathResponse { freed_tasks }))
    }

    async fn announce_workers(
        &self,
        request: Request<v1::AnnounceWorkersRequest>,
    ) -> Result<Response<v1::AnnounceWorkersResponse>, Status> {
        pools::announce(&self.shared, request.into_inner())?;
        Ok(Response::new(v1::AnnounceWorkersResponse {}))
    }

    async fn report_agent(
        &self,
        request: Request<v1::ReportAgentRequest>,
    ) -> Result<Response<v1::ReportAgentResponse>, Status> {
        pools::report(&self.shared, request.into_inner())?;
        Ok(Response::new(v1::ReportAgentResponse {}))
    }

    async fn list_capabilities(
        &self,
        request: Request<v1::ListCapabilitiesRequest>,
    ) -> Result<Response<v1::ListCapabilitiesResponse>, Status> {
        let namespace = names::parent("parent", &request.into_inner().parent)?;
        let mut words: BTreeMap<String, v1::Capability> = BTreeMap::new();
        let mut entry = |word: &str, change: &dyn Fn(&mut v1::Capability)| {
            let known = words.entry(word.to_owned()).or_default();
            word.clone_into(&mut known.capability);
            change(known);
        };
        for known in self.shared.agents.read().values().filter(|known| known.agent.namespace == namespace) {
            for word in &known.agent.capabilities {
                entry(word, &|known_word| known_word.agents.push(known.agent.name.to_string()));
            }
        }
        for worker in self.workers(Some(&namespace)).iter().filter(|worker| worker.connected) {
            for word in &worker.profile.capabilities {
                entry(word, &|known_word| {
                    known_word.workers += 1;
                    known_word.free_slots += i32::try_from(worker.free).unwrap_or(0);
                });
            }
        }
        Ok(Response::new(v1::ListCapabilitiesResponse { capabilities: words.into_values().collect() }))
    }
}

type Key = (Namespace, AgentName);
/// Differs also when an agent was removed and made anew in between.
type Version = (u64, Timestamp);

/// The agents now, then each change of an agent itself. Figures come with demand.
fn watch(
    agents: Agents,
    namespace: Option<Namespace>,
) -> ReceiverStream<Result<v1::WatchAgentsResponse, Status>> {
    use v1::watch_agents_response::Kind;
    let (outbox, stream) = mpsc::channel(64);
    spawn("watch-agents", OnExit::Done, async move {
        let mut changed = agents.shared.watchers.fleet();
        let mut known: BTreeMap<Key, Version> = BTreeMap::new();
        let mut synced = false;
        loop {
            changed.borrow_and_update();
            let now = agents.versions(namespace.as_ref());
            let mut news: Vec<_> = (known.keys().filter(|key| !now.contains_key(*key)))
                .map(|(at, name)| Kind::Deleted(n::agent(at.as_str(), name)))
                .collect();
            let fresh: Vec<_> =
                now.iter().filter(|(key, version)| known.get(*key) != Some(version)).collect();
            if !fresh.is_empty() {
                let standing = demand::standing(&agents.shared);
                for (key, _) in fresh {
                    let Some(known) = agents.shared.agent(&key.0, &key.1) else { continue };
                    let status = demand::status(standing.get(key), agents.shared.pools.message(key));
                    news.push(Kind::Agent(wire::to_wire(&known.agent, status)));
                }
            }
            known = now;
            if !std::mem::replace(&mut synced, true) {
                news.push(Kind::Synced(true));
            }
            for kind in news {
                if outbox.send(Ok(v1::WatchAgentsResponse { kind: Some(kind) })).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = outbox.closed() => return,
                () = agents.shared.stop.cancelled() => {
                    let _ = outbox.send(Err(error("STOPPING", "the control plane is stopping; watch again"))).await;
                    return;
                }
                _ = changed.changed() => {}
            }
        }
    });
    ReceiverStream::new(stream)
}
