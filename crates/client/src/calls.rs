//! The unary calls, typed. Each is repeated when no server answered, if repeating it is safe:
//! for that a creation gets its id here when the caller gave neither id nor idempotency key. Creations
//! say whose trace they are a part of.

use rota_proto::v1;

use crate::{Client, Error};

macro_rules! calls {
    ($($(#[$note:meta])* $how:ident $service:ident.$name:ident($request:ident) -> $answer:ty;)+) => {
        impl Client {
            $($(#[$note])*
            pub async fn $name(&self, request: v1::$request) -> Result<$answer, Error> {
                calls!(@$how self, $service, $name, request)
            })+
        }
    };
    (@repeat $client:ident, $service:ident, $name:ident, $request:ident) => {
        $client.repeat(|| {
            let (mut service, request) = ($client.$service(), $request.clone());
            async move { service.$name(request).await }
        }).await
    };
    (@once $client:ident, $service:ident, $name:ident, $request:ident) => {
        $client.once($client.$service().$name($request)).await
    };
    (@keyed $client:ident, $service:ident, $name:ident, $request:ident) => {{
        let mut keyed = $request;
        Keyed::add_key(&mut keyed);
        let creation = $client.creation(Keyed::method(&keyed));
        let answer = $client.repeat(|| {
            let (mut service, request) = ($client.$service(), creation.request(keyed.clone()));
            async move { service.$name(request).await }
        }).await;
        creation.ended(&answer);
        answer
    }};
}

calls! {
    /// Makes a task. The answer means that it is durable.
    keyed tasks.create_task(CreateTaskRequest) -> v1::Task;
    /// Makes many; each is answered by itself.
    keyed tasks.batch_create_tasks(BatchCreateTasksRequest) -> v1::BatchCreateTasksResponse;
    /// Makes a new task like one that has ended.
    keyed tasks.retry_task(RetryTaskRequest) -> v1::Task;
    /// One task.
    repeat tasks.get_task(GetTaskRequest) -> v1::Task;
    /// Tasks, newest first.
    repeat tasks.list_tasks(ListTasksRequest) -> v1::ListTasksResponse;
    /// Changes priority, labels or desired state.
    repeat tasks.update_task(UpdateTaskRequest) -> v1::Task;
    /// Asks for a task's end.
    repeat tasks.cancel_task(CancelTaskRequest) -> v1::Task;
    /// Why a task is not running now.
    repeat tasks.explain_task(ExplainTaskRequest) -> v1::ExplainTaskResponse;
    /// Gives input to a running task. Not repeated: an agent would read it twice.
    once tasks.send_task_input(SendTaskInputRequest) -> v1::SendTaskInputResponse;
    /// Makes an agent. Not repeated: the second time it would exist; `update_agent` can make it too.
    once agents.create_agent(CreateAgentRequest) -> v1::Agent;
    /// One agent.
    repeat agents.get_agent(GetAgentRequest) -> v1::Agent;
    /// The agents of a namespace, by name.
    repeat agents.list_agents(ListAgentsRequest) -> v1::ListAgentsResponse;
    /// Changes an agent.
    repeat agents.update_agent(UpdateAgentRequest) -> v1::Agent;
    /// Removes an agent. Not repeated: the second time it would be gone.
    once agents.delete_agent(DeleteAgentRequest) -> pbjson_types::Empty;
    /// Lets an agent's workers finish and take nothing new.
    repeat agents.drain_agent(DrainAgentRequest) -> v1::DrainAgentResponse;
    /// The workers that are connected, or were and still hold tasks.
    repeat agents.list_workers(ListWorkersRequest) -> v1::ListWorkersResponse;
    /// Tells that a worker's process has certainly ended.
    repeat agents.report_worker_death(ReportWorkerDeathRequest) -> v1::ReportWorkerDeathResponse;
    /// Says which workers may join for an agent.
    repeat agents.announce_workers(AnnounceWorkersRequest) -> v1::AnnounceWorkersResponse;
    /// Says how an agent's pool fares.
    repeat agents.report_agent(ReportAgentRequest) -> v1::ReportAgentResponse;
    /// What can be done now.
    repeat agents.list_capabilities(ListCapabilitiesRequest) -> v1::ListCapabilitiesResponse;
    /// How the control plane fares. Not repeated: whoever asks wants to know how it is now.
    once admin.get_system_status(GetSystemStatusRequest) -> v1::SystemStatus;
    /// The loops that go on in the background.
    once admin.list_loops(ListLoopsRequest) -> v1::ListLoopsResponse;
    /// What is logged now.
    once admin.get_log_filter(GetLogFilterRequest) -> v1::LogFilter;
    /// Changes what is logged.
    repeat admin.set_log_filter(SetLogFilterRequest) -> v1::LogFilter;
}

/// A request that is safe to repeat once it names what it makes.
trait Keyed {
    fn add_key(&mut self);

    /// Which call it is for.
    fn method(&self) -> &'static str;
}

impl Keyed for v1::CreateTaskRequest {
    // An id of the caller's does what a key does, and leaves nothing behind that outlives the task.
    fn add_key(&mut self) {
        if self.idempotency_key.is_empty() && self.task_id.is_empty() {
            self.task_id = uuid::Uuid::now_v7().to_string();
        }
    }

    fn method(&self) -> &'static str {
        "rota.v1.TaskService/CreateTask"
    }
}

impl Keyed for v1::RetryTaskRequest {
    fn add_key(&mut self) {
        if self.idempotency_key.is_empty() {
            self.idempotency_key = format!("client:{}", uuid::Uuid::new_v4());
        }
    }

    fn method(&self) -> &'static str {
        "rota.v1.TaskService/RetryTask"
    }
}

impl Keyed for v1::BatchCreateTasksRequest {
    fn add_key(&mut self) {
        self.requests.iter_mut().for_each(Keyed::add_key);
    }

    fn method(&self) -> &'static str {
        "rota.v1.TaskService/BatchCreateTasks"
    }
}

/// Goes through all pages of a list.
impl Client {
    /// Tasks that fit, newest first, at most `limit`.
    pub async fn all_tasks(
        &self,
        mut request: v1::ListTasksRequest,
        limit: Option<usize>,
    ) -> Result<Vec<v1::Task>, Error> {
        let mut all = Vec::new();
        loop {
            let wanted = limit.map_or(1000, |limit| (limit - all.len()).min(1000));
            if wanted == 0 {
                return Ok(all);
            }
            request.page_size = i32::try_from(wanted).unwrap_or(1000);
            let page = self.list_tasks(request.clone()).await?;
            all.extend(page.tasks);
            all.truncate(limit.unwrap_or(usize::MAX));
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// All agents of a namespace (`namespaces/-` for all).
    pub async fn all_agents(&self, parent: &str) -> Result<Vec<v1::Agent>, Error> {
        let mut all = Vec::new();
        let mut request =
            v1::ListAgentsRequest { parent: parent.into(), page_size: 1000, ..Default::default() };
        loop {
            let page = self.list_agents(request.clone()).await?;
            all.extend(page.agents);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// All workers of a namespace, or of one agent of it.
    pub async fn all_workers(&self, parent: &str, agent: &str) -> Result<Vec<v1::Worker>, Error> {
        let mut all = Vec::new();
        let mut request = v1::ListWorkersRequest {
            parent: parent.into(),
            agent: agent.into(),
            page_size: 1000,
            ..Default::default()
        };
        loop {
            let page = self.list_workers(request.clone()).await?;
            all.extend(page.workers);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            request.page_token = page.next_page_token;
        }
    }
}
