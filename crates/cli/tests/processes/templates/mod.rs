//! The templates that come with the program: each runs with agents that are programs, and with the real Claude Code CLI. Real
//! repositories over HTTP, and agents that let tasks set as little as agents do by default.

mod claude;
mod deploying;
mod features;
mod merging;
mod page;
mod rounds;

use std::path::PathBuf;

use anyhow::{Context, Result};
use rota_proto::v1;
use rota_testkit::git_host::{GitHost, git};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::Process;
use crate::responses::Response;
use crate::{Fixture, Graces};

const CODER: &str = include_str!("../../../../../examples/templates/coder.py");
const SHIPPED: [&str; 5] =
    ["analyse-and-refactor", "build-feature", "deploy-app", "fix-until-green", "review-by-three"];

/// A control plane with the agents that the templates name, and a host with a repository.
struct Site {
    fixture: Fixture,
    host: GitHost,
    url: String,
    _workers: [Process; 2],
    _folder: TempDir,
}

/// Starts a site whose coder has this runtime.
async fn site(files: &[(&str, &str)], coder: Value, environment: Value) -> Result<Site> {
    let mut fixture = Fixture::bare();
    let secrets = fixture.dir().join("secrets");
    std::fs::create_dir(&secrets)?;
    std::fs::write(secrets.join("GIT"), "tok-for-the-forge")?;
    fixture.environment = vec![
        // What is deployed is outside of the workspaces.
        ("ROTA_WORKER_UNCONFINED", "true".to_owned()),
        ("ROTA_WORKER_SECRETS_DIR", secrets.to_string_lossy().into_owned()),
    ];
    fixture.graces = Graces::LONG;
    fixture.start_server().await?;
    for (name, runtime, environment) in
        [("coder", coder, environment), ("shell", json!({"command": {}}), json!({}))]
    {
        let spec =
            // Templates with credentials name a secret of the agents.
            json!({"runtime": runtime, "environment": environment, "slots": 4, "management": "External", "overrides": "All"});
        let agent = json!({"apiVersion": "rota.dev/v1alpha1", "kind": "Agent", "metadata": {"name": name}, "spec": spec});
        fixture.apply(&format!("{name}.json"), &agent.to_string()).await.success();
    }
    let workers = [fixture.worker("coder", "coder", 4).await?, fixture.worker("shell", "shell", 4).await?];
    let folder = tempfile::tempdir()?;
    let host = GitHost::start(folder.path()).await?;
    let url = host.repository("app", files).await?;
    Ok(Site { fixture, host, url, _workers: workers, _folder: folder })
}

/// Starts a site whose coder is a program.
async fn site_of_programs(files: &[(&str, &str)]) -> Result<Site> {
    site(files, json!({"command": {"argv": ["python3", "-c", CODER]}}), json!({})).await
}

/// A workflow that has ended.
struct Ended {
    workflow: v1::Workflow,
    steps: Vec<v1::StepStatus>,
}

impl Ended {
    fn state(&self) -> v1::WorkflowState {
        self.workflow.status.clone().unwrap_or_default().state()
    }

    #[track_caller]
    fn succeeded(self) -> Self {
        assert_eq!(
            self.state(),
            v1::WorkflowState::Succeeded,
            "{:?} {:#?}",
            self.workflow.status,
            self.steps
        );
        self
    }

    fn output(&self, name: &str) -> Value {
        let status = self.workflow.status.clone().unwrap_or_default();
        serde_json::to_value(status.outputs).unwrap()[name].clone()
    }

    fn text(&self, name: &str) -> String {
        self.output(name).as_str().unwrap().to_owned()
    }

    /// Returns the steps of a state.
    fn names(&self, state: v1::StepState) -> Vec<&str> {
        let steps = self.steps.iter().filter(|step| step.state() == state);
        steps.map(|step| step.name.as_str()).collect()
    }

    fn step(&self, name: &str) -> &v1::StepStatus {
        self.steps.iter().find(|step| step.name == name).unwrap()
    }
}

impl Site {
    /// Returns the program with the arguments that make a workflow of a shipped template, after it was applied.
    async fn start(&self, template: &str, parameters: &[(&str, &str)]) -> Response {
        self.fixture.rota(&["template", "apply", template, "--shipped"]).await.success();
        self.start_stored(template, parameters).await
    }

    /// Makes a workflow of a template of the namespace.
    async fn start_stored(&self, template: &str, parameters: &[(&str, &str)]) -> Response {
        let repository = format!("repository={}", self.url);
        let mut args = vec!["workflow", "run", "--template", template, "--name", template, "-p", &repository];
        let parameters: Vec<_> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        args.extend(parameters.iter().flat_map(|pair| ["-p", pair.as_str()]));
        self.fixture.rota(&args).await
    }

    /// Waits for the end of the newest workflow of a template.
    async fn ended(&self, template: &str) -> Result<Ended> {
        let watched = self.fixture.rota(&["workflow", "watch", template]).await;
        anyhow::ensure!(watched.out.contains("workflow "), "{watched:?}");
        let name = format!("namespaces/default/workflows/{template}");
        let client = self.fixture.client()?;
        let workflow = client.get_workflow(v1::GetWorkflowRequest { name: name.clone() }).await?;
        Ok(Ended { workflow, steps: client.all_workflow_steps(&name).await? })
    }

    async fn run(&self, template: &str, parameters: &[(&str, &str)]) -> Result<Ended> {
        self.start(template, parameters).await.success();
        self.ended(template).await
    }

    fn bare(&self) -> PathBuf {
        self.host.path("app")
    }

    /// Returns what git prints about the repository of the host.
    async fn git(&self, args: &[&str]) -> Result<String> {
        git(&self.bare(), args).await
    }

    /// Adds a commit with these files to a branch of the host, and returns it.
    async fn push(&self, branch: &str, files: &[(&str, &str)]) -> Result<String> {
        let work = tempfile::tempdir()?;
        let bare = self.bare();
        let at = work.path();
        git(at, &["clone", "--quiet", bare.to_str().context("a path")?, "."]).await?;
        git(at, &["checkout", "--quiet", "-B", branch]).await?;
        for (path, text) in files {
            std::fs::write(at.join(path), text)?;
        }
        git(at, &["add", "--all"]).await?;
        git(at, &["commit", "--quiet", "-m", branch]).await?;
        git(at, &["push", "--quiet", "origin", branch]).await?;
        git(at, &["rev-parse", "HEAD"]).await
    }
}

/// Their files are templates that a control plane takes, and their steps form the graph that the page shows.
#[tokio::test]
async fn shipped_templates_are_listed_printed_and_drawn() -> Result<()> {
    const PAGE: &str = include_str!("../../../../../docs/templates.md");
    let fixture = Fixture::start(Graces::LONG).await?;
    let listed = fixture.rota(&["template", "list", "--shipped"]).await.success();
    for name in SHIPPED {
        assert!(listed.contains(name), "{listed}");
        let text = fixture.rota(&["template", "get", name, "--shipped"]).await.success();
        assert!(
            text.starts_with("# ") && text.contains(&format!("rota template apply {name} --shipped")),
            "{text}"
        );
        let file = format!("{name}.yaml");
        std::fs::write(fixture.dir().join(&file), &text)?;
        // A copy is the same template.
        let applied = fixture.rota(&["template", "apply", name, "-f", &file]).await.success();
        assert_eq!(applied, format!("template/{name} created"));
        let applied = fixture.rota(&["template", "apply", name, "--shipped"]).await.success();
        assert_eq!(applied, format!("template/{name} unchanged"));
        let graph = fixture.rota(&["workflow", "graph", "--format", "mermaid", "-f", &file]).await.success();
        assert!(PAGE.contains(graph.trim()), "{name} in docs/templates.md: {graph}");
        let parsed = fixture.rota(&["template", "get", name, "--shipped", "-o", "json"]).await.json();
        let stored = fixture.rota(&["template", "get", name, "-o", "json"]).await.json();
        assert_eq!(parsed["spec"], stored["spec"]);
        for parameter in stored["spec"]["parameters"].as_array().context("parameters")? {
            let row = format!("| `{}` |", parameter["name"].as_str().context("a name")?);
            assert!(PAGE.contains(&row), "{name}: {row}");
        }
    }
    fixture
        .rota(&["template", "apply", "none", "--shipped"])
        .await
        .failed(2, &["no template none", "deploy-app"]);
    std::fs::write(fixture.dir().join("bad.yaml"), "workflow: [")?;
    fixture
        .rota(&["template", "apply", "bad", "-f", "bad.yaml"])
        .await
        .failed(2, &["bad.yaml is not a template"]);
    Ok(())
}
