//! `rota plan`: plans that are good, malformed, cyclic, hostile and empty; approval and editing in a terminal; the real Claude Code CLI.

use anyhow::{Context, Result};
use rota_client::Client;
use rota_proto::labels;
use rota_proto::v1;
use serde_json::{Value, json};

use crate::claude::installed;
use crate::process::Process;
use crate::responses::Response;
use crate::terminal::Terminal;
use crate::{Fixture, Graces};

/// An agent that returns the plans of its work in turn, and otherwise answers with its prompt.
const AGENT: &str = r#"
import json, os, sys
prompt = sys.stdin.read()
if not prompt.startswith("Plan the following work"):
    print("did " + prompt)
    sys.exit()
plans = json.JSONDecoder().raw_decode(prompt[prompt.index("PLANS[") + 5:])[0]
plan = plans["Your last plan cannot be used" in prompt]
if plan == "fail":
    sys.exit("cannot plan")
with open(os.environ["ROTA_OUTPUT"] + "/result.json", "w") as file:
    json.dump({"data": plan}, file)
"#;

struct Team {
    fixture: Fixture,
    client: Client,
    _workers: [Process; 2],
}

async fn team() -> Result<Team> {
    let fixture = Fixture::start(Graces::LONG).await?;
    for (name, capabilities) in [("boss", json!([])), ("coder", json!(["code", "test"]))] {
        let spec = json!({"runtime": {"command": {"argv": ["python3", "-c", AGENT]}}, "slots": 2,
            "capabilities": capabilities, "management": "External"});
        apply(&fixture, name, &spec).await;
    }
    let workers = [fixture.worker("boss", "boss", 2).await?, fixture.worker("coder", "coder", 2).await?];
    let client = fixture.client()?;
    Ok(Team { fixture, client, _workers: workers })
}

async fn apply(fixture: &Fixture, name: &str, spec: &Value) {
    let agent =
        json!({"apiVersion": "rota.dev/v1alpha1", "kind": "Agent", "metadata": {"name": name}, "spec": spec});
    fixture.apply(&format!("{name}.json"), &agent.to_string()).await.success();
}

fn work(first: &Value, second: &Value) -> String {
    format!("Ship it PLANS{}", json!([first, second]))
}

fn good() -> Value {
    json!({"subtasks": [
        {"name": "build", "description": "Build ${{ inputs.key }} and ${{ bad", "capabilities": ["code"], "priority": 8,
         "estimatedMinutes": 5},
        {"name": "check", "description": "Check it", "dependsOn": ["build"]},
    ]})
}

impl Team {
    async fn plan(&self, more: &[&str], work: &str) -> Response {
        // Some are longer than an argument may be.
        let args = [&["plan", "--agent", "boss", "-"][..], more].concat();
        Response::of(self.fixture.command(&args), work).await
    }

    /// Returns the prompts of tasks that plan, oldest first.
    async fn asked(&self) -> Result<Vec<String>> {
        let labels = [(labels::PLANNER.to_owned(), "true".to_owned())].into();
        self.prompts(v1::TaskFilter { labels, ..Default::default() }).await
    }

    async fn prompts(&self, filter: v1::TaskFilter) -> Result<Vec<String>> {
        let request = v1::ListTasksRequest {
            parent: "namespaces/default".to_owned(),
            filter: Some(filter),
            ..Default::default()
        };
        let mut prompts = Vec::new();
        for task in self.client.all_tasks(request, None).await?.iter().rev() {
            let task = self.client.get_task(v1::GetTaskRequest { name: task.name.clone() }).await?;
            prompts.push(task.spec.unwrap_or_default().prompt);
        }
        Ok(prompts)
    }

    async fn workflows(&self) -> Result<Vec<v1::Workflow>> {
        Ok(self.client.all_workflows("namespaces/default", v1::WorkflowFilter::default()).await?)
    }

    /// Checks that the work became one task, after these problems of two plans.
    async fn falls_back(&self, plans: [Value; 2], problems: &[&str]) -> Result<()> {
        let work = work(&plans[0], &plans[1]);
        let planned = self.plan(&["-o", "json"], &work).await;
        for problem in problems.iter().chain(&["no valid plan was proposed: the work becomes one task"]) {
            assert!(planned.err.contains(problem), "{problem}: {}", planned.err);
        }
        assert!(!planned.err.contains('\u{1b}') && planned.err.len() < 50_000, "{:?}", planned.err);
        let manifest = planned.json();
        assert_eq!(manifest["spec"]["steps"].as_array().map(Vec::len), Some(1), "{manifest}");
        // An expression whose result is its own beginning.
        let literal = work.replace("${{", r#"${{ "${{" }}"#);
        assert_eq!(manifest["spec"]["steps"][0]["task"]["prompt"], literal);
        Ok(())
    }
}

#[tokio::test]
async fn impossible_name_is_refused_before_planning() -> Result<()> {
    let team = team().await?;
    let planned = team.plan(&["--name", "Not a name", "--yes"], &work(&good(), &good())).await;
    planned.failed(1, &["workflow.alias"]);
    assert!(team.asked().await?.is_empty() && team.workflows().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn good_plan_runs_as_a_workflow() -> Result<()> {
    let team = team().await?;
    let work = work(&good(), &json!("fail"));
    // Without approval nothing runs.
    let shown = team.plan(&[], &work).await;
    assert!(shown.err.contains("run it with --yes"), "{shown:?}");
    assert!(shown.out.contains("│ build │") && shown.out.contains("needs code"), "{}", shown.out);
    let printed = team.plan(&["-o", "yaml", "--budget-usd", "5"], &work).await.success();
    assert!(team.workflows().await?.is_empty());
    assert!(printed.contains("kind: Workflow") && printed.contains("budgetMicroUsd"), "{printed}");

    let ran = team.plan(&["--yes", "--watch", "--name", "ship", "--budget-usd", "5"], &work).await;
    assert!(ran.err.contains("at most $5.00 for all subtasks"), "{}", ran.err);
    let ran = ran.success();
    assert!(ran.contains("workflow/ship created") && ran.contains("workflow SUCCEEDED"), "{ran}");
    let made = team.workflows().await?;
    let filter = v1::TaskFilter { workflow: made[0].uid.clone(), ..Default::default() };
    let prompts = team.prompts(filter).await?;
    assert_eq!(prompts[0], "Build ${{ inputs.key }} and ${{ bad");
    assert!(prompts[1].starts_with("Check it\n\n"), "{prompts:?}");
    assert!(prompts[1].contains("## build\ndid Build ${{ inputs.key }}"), "{prompts:?}");
    // A manifest like any other.
    team.fixture.apply("plan.yaml", &printed.replace("generateName: plan-", "name: again")).await.success();
    let watched = team.fixture.rota(&["workflow", "watch", "again"]).await.success();
    assert!(watched.contains("workflow SUCCEEDED"), "{watched}");
    Ok(())
}

#[tokio::test]
async fn invalid_plan_is_repaired_once() -> Result<()> {
    let team = team().await?;
    let cyclic = json!({"subtasks": [
        {"name": "a", "description": "A", "dependsOn": ["b"]}, {"name": "b", "description": "B", "dependsOn": ["a"]},
    ]});
    for (first, problem) in [
        (json!({"subtasks": "all"}), "is not of type"),
        (cyclic, "steps need each other"),
        (
            json!({"subtasks": [{"name": "a", "description": "A", "capabilities": ["code", "docs"]}]}),
            "capabilities code, docs",
        ),
        (json!("fail"), "the agent has failed"),
    ] {
        let before = team.asked().await?.len();
        let planned = team.plan(&["-o", "json"], &work(&first, &good())).await;
        assert!(planned.err.contains(problem), "{problem}: {}", planned.err);
        assert_eq!(planned.json()["spec"]["steps"][0]["name"], "build");
        let asked = team.asked().await?.split_off(before);
        assert_eq!(asked.len(), 2);
        assert!(
            asked[1].contains("Your last plan cannot be used:\n- ") && asked[1].contains(problem),
            "{asked:?}"
        );
        assert!(asked[0].contains("- code, test\n"), "{asked:?}");
    }
    Ok(())
}

#[tokio::test]
async fn hopeless_plans_become_one_task() -> Result<()> {
    let team = team().await?;
    let one = |name: &str, description: &str| json!({"name": name, "description": description});
    let many: Vec<_> = (0..50).map(|n| one(&format!("n{n}"), &"x".repeat(8_000))).collect();
    team.falls_back([json!({"subtasks": many}), json!({"subtasks": []})], &["the agent has failed"]).await?;
    let escapes = json!({"subtasks": [one("a", "\u{1b}]0;owned\u{7}\u{1b}[2J")]});
    let injected = json!({"subtasks": [{"name": "a", "description": "A", "dependsOn": ["x }} ${{ inputs"]}]});
    team.falls_back([escapes, injected], &["control character \\u{1b}", "which is not a subtask"]).await?;
    team.falls_back([json!(null), json!("fail")], &["the agent has failed"]).await?;
    let too_many = work(&good(), &good());
    let poor = team.plan(&["-o", "json", "--budget-usd", "0.015"], &too_many).await;
    assert!(poor.err.contains("less than a cent for each of 2 subtasks"), "{poor:?}");
    team.fixture.rota(&["plan", "--agent", "absent", "x"]).await.failed(4, &["agent absent does not exist"]);
    Ok(())
}

#[tokio::test]
async fn plan_is_edited_and_approved_in_a_terminal() -> Result<()> {
    let team = team().await?;
    let work = work(&good(), &json!("fail"));
    let command = |editor: &str| {
        let mut command =
            team.fixture.command(&["plan", "--agent", "boss", "--quiet", "--name", "ship", &work]);
        command.env("EDITOR", editor);
        command
    };
    let mut terminal = Terminal::start(&command("false"), 50, 160);
    terminal.prints("run this plan? [y/n, e: edit]").await;
    terminal.press("e\r");
    terminal.prints("false has failed").await;
    terminal.press("n\r");
    assert_eq!(terminal.ended().await, 0);
    assert!(team.workflows().await?.is_empty());

    let edits = "sed -i -e 's/Check it/Inspect it/' -e 's/name: ship$/name: shipped/'";
    let mut terminal = Terminal::start(&command(edits), 50, 160);
    terminal.prints("run this plan?").await;
    terminal.press("e\r");
    terminal.prints("check build Inspect it").await;
    terminal.press("what\r");
    terminal.prints("answer y, n or e").await;
    terminal.press("y\r");
    terminal.prints("workflow/shipped created").await;
    assert_eq!(terminal.ended().await, 0);
    let made = team.workflows().await?;
    let made = team.client.get_workflow(v1::GetWorkflowRequest { name: made[0].name.clone() }).await?;
    let steps = made.spec.context("a spec")?.steps;
    let Some(v1::workflow_step::Kind::Task(task)) = &steps[1].kind else { anyhow::bail!("{steps:?}") };
    assert!(task.prompt.starts_with("Inspect it"), "{}", task.prompt);
    team.fixture.rota(&["workflow", "watch", "shipped"]).await.success();
    Ok(())
}

#[tokio::test]
async fn claude_plans_and_works() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let model = rota_fake_model::Options::default().start().await?;
    let program = tokio::task::spawn_blocking(installed).await??;
    let key = format!("sk-ant-{}", uuid::Uuid::new_v4());
    let spec = json!({"runtime": {"claude": {"program": program}}, "slots": 2, "management": "External",
        "environment": {"ANTHROPIC_BASE_URL": model.base_url(), "ANTHROPIC_API_KEY": key}});
    apply(&fixture, "boss", &spec).await;
    let _worker = fixture.worker("boss", "boss", 2).await?;
    let answers = |text: &str| format!("MOCK{}", json!([{ "text": text }]));
    let plan = json!({"subtasks": [
        {"name": "first", "description": answers("one"), "priority": 9},
        {"name": "second", "description": answers("two"), "dependsOn": ["first"]},
    ]});
    let script = json!([{"tools": [{"name": "StructuredOutput", "input": plan}]}, {"text": "Done."}]);
    let args = ["plan", "--agent", "boss", "--yes", "--watch", "--name", "claude"];
    let work = format!("MOCK{script}");
    let ran = fixture.rota(&[&args[..], &[work.as_str()]].concat()).await;
    assert!(ran.out.contains("workflow SUCCEEDED") && ran.code == 0, "{ran:?}");
    let steps = fixture.client()?.all_workflow_steps("namespaces/default/workflows/claude").await?;
    assert_eq!(steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(), ["first", "second"]);
    assert!(model.requests().len() >= 3, "{:?}", model.requests());
    Ok(())
}
