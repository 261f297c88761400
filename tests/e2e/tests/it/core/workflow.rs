//! Workflows and their templates as resources.

use std::time::Duration;

use rota_e2e::{Control, Space, run_with, until};

const TEST_TIMEOUT: Duration = Duration::from_secs(600);

const AGENT: &str = "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: shell}
spec: {runtime: {command: {}}, replicas: 1, maxReplicas: 1}
---
";
const TEMPLATE: &str = "apiVersion: rota.dev/v1alpha1
kind: WorkflowTemplate
metadata: {name: greet}
spec:
  parameters: [{name: who, schema: {type: string}}]
  workflow:
    steps:
      - name: hello
        task: {target: {agent: shell}, runtime: {command: {shell: 'echo hello ${{ inputs.who }}'}}}
      - {name: ask, needs: [{step: hello}], approval: {prompt: 'Greet ${{ inputs.who }}?'}}
    outputs: {text: '${{ steps.hello.result.text }}'}
---
";

fn workflow(name: &str, spec: &str) -> String {
    format!("apiVersion: rota.dev/v1alpha1\nkind: Workflow\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn template_makes_a_workflow_that_asks() {
    let space = Space::new("workflow").await;
    let greeting = workflow("greeting", "{template: greet, parameters: {who: you}}");
    // The workflow first: it waits for its template.
    space.apply(&(AGENT.to_owned() + &greeting + TEMPLATE)).await;
    until("a person is asked", TEST_TIMEOUT, async || {
        (space.field("rwf/greeting", ".status.reason").await == "WaitsForApproval").then_some(())
    })
    .await;
    assert_eq!(space.field("rwt/greet", ".status.version").await, "1");
    until("an event about it", TEST_TIMEOUT, async || {
        let events = "get events --field-selector reason=Waiting,involvedObject.kind=Workflow -o jsonpath={.items[*].message}";
        space.kubectl(events).await.success().contains("Greet you?").then_some(())
    })
    .await;
    let columns = space.kubectl("get workflows.rota.dev greeting").await.success();
    for text in ["PHASE", "STEPS", "Running", "1/2", "Greet you?"] {
        assert!(columns.contains(text), "{text}: {columns}");
    }
    // Its task is no resource, and is not taken for one whose resource was deleted.
    assert_eq!(space.tasks().await.len(), 0);

    let control = Control::connect().await;
    let line = format!("workflow approve greeting --step ask --namespace {}", space.name);
    control.rota(&line).await.success();
    space.wait("workflows.rota.dev/greeting", "condition=Complete", "600s").await;
    assert_eq!(space.field("rwf/greeting", ".status.progress").await, "2/2");

    // A changed template is another version; a refused one keeps the last, and reports the reason.
    space.apply(&TEMPLATE.replace("Greet $", "Really greet $")).await;
    until("the second version", TEST_TIMEOUT, async || {
        (space.field("rwt/greet", ".status.version").await == "2").then_some(())
    })
    .await;
    space.apply(&TEMPLATE.replace("{type: string}", "{type: strong}")).await;
    until("the refusal", TEST_TIMEOUT, async || {
        (space.field("rwt/greet", ".status.conditions[0].status").await == "False").then_some(())
    })
    .await;
    assert!(!space.field("rwt/greet", ".status.message").await.is_empty());
    assert_eq!(space.field("rwt/greet", ".status.version").await, "2");
    space.kubectl("delete rwt greet").await.success();
    let list = format!("template list --namespace {}", space.name);
    until("the template is deleted", TEST_TIMEOUT, async || {
        (!control.rota(&list).await.success().contains("greet")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn workflow_is_paused_and_cancelled_by_its_resource() {
    let space = Space::new("workflow").await;
    let steps = "[{name: a, wait: {signal: go}}, {name: b, needs: [{step: a}], wait: {signal: go}}]";
    let spec = format!("{{steps: {steps}, desiredState: Suspended}}");
    space.apply(&workflow("paused", &spec)).await;
    until("it is paused", TEST_TIMEOUT, async || {
        (space.field("rwf/paused", ".status.phase").await == "Paused").then_some(())
    })
    .await;
    space.kubectl("patch rwf paused --type=merge -p {\"spec\":{\"desiredState\":\"Run\"}}").await.success();
    space.wait("workflows.rota.dev/paused", "condition=Running", "600s").await;
    let uid = space.field("rwf/paused", ".status.workflowId").await;
    space.kubectl("delete rwf paused --timeout=60s").await.success();
    let control = Control::connect().await;
    let get = format!("workflow get {uid} --namespace {}", space.name);
    until("the record is cancelled", TEST_TIMEOUT, async || {
        control.rota(&get).await.success().contains("CANCELLED").then_some(())
    })
    .await;

    let wrong = "{steps: [{name: a, needs: [{step: a}], wait: {signal: go}}]}";
    space.apply(&workflow("wrong", wrong)).await;
    space.wait("workflows.rota.dev/wrong", "condition=Failed", "600s").await;
    assert!(space.field("rwf/wrong", ".status.message").await.contains("need each other"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn schedule_runs_workflows_until_its_resource_is_deleted() {
    let space = Space::new("schedule").await;
    let schedule = |cron: &str| {
        format!(
            "apiVersion: rota.dev/v1alpha1\nkind: Schedule\nmetadata: {{name: often}}\nspec: {{cron: '{cron}', workflow: {{template: wait}}}}\n"
        )
    };
    let field = async |path: &str| space.field("rsc/often", path).await;
    // The schedule first: the template wakes it.
    space.apply(&schedule("* * * * * *")).await;
    until("it waits for its template", TEST_TIMEOUT, async || {
        (field(".status.conditions[0].reason").await == "TemplateNotFound").then_some(())
    })
    .await;
    let template = "apiVersion: rota.dev/v1alpha1\nkind: WorkflowTemplate\nmetadata: {name: wait}\nspec: {workflow: {steps: [{name: a, wait: {duration: 0s}}]}}\n";
    space.apply(template).await;
    until("a run", TEST_TIMEOUT, async || (field(".status.lastRunState").await == "Succeeded").then_some(()))
        .await;
    let columns = space.kubectl("get schedules.rota.dev often").await.success();
    for text in ["CRON", "NEXT", "OUTCOME", "Succeeded"] {
        assert!(columns.contains(text), "{text}: {columns}");
    }

    let pause = async |paused: bool| {
        let patch = format!("patch rsc often --type=merge -p {{\"spec\":{{\"paused\":{paused}}}}}");
        space.kubectl(&patch).await.success()
    };
    pause(true).await;
    until("it is paused", TEST_TIMEOUT, async || {
        let is_paused = field(".status.message").await.contains("paused");
        (is_paused && field(".status.nextRunTime").await.is_empty()).then_some(())
    })
    .await;
    let last = field(".status.lastRunTime").await;
    pause(false).await;
    until("another run", TEST_TIMEOUT, async || (field(".status.lastRunTime").await > last).then_some(()))
        .await;
    assert!(field(".status.message").await.is_empty());

    space.apply(&schedule("0 0 30 2 *")).await;
    until("the refusal", TEST_TIMEOUT, async || {
        (field(".status.conditions[0].status").await == "False").then_some(())
    })
    .await;
    assert!(field(".status.message").await.contains("schedule.spec.cron"));
    space.kubectl("delete rsc often").await.success();
    let control = Control::connect().await;
    let list = format!("schedule list --namespace {}", space.name);
    until("the schedule is deleted", TEST_TIMEOUT, async || {
        (!control.rota(&list).await.success().contains("often")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn status_of_ten_thousand_steps_is_small() {
    let space = Space::new("workflow").await;
    let steps: Vec<_> = (0..10_000).map(|at| format!("{{name: s{at}, wait: {{duration: 0s}}}}")).collect();
    let template = format!(
        "apiVersion: rota.dev/v1alpha1\nkind: WorkflowTemplate\nmetadata: {{name: wide}}\nspec: {{workflow: {{steps: [{}]}}}}\n",
        steps.join(", ")
    );
    // Too large for the annotation of a client-side apply.
    let line = format!("kubectl --namespace {} apply --server-side -f -", space.name);
    run_with(&line, &template).await.success();
    space.apply(&workflow("wide", "{template: wide}")).await;
    space.wait("workflows.rota.dev/wide", "condition=Complete", "600s").await;
    assert_eq!(space.field("rwf/wide", ".status.progress").await, "10000/10000");
    let whole = space.get("rwf/wide").await;
    let bytes = whole["status"].to_string().len();
    assert!(bytes < 2048, "{bytes}");
}
