//! Whole traces as a collector receives them, from the caller's span down.

use std::sync::OnceLock;

use anyhow::Result;
use rota_proto::v1::{self, TaskState, script_step::Kind as Step};
use rota_telemetry::trace::hex;
use rota_telemetry::{export, otlp, traces};
use rota_testkit::client::Client;
use rota_testkit::collector::{self, Collector};
use rota_testkit::{Backend, Cluster, tasks};

/// The exporter is global to the process, so all tests share a collector. Each inspects a trace of its own.
pub(crate) fn shared_collector() -> &'static Collector {
    static COLLECTOR: OnceLock<Collector> = OnceLock::new();
    COLLECTOR.get_or_init(|| {
        let collector = Collector::start().unwrap();
        export::init(&otlp::Settings::for_endpoint("rota-test", &collector.endpoint(), otlp::Protocol::Grpc))
            .unwrap();
        collector
    })
}

/// A caller with a position in a trace.
pub(crate) struct Caller {
    pub(crate) trace: String,
    pub(crate) span: String,
}

impl Caller {
    pub(crate) fn new() -> Self {
        Self { trace: hex(uuid::Uuid::new_v4().as_bytes()), span: hex(&traces::span_id()) }
    }

    pub(crate) async fn create(&self, cluster: &Cluster, task: v1::Task) -> Result<v1::Task> {
        let parent = rota_proto::names::namespace(tasks::NAMESPACE);
        let request = v1::CreateTaskRequest { parent, task: Some(task), ..Default::default() };
        Ok(self.client(cluster).create_task(request).await?)
    }

    fn client(&self, cluster: &Cluster) -> Client {
        cluster.client().in_trace(Some(&format!("00-{}-{}-01", self.trace, self.span)), None)
    }

    pub(crate) async fn spans(&self, count: usize) -> Result<Vec<collector::ReceivedSpan>> {
        tokio::task::spawn_blocking(|| export::flush(export::FLUSH_TIMEOUT)).await?;
        shared_collector().trace(&self.trace, count).await
    }

    async fn tree(&self, count: usize) -> Result<String> {
        collector::tree(&self.spans(count).await?, &self.span)
    }
}

/// The spans above a task: the call, as seen by its client and by the server.
pub(crate) fn creation_tree(below: &str) -> String {
    let mut tree =
        "client rota.v1.TaskService/CreateTask\n  server rota.v1.TaskService/CreateTask".to_owned();
    below.lines().for_each(|line| tree.push_str(&format!("\n    {line}")));
    tree
}

async fn start_cluster(runtime: v1::Runtime) -> Result<(Cluster, rota_testkit::WorkerHandle)> {
    shared_collector();
    let cluster = Cluster::start(Backend::Memory).await?;
    tasks::agent(cluster.client(), "echo", runtime, &[]).await?;
    let worker = cluster.worker("echo", "one", 2)?;
    Ok((cluster, worker))
}

#[tokio::test]
async fn succeeded_task_has_complete_trace() -> Result<()> {
    let (cluster, _worker) = start_cluster(tasks::script([])).await?;
    let caller = Caller::new();
    let used = v1::ScriptUsage { input_tokens: 7, output_tokens: 5, cost_micro_usd: 1 };
    let task = tasks::scripted("echo", [Step::Usage(used), Step::Succeed("done".into())]);
    let task = caller.create(&cluster, task).await?;
    tasks::ended(cluster.client(), &task.name).await?;
    assert_eq!(caller.tree(5).await?, creation_tree("task succeeded\n  queue\n  attempt 1 succeeded"));
    let spans = caller.spans(5).await?;
    let attempt = collector::named(&spans, "attempt")?;
    assert_eq!(attempt.attributes["rota.worker"], "one");
    assert_eq!(attempt.attributes["rota.agent"], "echo");
    assert_eq!(attempt.attributes["gen_ai.usage.input_tokens"], "7");
    assert!(task.name.ends_with(&attempt.attributes["rota.task.id"]));
    Ok(())
}

#[tokio::test]
async fn retried_task_has_span_per_attempt() -> Result<()> {
    let (cluster, _worker) = start_cluster(tasks::script([])).await?;
    let caller = Caller::new();
    let fails = v1::ScriptFailure { message: "no".to_owned(), attempts: 1, ..Default::default() };
    let mut task = tasks::scripted("echo", [Step::Fail(fails)]);
    let retry = v1::RetryPolicy { initial_backoff: Some(tasks::millis(1)), ..Default::default() };
    task.spec.get_or_insert_default().retry = Some(retry);
    let task = caller.create(&cluster, task).await?;
    tasks::ended(cluster.client(), &task.name).await?;
    assert_eq!(
        caller.tree(7).await?,
        creation_tree("task succeeded\n  queue\n  attempt 1 failed agent\n  queue\n  attempt 2 succeeded")
    );
    Ok(())
}

#[tokio::test]
async fn workflow_is_one_trace_over_approvals_and_nested_workflows() -> Result<()> {
    let (cluster, _worker) = start_cluster(tasks::script([])).await?;
    let caller = Caller::new();
    let echo = |text: &str| serde_json::json!({ "target": { "agent": "echo" }, "runtime": { "scripted": { "steps": [{ "succeed": text }] } } });
    let spec = serde_json::json!({ "steps": [
        { "name": "before", "task": echo("a") },
        { "name": "ask", "needs": [{ "step": "before" }], "approval": { "prompt": "go?" } },
        { "name": "after", "needs": [{ "step": "ask" }, { "step": "before" }], "task": echo("b") },
        { "name": "nest", "needs": [{ "step": "after" }],
          "workflow": { "spec": { "steps": [{ "name": "inner", "task": echo("c") }] } } },
    ] });
    let workflow = v1::Workflow { spec: Some(serde_json::from_value(spec)?), ..Default::default() };
    let parent = rota_proto::names::namespace(tasks::NAMESPACE);
    let request = v1::CreateWorkflowRequest { parent, workflow: Some(workflow), ..Default::default() };
    let made = caller.client(&cluster).create_workflow(request).await?;
    // A person decides, who knows nothing of the trace.
    let decide = v1::DecideStepRequest {
        name: made.name.clone(),
        step: "ask".to_owned(),
        decision: v1::StepDecision::Approve.into(),
        ..Default::default()
    };
    tasks::eventually("the decision", || async {
        Ok(cluster.client().decide_step(decide.clone()).await.is_ok())
    })
    .await?;
    let expected = "client rota.v1.WorkflowService/CreateWorkflow\n  server rota.v1.WorkflowService/CreateWorkflow\n    \
                    workflow succeeded\n      task succeeded\n        queue\n        attempt 1 succeeded\n      \
                    approval ask succeeded\n      task succeeded\n        queue\n        attempt 1 succeeded\n      \
                    workflow succeeded\n        task succeeded\n          queue\n          attempt 1 succeeded";
    assert_eq!(caller.tree(14).await?, expected);
    let spans = caller.spans(14).await?;
    let span_of = |step: &str| {
        spans.iter().find(|span| span.name == "task" && span.attributes["rota.step"] == step).unwrap()
    };
    assert_eq!(span_of("after").links, [span_of("before").id.clone()], "an approval has no task");
    assert!(span_of("before").links.is_empty() && span_of("inner").links.is_empty());
    let steps: Vec<_> = spans
        .iter()
        .filter(|span| span.name == "attempt")
        .map(|span| &span.attributes["rota.step"])
        .collect();
    assert!(steps.contains(&&"before".to_owned()) && steps.contains(&&"after".to_owned()), "{steps:?}");
    let id = made.uid.as_str();
    let of_it = |step: &&str| span_of(step).attributes["rota.workflow.id"] == id;
    assert!(["before", "after"].iter().all(of_it) && !of_it(&"inner"));
    let whole =
        spans.iter().find(|span| span.name == "workflow" && span.attributes["rota.workflow.id"] == id);

    // A rerun has a trace of its own, whose workflow is linked with the earlier one.
    let later = Caller::new();
    let request =
        v1::RerunWorkflowRequest { name: made.name.clone(), reuse_results: true, ..Default::default() };
    later.client(&cluster).rerun_workflow(request).await?;
    let spans = later.spans(4).await?;
    let rerun = collector::named(&spans, "workflow")?;
    assert_eq!(rerun.links, [whole.unwrap().id.clone()]);
    Ok(())
}

#[tokio::test]
async fn cancelled_task_has_its_spans() -> Result<()> {
    let (cluster, _worker) = start_cluster(tasks::script([])).await?;
    let (runs, waits) = (Caller::new(), Caller::new());
    let task = runs.create(&cluster, tasks::scripted("echo", [Step::Hang(true)])).await?;
    tasks::until_state(cluster.client(), &task.name, TaskState::Running).await?;
    tasks::cancel(cluster.client(), &task.name).await?;
    tasks::ended(cluster.client(), &task.name).await?;
    assert_eq!(runs.tree(5).await?, creation_tree("task cancelled\n  queue\n  attempt 1 cancelled"));
    // A task that was never assigned has a queue span nevertheless.
    let task = waits.create(&cluster, tasks::task_on("missing")).await?;
    tasks::cancel(cluster.client(), &task.name).await?;
    assert_eq!(waits.tree(4).await?, creation_tree("task cancelled\n  queue"));
    Ok(())
}

#[tokio::test]
async fn dependent_task_links_its_dependency() -> Result<()> {
    let (cluster, _worker) = start_cluster(tasks::script([])).await?;
    let (first, second) = (Caller::new(), Caller::new());
    let before = first.create(&cluster, tasks::scripted("echo", [Step::Succeed("one".into())])).await?;
    let id = before.name.rsplit('/').next().unwrap_or_default().to_owned();
    let mut after = tasks::scripted("echo", [Step::Succeed("two".into())]);
    let dependency = v1::Dependency { task: id, ..Default::default() };
    after.spec.get_or_insert_default().depends_on.push(dependency);
    let after = second.create(&cluster, after).await?;
    tasks::ended(cluster.client(), &after.name).await?;
    assert_eq!(first.tree(5).await?, creation_tree("task succeeded\n  queue\n  attempt 1 succeeded"));
    assert_eq!(second.tree(5).await?, creation_tree("task succeeded\n  queue\n  attempt 1 succeeded"));
    let (first, second) = (first.spans(5).await?, second.spans(5).await?);
    assert_eq!(collector::named(&second, "task")?.links, [collector::named(&first, "task")?.id.clone()]);
    Ok(())
}

/// A program's own spans are children of its attempt and reach the same collector.
#[tokio::test]
async fn program_spans_continue_the_trace() -> Result<()> {
    let shell = "echo $TRACEPARENT $OTEL_EXPORTER_OTLP_ENDPOINT $OTEL_EXPORTER_OTLP_PROTOCOL".to_owned();
    let command = v1::CommandRuntime { shell, ..Default::default() };
    let (cluster, _worker) =
        start_cluster(v1::Runtime { kind: Some(v1::runtime::Kind::Command(command)) }).await?;
    let caller = Caller::new();
    let task = caller.create(&cluster, tasks::task("echo")).await?;
    tasks::ended(cluster.client(), &task.name).await?;
    assert_eq!(caller.tree(5).await?, creation_tree("task succeeded\n  queue\n  attempt 1 succeeded"));
    let spans = caller.spans(5).await?;
    let printed = tasks::outputs(&tasks::log(cluster.client(), &task.name).await?).concat();
    let attempt = collector::named(&spans, "attempt")?;
    let endpoint = shared_collector().endpoint();
    assert_eq!(printed.trim(), format!("00-{}-{}-01 {endpoint} grpc", caller.trace, attempt.id));
    Ok(())
}

/// A program without spans gets spans for its tool calls, derived from its events.
#[tokio::test]
async fn reported_tool_calls_become_spans() -> Result<()> {
    let shell = r#"cat > "$ROTA_EVENTS" <<'end'
{"toolCall": {"callId": "1", "tool": "search"}}
{"toolCall": {"callId": "2", "tool": "build"}}
{"toolResult": {"callId": "1", "output": "found"}}
{"toolResult": {"callId": "2", "output": "broken", "isError": true}}
{"toolCall": {"callId": "3", "tool": "think"}}
end"#;
    let command = v1::CommandRuntime { shell: shell.to_owned(), ..Default::default() };
    let (cluster, _worker) =
        start_cluster(v1::Runtime { kind: Some(v1::runtime::Kind::Command(command)) }).await?;
    let caller = Caller::new();
    let task = caller.create(&cluster, tasks::task("echo")).await?;
    tasks::ended(cluster.client(), &task.name).await?;
    let spans = caller.spans(8).await?;
    let attempt = collector::named(&spans, "attempt")?;
    let tools = spans.iter().filter(|span| span.name == "tool");
    let recorded: Vec<_> = tools
        .map(|span| (span.attributes["gen_ai.tool.name"].as_str(), span.error.as_deref(), &span.parent))
        .collect();
    let unanswered = Some("attempt ended before the tool call");
    assert_eq!(recorded.len(), 3, "{recorded:?}");
    for tool in [("search", None), ("build", Some("tool call failed")), ("think", unanswered)] {
        assert!(recorded.contains(&(tool.0, tool.1, &attempt.id)), "{tool:?} is not in {recorded:?}");
    }
    Ok(())
}

/// Every call that creates tasks has a span on both sides, and a rejected one has the reason.
#[tokio::test]
async fn creation_calls_have_spans() -> Result<()> {
    let (cluster, _worker) = start_cluster(tasks::script([])).await?;
    let (retries, batches, refused) = (Caller::new(), Caller::new(), Caller::new());
    let parent = rota_proto::names::namespace(tasks::NAMESPACE);
    let task = tasks::scripted("echo", [Step::Succeed("done".into())]);
    let first = tasks::create(cluster.client(), task.clone()).await?;
    tasks::ended(cluster.client(), &first.name).await?;

    let request = v1::RetryTaskRequest { name: first.name.clone(), ..Default::default() };
    let again = retries.client(&cluster).retry_task(request).await?;
    tasks::ended(cluster.client(), &again.name).await?;
    let call = "client rota.v1.TaskService/RetryTask\n  server rota.v1.TaskService/RetryTask";
    assert_eq!(
        retries.tree(5).await?,
        format!("{call}\n    task succeeded\n      queue\n      attempt 1 succeeded")
    );

    let one = v1::CreateTaskRequest { task: Some(tasks::task_on("missing")), ..Default::default() };
    let requests = vec![one.clone(), one];
    let request = v1::BatchCreateTasksRequest { parent: parent.clone(), requests, ..Default::default() };
    for result in batches.client(&cluster).batch_create_tasks(request).await?.results {
        let Some(v1::batch_create_tasks_result::Kind::Task(task)) = result.kind else { panic!("{result:?}") };
        tasks::cancel(cluster.client(), &task.name).await?;
    }
    let call = "client rota.v1.TaskService/BatchCreateTasks\n  server rota.v1.TaskService/BatchCreateTasks";
    let task = "\n    task cancelled\n      queue";
    assert_eq!(batches.tree(6).await?, format!("{call}{task}{task}"));

    let request = v1::CreateTaskRequest { parent, ..Default::default() };
    refused.client(&cluster).create_task(request).await.unwrap_err();
    let spans = refused.spans(2).await?;
    let [client, server] = ["client", "server"].map(|side| {
        let span = spans.iter().find(|span| span.side == Some(side)).unwrap();
        (span.attributes["rpc.response.status_code"].as_str(), span.error.is_some())
    });
    // The status code shows which side is at fault.
    assert_eq!((client, server), (("INVALID_ARGUMENT", true), ("INVALID_ARGUMENT", false)));
    Ok(())
}

/// A trace that the caller does not record is not recorded here either.
#[tokio::test]
async fn unsampled_trace_emits_no_spans() -> Result<()> {
    let (cluster, _worker) = start_cluster(tasks::script([])).await?;
    let (plain, traced) = (Caller::new(), Caller::new());
    let parent = rota_proto::names::namespace(tasks::NAMESPACE);
    let task = tasks::scripted("echo", [Step::Succeed("done".into())]);
    let request = v1::CreateTaskRequest { parent, task: Some(task.clone()), ..Default::default() };
    let traceparent = format!("00-{}-{}-00", plain.trace, plain.span);
    let first = cluster.client().in_trace(Some(&traceparent), None).create_task(request).await?;
    tasks::ended(cluster.client(), &first.name).await?;
    let second = traced.create(&cluster, task).await?;
    tasks::ended(cluster.client(), &second.name).await?;
    traced.spans(5).await?;
    assert!(shared_collector().trace(&plain.trace, 0).await?.is_empty());
    Ok(())
}
