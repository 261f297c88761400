//! Sizes and numbers of what callers send, as `docs/limits.md` lists them.

use anyhow::Result;
use rota_proto::v1::{self, runtime};
use rota_proto::{names, v1::artifact_service_client::ArtifactServiceClient};
use rota_testkit::client::{Code, Error, reason};
use rota_testkit::{Backend, Cluster, tasks};

const PARENT: &str = "namespaces/default";
const ECHO: &str = "namespaces/default/agents/echo";
const HOURLY: &str = "namespaces/default/schedules/hourly";

fn text(bytes: usize) -> String {
    "x".repeat(bytes)
}

fn spec(task: &mut v1::Task) -> &mut v1::TaskSpec {
    task.spec.get_or_insert_default()
}

fn prompted(bytes: usize) -> v1::Task {
    let mut task = tasks::task("echo");
    spec(&mut task).prompt = text(bytes);
    task
}

/// Returns the field that a refusal names.
fn field<T: std::fmt::Debug>(answer: Result<T, Error>) -> String {
    let refused = answer.unwrap_err();
    refused.fields.first().map_or_else(|| format!("{refused:?}"), |field| field.field.clone())
}

async fn create(cluster: &Cluster, task: v1::Task) -> Result<v1::Task, Error> {
    let request = v1::CreateTaskRequest { parent: PARENT.into(), task: Some(task), ..Default::default() };
    Box::pin(cluster.client().create_task(request)).await
}

async fn schedule(cluster: &Cluster, name: &str, spec: v1::ScheduleSpec) -> Result<v1::Schedule, Error> {
    let schedule = v1::Schedule { name: name.into(), spec: Some(spec), ..Default::default() };
    let request =
        v1::UpdateScheduleRequest { schedule: Some(schedule), allow_missing: true, ..Default::default() };
    Box::pin(cluster.client().update_schedule(request)).await
}

fn hourly(task: v1::Task) -> v1::ScheduleSpec {
    v1::ScheduleSpec { cron: "0 * * * *".into(), task: Some(task), ..Default::default() }
}

async fn agent(cluster: &Cluster, spec: v1::AgentSpec) -> Result<v1::Agent, Error> {
    let agent = v1::Agent { name: ECHO.into(), spec: Some(spec), ..Default::default() };
    let request = v1::UpdateAgentRequest { agent: Some(agent), allow_missing: true, ..Default::default() };
    cluster.client().update_agent(request).await
}

#[tokio::test]
async fn large_requests_are_refused() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let description = text(5 << 20);
    let filter = v1::SetLogFilterRequest { filter: text(5 << 20) };
    for (service, code) in [
        ("tasks", create(&cluster, prompted(9 << 20)).await.map(drop)),
        ("schedules", schedule(&cluster, HOURLY, hourly(prompted(9 << 20))).await.map(drop)),
        ("agents", agent(&cluster, v1::AgentSpec { description, ..Default::default() }).await.map(drop)),
        ("admin", cluster.client().set_log_filter(filter).await.map(drop)),
    ] {
        assert_eq!(code.unwrap_err().code, Code::OutOfRange, "{service}");
    }
    // Below that, a field is refused.
    assert_eq!(field(create(&cluster, prompted(7 << 20)).await), "task.spec.prompt");
    Ok(())
}

/// An empty element has two bytes, and thousands once it is decoded.
#[tokio::test]
async fn elements_of_a_call_are_limited() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let create = async |count| {
        let requests = vec![v1::CreateTaskRequest::default(); count];
        let batch = v1::BatchCreateTasksRequest { parent: PARENT.into(), requests, ..Default::default() };
        cluster.client().batch_create_tasks(batch).await
    };
    let refused = create(200_000).await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("MESSAGE_TOO_LARGE"), "{refused}");
    // Fewer are decoded, and refused by their number.
    assert_eq!(field(create(1001).await), "requests");
    Ok(())
}

#[tokio::test]
async fn programs_and_variables_are_limited() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let program = |argv: Vec<String>| {
        let command = v1::CommandRuntime { argv, ..Default::default() };
        Some(v1::Runtime { kind: Some(runtime::Kind::Command(command)) })
    };
    for (argv, at) in [
        (vec![String::new(); 4097], "argv"),
        (vec![text((96 << 10) + 1)], "argv[0]"),
        (vec![text(90 << 10); 6], "argv"),
    ] {
        let mut task = tasks::task("echo");
        spec(&mut task).runtime = program(argv.clone());
        assert_eq!(field(create(&cluster, task).await), format!("task.spec.runtime.command.{at}"));
        let refused = agent(&cluster, v1::AgentSpec { runtime: program(argv), ..Default::default() }).await;
        assert_eq!(field(refused), format!("agent.spec.runtime.command.{at}"));
    }
    let variables = || (0..9).map(|number| (format!("V{number}"), text(32 << 10))).collect();
    let mut task = tasks::task("echo");
    spec(&mut task).environment = variables();
    assert_eq!(field(create(&cluster, task).await), "task.spec.environment");
    let mut task = tasks::task("echo");
    spec(&mut task).secrets = variables();
    assert_eq!(field(create(&cluster, task).await), "task.spec.secrets");
    let runtime = Some(tasks::script([]));
    let refused = agent(&cluster, v1::AgentSpec { runtime, environment: variables(), ..Default::default() });
    assert_eq!(field(refused.await), "agent.spec.environment");
    Ok(())
}

#[tokio::test]
async fn text_of_an_input_is_limited() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let name = tasks::create(cluster.client(), tasks::task("echo")).await?.name;
    let send = async |bytes| {
        let input = Some(v1::TaskInput { text: text(bytes), ..Default::default() });
        cluster.client().send_task_input(v1::SendTaskInputRequest { name: name.clone(), input }).await
    };
    assert_eq!(field(send((64 << 10) + 1).await), "input.text");
    // It is refused for another reason: the task does not run.
    assert_ne!(send(64 << 10).await.unwrap_err().code, Code::InvalidArgument);
    Ok(())
}

#[tokio::test]
async fn schedules_are_limited() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let mut large = prompted(1 << 20);
    let fields = [("text".to_owned(), text((1 << 20) - 1024).into())].into();
    spec(&mut large).input = Some(pbjson_types::Struct { fields });
    spec(&mut large).environment = [("V".to_owned(), text(32 << 10))].into();
    assert_eq!(field(schedule(&cluster, HOURLY, hourly(large)).await), "schedule");
    let cron = format!("{} * * * *", "0,".repeat(130));
    let long = v1::ScheduleSpec { cron, ..hourly(tasks::task("echo")) };
    assert_eq!(field(schedule(&cluster, HOURLY, long).await), "schedule.spec.cron");

    for number in 0..1000 {
        let name = format!("{PARENT}/schedules/s{number}");
        schedule(&cluster, &name, hourly(tasks::task("echo"))).await?;
    }
    let refused = schedule(&cluster, HOURLY, hourly(tasks::task("echo"))).await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("LIMIT_REACHED"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn unfinished_runs_of_a_schedule_are_limited() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let concurrency = v1::ScheduleConcurrency::Allow.into();
    schedule(&cluster, HOURLY, v1::ScheduleSpec { concurrency, ..hourly(tasks::task("echo")) }).await?;
    let run = || {
        let request = v1::RunScheduleRequest { name: HOURLY.into(), ..Default::default() };
        cluster.client().run_schedule(request)
    };
    for _ in 0..100 {
        run().await?;
    }
    let refused = run().await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("SCHEDULE_ACTIVE"), "{refused}");
    assert!(refused.message.contains("100 runs have not ended"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn steps_of_a_workflow_are_limited() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let steps =
        (0..10_001).map(|number| v1::WorkflowStep { name: format!("s{number}"), ..Default::default() });
    let spec = Some(v1::WorkflowSpec { steps: steps.collect(), ..Default::default() });
    let workflow = Some(v1::Workflow { spec, ..Default::default() });
    let request = v1::CreateWorkflowRequest { parent: PARENT.into(), workflow, ..Default::default() };
    assert_eq!(field(cluster.client().create_workflow(request).await), "workflow.spec.steps");
    Ok(())
}

#[tokio::test]
async fn reports_of_start_failures_are_limited() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let report = async |bytes, count| {
        let failure = |number| v1::IsolatedStartFailure {
            task: uuid::Uuid::from_u128(number).to_string(),
            message: text(bytes),
        };
        let isolated = (0..count).map(failure).collect();
        let request = v1::ReportAgentRequest { name: ECHO.into(), message: text(bytes), isolated };
        cluster.client().report_agent(request).await
    };
    report(1024, 100).await?;
    assert_eq!(field(report(1025, 0).await), "message");
    assert_eq!(field(report(0, 101).await), "isolated");
    Ok(())
}

#[tokio::test]
async fn one_backup_is_made_at_a_time() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    // More than the buffers on the way of a caller that reads nothing.
    for _ in 0..16 {
        create(&cluster, prompted(1 << 20)).await?;
    }
    let mut admin = cluster.client().admin();
    let first = admin.backup(v1::BackupRequest {}).await?;
    let refused = admin.backup(v1::BackupRequest {}).await.unwrap_err();
    assert_eq!(reason(&refused).as_deref(), Some("LIMIT_REACHED"), "{refused}");
    drop(first);
    tasks::eventually("another backup", async || {
        Ok(cluster.client().backup(v1::BackupRequest {}).await.is_ok())
    })
    .await
}

#[tokio::test]
async fn parts_of_a_call_are_limited() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let mut artifacts: ArtifactServiceClient<_> = cluster.client().artifact_service();
    let digests = |count| vec![vec![0; 32]; count];
    let parent = || names::namespace("default");
    let look_up = |count| v1::FindMissingPartsRequest {
        parent: parent(),
        digests: digests(count),
        ..Default::default()
    };
    assert_eq!(artifacts.find_missing_parts(look_up(8192)).await?.into_inner().digests.len(), 1);
    let refused = artifacts.find_missing_parts(look_up(8193)).await.unwrap_err();
    assert_eq!(reason(&refused).as_deref(), Some("INVALID_FIELD"), "{refused}");
    let request = v1::DownloadPartsRequest { parent: parent(), digests: digests(65_537) };
    let refused = artifacts.download_parts(request).await.unwrap_err();
    assert_eq!(reason(&refused).as_deref(), Some("INVALID_FIELD"), "{refused}");
    let part = v1::UploadPartsRequest { parent: parent(), data: vec![0; (1 << 20) + 1].into() };
    let refused = artifacts.upload_parts(tokio_stream::iter([part])).await.unwrap_err();
    assert_eq!(reason(&refused).as_deref(), Some("INVALID_FIELD"), "{refused}");
    Ok(())
}
