//! New work is refused while too many tasks wait: that of low priority first, that of high priority last. Accepted work is not.

use anyhow::{Context, Result, bail};
use rota_proto::v1::task_service_client::TaskServiceClient;
use rota_proto::v1::{self, SystemState};
use rota_server::{Limits, WorkLimits};
use rota_testkit::client::{hint_of, reason};
use rota_testkit::{Backend, Cluster, Setup, tasks};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

const NAMESPACE: &str = "namespaces/default";

struct Queue {
    cluster: Cluster,
    calls: TaskServiceClient<Channel>,
    asked: u32,
}

fn setup(work: WorkLimits) -> Setup {
    let limits = Limits { work, ..Limits::default() };
    Setup { limits, http: true, ..Setup::new(Backend::Sqlite) }
}

async fn calls(cluster: &Cluster) -> Result<TaskServiceClient<Channel>> {
    // Without retries: a refusal is an answer here.
    Ok(TaskServiceClient::connect(format!("http://{}", cluster.addr())).await?)
}

impl Queue {
    async fn with(work: WorkLimits) -> Result<Self> {
        let cluster = Cluster::start_with(setup(work)).await?;
        tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
        let calls = calls(&cluster).await?;
        Ok(Self { cluster, calls, asked: 0 })
    }

    /// Waits until earlier commits are counted.
    async fn settle(&mut self) -> Result<()> {
        self.asked += 1;
        let name = format!("other-{}", self.asked);
        tasks::agent(self.cluster.client(), &name, tasks::script([]), &[]).await.map(drop)
    }

    async fn create(&mut self, agent: &str, priority: i32) -> Result<Result<v1::Task, Status>> {
        let task = Some(v1::Task { priority: Some(priority), ..tasks::task(agent) });
        let request = v1::CreateTaskRequest { parent: NAMESPACE.to_owned(), task, ..Default::default() };
        let created = self.calls.create_task(request).await.map(Response::into_inner);
        self.settle().await?;
        Ok(created)
    }

    /// Creates tasks of a priority until one is refused. Returns those that were accepted.
    async fn fill(&mut self, agent: &str, priority: i32) -> Result<Vec<v1::Task>> {
        let mut accepted = Vec::new();
        while accepted.len() < 100 {
            match self.create(agent, priority).await? {
                Ok(task) => accepted.push(task),
                Err(refused) => {
                    assert_eq!(reason(&refused).as_deref(), Some("TOO_MANY_TASKS"), "{refused:?}");
                    assert_eq!(refused.code(), Code::Unavailable, "clients try again");
                    assert!(hint_of(&refused).is_some_and(|hint| hint.contains("max_waiting_tasks")));
                    return Ok(accepted);
                }
            }
        }
        bail!("all were accepted")
    }

    async fn cancel(&mut self, tasks: &[v1::Task]) -> Result<()> {
        for task in tasks {
            tasks::cancel(self.cluster.client(), &task.name).await?;
        }
        self.settle().await
    }

    /// Returns the state of the control plane, and the messages of causes with a code.
    async fn causes(&self, code: &str) -> Result<(SystemState, Vec<String>)> {
        let status = self.cluster.client().get_system_status(v1::GetSystemStatusRequest {}).await?;
        let state = status.state();
        let causes = status.causes.into_iter().filter(|cause| cause.code == code);
        Ok((state, causes.map(|cause| cause.message).collect()))
    }
}

#[tokio::test]
async fn low_priority_is_refused_first_and_high_last() -> Result<()> {
    let work = WorkLimits { waiting_tasks: 20, waiting_tasks_of_namespace: 0, memory: None };
    let mut queue = Queue::with(work).await?;
    // These wait for an agent, others for a worker.
    let low = queue.fill("missing", 2).await?;
    assert_eq!((low.len(), queue.fill("echo", 0).await?.len()), (16, 0));
    let (state, causes) = queue.causes("too_many_tasks").await?;
    assert_eq!((state, causes.len()), (SystemState::Degraded, 1), "{causes:?}");
    let normal = queue.fill("echo", 7).await?;
    let high = queue.fill("echo", 10).await?;
    assert_eq!((normal.len(), high.len()), (2, 2));
    let (state, causes) = queue.causes("too_many_tasks").await?;
    assert_eq!((state, causes.len()), (SystemState::Error, 1), "{causes:?}");
    assert!(causes[0].contains("20 tasks wait, of 20 that may"), "{causes:?}");
    // A check creates nothing.
    let check = v1::CreateTaskRequest {
        parent: NAMESPACE.to_owned(),
        task: Some(tasks::task("echo")),
        validate_only: true,
        ..Default::default()
    };
    queue.calls.create_task(check).await?;
    // The next attempt of a person is no new work.
    queue.cancel(&low[..1]).await?;
    let again = v1::RetryTaskRequest { name: low[0].name.clone(), ..Default::default() };
    queue.cluster.client().retry_task(again).await?;
    queue.settle().await?;
    assert_eq!(queue.fill("echo", 10).await?.len(), 0);

    queue.cluster.kill().await;
    queue.cluster.restart().await?;
    queue.calls = calls(&queue.cluster).await?;
    assert_eq!(queue.fill("echo", 10).await?.len(), 0, "the queue is as long as before");
    queue.cancel(&low[1..]).await?;
    queue.create("echo", 0).await?.context("the queue is shorter")?;
    assert!(queue.causes("too_many_tasks").await?.1.is_empty());
    Ok(())
}

#[tokio::test]
async fn full_namespace_leaves_room_to_others() -> Result<()> {
    let work = WorkLimits { waiting_tasks: 0, waiting_tasks_of_namespace: 10, memory: None };
    let mut queue = Queue::with(work).await?;
    assert_eq!(queue.fill("echo", 9).await?.len(), 10);
    let (state, causes) = queue.causes("too_many_tasks").await?;
    assert_eq!(state, SystemState::Degraded, "others have room");
    assert!(causes[0].contains("10 tasks of namespace default wait, of 10 that may"), "{causes:?}");
    let other = v1::CreateTaskRequest {
        parent: "namespaces/other".to_owned(),
        task: Some(v1::Task { priority: Some(0), ..tasks::task("echo") }),
        ..Default::default()
    };
    queue.calls.create_task(other).await?;
    Ok(())
}

#[tokio::test]
async fn short_memory_is_a_reason_of_its_own() -> Result<()> {
    let work = WorkLimits { memory: Some(1 << 20), ..WorkLimits::default() };
    let mut queue = Queue::with(work).await?;
    let refused = queue.create("echo", 10).await?.unwrap_err();
    assert_eq!(reason(&refused).as_deref(), Some("MEMORY_NEARLY_FULL"));
    let (state, causes) = queue.causes("memory").await?;
    assert_eq!((state, causes.len()), (SystemState::Error, 1), "{causes:?}");
    Ok(())
}
