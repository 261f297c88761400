//! `AgentService`.

use std::collections::BTreeMap;
use std::sync::Arc;

use pbjson_types::Empty;
use rota_core::agent::Agent;
use rota_core::spending;
use rota_core::task::Loss;
use rota_core::{AgentName, Namespace};
use rota_proto::num;
use rota_proto::v1;
use rota_proto::v1::agent_service_server::AgentService;
use rota_store::PutAgent;
use rota_telemetry::redact;
use tonic::{Code, Request, Response, Status};

use super::answers::{PERMISSION_RULES, masked, page, worker_to_wire};
use super::demand::DemandMessages;
use super::explain::Explainer;
use super::streams::{Boxed, Streams};
use super::{demand, pools, watch_agents};
use crate::agents::AgentRegistry;
use crate::barrier::Barriers;
use crate::clock::now;
use crate::creation::{Scope, managed};
use crate::demand::{Demand, PoolStatus};
use crate::keys::AgentKey;
use crate::sessions::{self, SessionDeps};
use crate::trust::roles::LimitedCall;
use crate::wire::status::{error, invalid};
use crate::wire::{agent as wire, budget, etag, names};

#[derive(Clone)]
pub(crate) struct Agents {
    pub(crate) agents: Arc<AgentRegistry>,
    pub(crate) demand: Demand,
    pub(crate) demand_messages: Arc<DemandMessages>,
    pub(crate) explainer: Explainer,
    /// Workers are drained, and sessions of dead workers expire.
    pub(crate) sessions: SessionDeps,
    pub(crate) barriers: Barriers,
    pub(crate) streams: Streams,
}

impl Agents {
    pub(super) fn to_wire(&self, key: &AgentKey, agent: &Agent, pool: Option<&PoolStatus>) -> v1::Agent {
        let mut status =
            demand::status(pool, self.agents.pools().message(key), &self.demand.breakers.cool_downs_of(key));
        status.breaker = self.demand.breakers.describe(key);
        [status.budget, status.namespace_budget] = self.budgets(key, agent);
        wire::to_wire(agent, status)
    }

    /// Returns what an agent has spent, and what its namespace has if that has a budget.
    fn budgets(&self, key: &AgentKey, agent: &Agent) -> [Option<v1::BudgetStatus>; 2] {
        let (namespace, accounts, now) = (key.0.clone(), self.agents.accounts(), now());
        let of_agent = (namespace.clone(), spending::Scope::Agent(key.1.clone()));
        let own = accounts.get(&of_agent);
        let own = own.or_else(|| (!agent.budget.is_empty()).then(|| accounts.get_or_new(&of_agent)));
        let all =
            accounts.get(&(namespace, spending::Scope::Namespace)).filter(|(all, _)| !all.budget.is_empty());
        [
            own.map(|(own, reserved)| budget::status(&own, &agent.budget, reserved, now)),
            all.map(|(all, reserved)| budget::status(&all, &all.budget, reserved, now)),
        ]
    }

    /// Returns an agent with the present status of its pool.
    async fn with_status(&self, key: &AgentKey, agent: &Agent) -> v1::Agent {
        self.to_wire(key, agent, self.demand.snapshot().await.pools.get(key))
    }

    async fn put(&self, agent: Agent, must_exist: Option<bool>, dry_run: bool) -> Result<v1::Agent, Status> {
        let key = (agent.namespace.clone(), agent.name.clone());
        // Structured fields have no unique encoding: what is equal in meaning must not count as a change.
        if must_exist != Some(false)
            && let Some(known) = self.agents.get(&key)
            && wire::stored(&known.agent) == wire::stored(&agent)
        {
            return Ok(self.with_status(&key, &known.agent).await);
        }
        let agent = self.sessions.store.put_agent(PutAgent { agent, must_exist }, dry_run).await?;
        self.barriers.flush().await;
        Ok(self.with_status(&key, &agent).await)
    }

    /// Fails if the caller has nothing to do with an agent, which does not exist for it.
    pub(super) fn check_scope(&self, scope: Scope, key: &AgentKey) -> Result<(), Status> {
        match self.agents.get(key) {
            Some(known) if !scope.contains_agent(&wire::stored(&known.agent).labels) => {
                Err(Self::missing(&key.1))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn missing(name: &AgentName) -> Status {
        error("AGENT_NOT_FOUND", format!("agent {name} does not exist"))
    }

    /// Returns agents with their present status, by name.
    async fn all(&self, namespace: Option<&Namespace>) -> BTreeMap<String, v1::Agent> {
        let snapshot = self.demand.snapshot().await;
        let agents = self.agents.list(namespace).0.into_iter();
        let named = agents.map(|(key, known)| {
            let agent = self.to_wire(&key, &known.agent, snapshot.pools.get(&key));
            (agent.name.clone(), agent)
        });
        named.collect()
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
        let _exclusive = self.agents.lock_changes().await;
        self.put(agent, Some(false), request.validate_only).await.map(Response::new)
    }

    async fn get_agent(&self, request: Request<v1::GetAgentRequest>) -> Result<Response<v1::Agent>, Status> {
        let key = names::agent("name", &request.into_inner().name)?;
        let known = self.agents.get(&key).ok_or_else(|| Self::missing(&key.1))?;
        Ok(Response::new(self.with_status(&key, &known.agent).await))
    }

    async fn list_agents(
        &self,
        request: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        let scope = Scope::of(&request);
        let request = request.into_inner();
        let namespace = names::parent_or_all("parent", &request.parent)?;
        let all = self.all(namespace.as_ref()).await.into_iter();
        let labelled = |agent: &v1::Agent| {
            request.labels.iter().all(|(key, value)| agent.labels.get(key) == Some(value))
        };
        let all = all.filter(|(_, agent)| scope.contains_agent(&agent.labels) && labelled(agent)).collect();
        let (agents, next_page_token) = page(all, request.page_size, &request.page_token)?;
        Ok(Response::new(v1::ListAgentsResponse { agents, next_page_token }))
    }

    async fn update_agent(
        &self,
        request: Request<v1::UpdateAgentRequest>,
    ) -> Result<Response<v1::Agent>, Status> {
        let scope = Scope::of(&request);
        let request = request.into_inner();
        let given = request.agent.ok_or_else(|| invalid("agent", "is required"))?;
        let (namespace, name) = names::agent("agent.name", &given.name)?;
        let paths = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
        // A mask reads before it writes: two that name different fields must not undo each other.
        let _exclusive = self.agents.lock_changes().await;
        let known = self.agents.get(&(namespace.clone(), name.clone()));
        etag::check(&request.etag, known.as_ref().map(|known| etag::of_agent(&known.agent)).as_deref())?;
        let known = known.map(|known| wire::stored(&known.agent));
        if let Some(known) = &known {
            scope.check_agent(&name, &known.labels)?;
            // Its resource does not state them.
            let stated = paths.is_empty() || paths.iter().any(|path| path != PERMISSION_RULES);
            let labels = if stated { &given.labels } else { &known.labels };
            managed::check(&known.labels, labels, &format!("agent {name}"), || {
                format!(
                    "change the resource: kubectl -n {namespace} edit agent {name}; if its cluster no longer exists, \
                     delete the agent first"
                )
            })?;
        }
        let whole = match known {
            Some(known) => masked(known, given, &paths)?,
            None if request.allow_missing => {
                scope.check_new(&given.labels)?;
                given
            }
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
        let scope = Scope::of(&request);
        let request = request.into_inner();
        let key = names::agent("name", &request.name)?;
        let _exclusive = self.agents.lock_changes().await;
        match self.check_scope(scope, &key) {
            Err(_) if request.allow_missing => return Ok(Response::new(Empty {})),
            checked => checked?,
        }
        let current = self.agents.get(&key).map(|known| etag::of_agent(&known.agent));
        etag::check(&request.etag, current.as_deref())?;
        if let Some(known) = self.agents.get(&key).filter(|_| !request.force) {
            let known = wire::stored(&known.agent);
            managed::check(&known.labels, &BTreeMap::new(), &format!("agent {}", key.1), || {
                format!("delete the resource: kubectl -n {} delete agent {}", key.0, key.1)
            })?;
        }
        match self.sessions.store.delete_agent(&key).await {
            Err(missing) if request.allow_missing && missing.code() == Code::NotFound => {
                return Ok(Response::new(Empty {}));
            }
            deleted => deleted?,
        }
        self.barriers.flush().await;
        self.drain(&key.0, &key.1, "", false, "the agent was deleted").await?;
        Ok(Response::new(Empty {}))
    }

    async fn watch_agents(
        &self,
        request: Request<v1::WatchAgentsRequest>,
    ) -> Result<Response<Self::WatchAgentsStream>, Status> {
        let namespace = names::parent_or_all("parent", &request.into_inner().parent)?;
        Ok(Response::new(Box::pin(watch_agents::watch(self.clone(), namespace))))
    }

    async fn drain_agent(
        &self,
        request: Request<v1::DrainAgentRequest>,
    ) -> Result<Response<v1::DrainAgentResponse>, Status> {
        let scope = Scope::of(&request);
        let request = request.into_inner();
        let (namespace, name) = names::agent("name", &request.name)?;
        self.check_scope(scope, &(namespace.clone(), name.clone()))?;
        self.check_exists(&namespace, &name, &request.worker).await?;
        let workers = self
            .drain(&namespace, &name, &request.worker, request.only_idle, "a drain was requested")
            .await?;
        Ok(Response::new(v1::DrainAgentResponse { workers }))
    }

    async fn watch_demand(
        &self,
        request: Request<v1::WatchDemandRequest>,
    ) -> Result<Response<Self::WatchDemandStream>, Status> {
        // They are computed for each watcher.
        let may_ask_why = request.extensions().get::<LimitedCall>().is_none();
        let request = request.into_inner();
        let namespace = names::parent_or_all("parent", &request.parent)?;
        Ok(Response::new(Box::pin(demand::watch(
            &self.sessions.store,
            &self.demand,
            &self.demand_messages,
            &self.streams,
            namespace,
            request.differences,
            (request.waits && may_ask_why).then(|| self.explainer.clone()),
        ))))
    }

    async fn list_workers(
        &self,
        request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let request = request.into_inner();
        let namespace = names::parent_or_all("parent", &request.parent)?;
        let snapshot = self.demand.snapshot().await;
        let ours = (snapshot.workers(namespace.as_ref()))
            .filter(|worker| request.agent.is_empty() || worker.profile.agent.as_str() == request.agent);
        let now = now();
        let named = ours.map(|worker| {
            let profile = &worker.profile;
            let key = (profile.namespace.clone(), profile.worker.clone());
            let worker = v1::Worker {
                breaker: self.demand.breakers.describe_worker(&key),
                ..worker_to_wire(worker, now)
            };
            (worker.name.clone(), worker)
        });
        let (workers, next_page_token) = page(named.collect(), request.page_size, &request.page_token)?;
        Ok(Response::new(v1::ListWorkersResponse { workers, next_page_token }))
    }

    async fn report_worker_death(
        &self,
        request: Request<v1::ReportWorkerDeathRequest>,
    ) -> Result<Response<v1::ReportWorkerDeathResponse>, Status> {
        let scope = Scope::of(&request);
        let request = request.into_inner();
        let key = names::worker("name", &request.name)?;
        if let Some(agent) = self.sessions.scheduler.agent_of(&key.0, &key.1) {
            self.check_scope(scope, &(key.0.clone(), agent))?;
        }
        let found = self.sessions.scheduler.update_any(&key, |entry| {
            let same = request.instance.is_empty() || request.instance == entry.instance;
            same.then(|| (entry.worker_ref(), entry.session.take()))
        });
        let Some(Some((worker, session))) = found else {
            return Ok(Response::new(v1::ReportWorkerDeathResponse { freed_tasks: 0 }));
        };
        if let Some(session) = session {
            session.close();
        }
        let mut what = crate::wire::failure::cut(request.message, 256);
        redact::text(&mut what);
        let message = format!("the worker's process has exited ({what})");
        let loss = match (request.node_pressure, request.disrupted) {
            (true, _) => Loss::Unclear,
            (false, true) => Loss::Planned,
            (false, false) => Loss::Died,
        };
        let freed = sessions::expire_session(&self.sessions, &key, worker.clone(), loss, &message).await;
        if freed.is_err() {
            // The caller gets the error and retries; if it does not, the lease expires the session.
            let message = "the worker's process has exited";
            let grace = self.sessions.timing.reconnect_grace;
            sessions::expire_session_after(&self.sessions, &key, worker, grace, loss, message);
        }
        let freed = freed?;
        let freed_tasks = num::to_i32(freed);
        Ok(Response::new(v1::ReportWorkerDeathResponse { freed_tasks }))
    }

    async fn announce_workers(
        &self,
        request: Request<v1::AnnounceWorkersRequest>,
    ) -> Result<Response<v1::AnnounceWorkersResponse>, Status> {
        self.check_scope(Scope::of(&request), &names::agent("name", &request.get_ref().name)?)?;
        pools::announce(&self.sessions, &self.agents, request.into_inner()).await?;
        Ok(Response::new(v1::AnnounceWorkersResponse {}))
    }

    async fn report_agent(
        &self,
        request: Request<v1::ReportAgentRequest>,
    ) -> Result<Response<v1::ReportAgentResponse>, Status> {
        self.check_scope(Scope::of(&request), &names::agent("name", &request.get_ref().name)?)?;
        pools::report(&self.agents, request.into_inner())?;
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
        for (_, known) in self.agents.list(Some(&namespace)).0 {
            for word in &known.agent.capabilities {
                entry(word, &|known_word| known_word.agents.push(known.agent.name.to_string()));
            }
        }
        let snapshot = self.demand.snapshot().await;
        for worker in snapshot.workers(Some(&namespace)).filter(|worker| worker.connected) {
            for word in worker.profile.capabilities.iter() {
                entry(word, &|known_word| {
                    known_word.workers += 1;
                    known_word.free_slots += i32::try_from(worker.free).unwrap_or(0);
                });
            }
        }
        Ok(Response::new(v1::ListCapabilitiesResponse { capabilities: words.into_values().collect() }))
    }
}
