//! Deployments of a real application: a migrated database of SQLite, and a process that serves what was released over HTTP.

use std::path::PathBuf;

use anyhow::{Context, Result};
use rota_proto::v1::{StepState, WorkflowState};
use rota_testkit::tasks;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;

use super::{Ended, Site, site_of_programs};
use crate::process::Process;
use crate::responses::Response;

/// The application and the machine that runs it, as in `make demo`.
const APP: &str = include_str!("../../../../../examples/templates/shop/app.py");
const DEPLOY: &str = include_str!("../../../../../examples/templates/shop/deploy.py");
const FIRST: &str = include_str!("../../../../../examples/templates/shop/version.json");
const MACHINE: &str = include_str!("../../../../../examples/templates/machine.py");

/// Returns the description of a version, which adds a column to the customers, and shows one.
fn version(name: &str, adds: &str, reads: &str) -> String {
    json!({ "name": name, "adds": adds, "reads": reads }).to_string()
}

/// Response of the application: its version, its process, and what the database has.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Page {
    version: String,
    process: i32,
    customers: Value,
}

/// What is deployed, outside of all workspaces.
struct Production {
    site: Site,
    folder: PathBuf,
    shop: String,
    machine: String,
    _machine: Process,
}

impl Production {
    /// Starts a machine with a database, and no release.
    async fn start() -> Result<Self> {
        let site =
            site_of_programs(&[("app.py", APP), ("deploy.py", DEPLOY), ("version.json", FIRST)]).await?;
        let folder = site.fixture.dir().join("production");
        std::fs::create_dir(&folder)?;
        let at = folder.to_str().context("a path")?;
        let command = site.fixture.command_of("python3".as_ref(), &["-c", MACHINE, at]);
        let mut process = Process::start("machine", command);
        let line = process.prints("http://").await;
        let (shop, machine) = line.split_once(' ').context("two addresses")?;
        let (shop, machine) = (shop.to_owned(), machine.to_owned());
        Ok(Self { site, folder, shop, machine, _machine: process })
    }

    /// Returns the columns of the customers.
    async fn columns(&self) -> Result<Vec<String>> {
        let script = "import json, sqlite3; rows = sqlite3.connect('shop.db').execute('PRAGMA table_info(customers)')\n\
                      print(json.dumps([row[1] for row in rows]))";
        let mut command = Command::new("python3");
        command.args(["-c", script]).current_dir(&self.folder);
        Ok(serde_json::from_str(&Response::of(command, "").await.success())?)
    }

    async fn page(&self) -> Result<Page> {
        let client = reqwest::Client::builder().no_proxy().timeout(tasks::WAIT_TIMEOUT).build()?;
        let answer = client.get(&self.shop).send().await?.error_for_status()?;
        Ok(serde_json::from_str(&answer.text().await?)?)
    }

    /// Returns the lines that the commands wrote since the last call.
    fn history(&self) -> Vec<String> {
        let file = self.folder.join("history");
        let lines = std::fs::read_to_string(&file).unwrap_or_default();
        let _ = std::fs::remove_file(file);
        lines.lines().map(str::to_owned).collect()
    }

    /// Starts the deployment of a tag.
    async fn start_deployment(&self, tag: &str) {
        let at = self.folder.display();
        let mut parameters = vec![
            ("ref", tag.to_owned()),
            ("since", "HEAD~1".to_owned()),
            ("test", "python3 -m py_compile app.py".to_owned()),
            ("notify", format!("echo \"$OUTCOME:$FAILED_STEP:$VERSION\" >> '{at}/history'")),
        ];
        parameters.extend(["build", "migrate", "undoMigrate", "release", "undoRelease", "smoke"].map(
            |action| {
                let line = format!("python3 deploy.py {action} '{at}' {} {}", self.machine, self.shop);
                (action, line)
            },
        ));
        let parameters: Vec<_> = parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.site.start("deploy-app", &parameters).await.success();
    }

    async fn deploy(&self, tag: &str) -> Result<Ended> {
        self.start_deployment(tag).await;
        self.site.ended("deploy-app").await
    }
}

#[tokio::test]
async fn failed_smoke_test_takes_release_and_migration_back() -> Result<()> {
    let production = Production::start().await?;
    let good = production.site.push("v2", &[("version.json", &version("v2", "email", "email"))]).await?;
    let deployed = production.deploy("v2").await?.succeeded();
    assert_eq!(deployed.output("version"), good.as_str());
    assert_eq!(deployed.names(StepState::Skipped), ["overrule"]);
    let page = production.page().await?;
    assert_eq!((page.version.as_str(), &page.customers), ("v2", &json!([["ada", "none"]])));
    assert_eq!(production.columns().await?, ["name", "email"]);
    let done = ["build", "migrate", "release", "smoke", &format!("SUCCEEDED::{good}")];
    assert_eq!(production.history(), done);

    // Migrates as it should, and reads a column that is not there.
    let bad = production.site.push("v3", &[("version.json", &version("v3", "phone", "telephone"))]).await?;
    let failed = production.deploy("v3").await?;
    assert_eq!((failed.state(), failed.names(StepState::Failed)), (WorkflowState::Failed, vec!["smoke"]));
    for name in ["migrate", "release"] {
        assert_eq!(failed.step(name).compensation(), StepState::Succeeded, "{name}");
    }
    for command in ["get", "watch"] {
        let shown = production.site.fixture.rota(&["workflow", command, "deploy-app"]).await.out;
        assert_eq!(shown.matches("compensation SUCCEEDED").count(), 2, "{shown}");
    }
    let undone =
        ["build", "migrate", "release", "undoRelease", "undoMigrate", &format!("FAILED:smoke:{bad}")];
    assert_eq!(production.history(), undone);
    // The version before serves again, in another process: that of the failed one had replaced it.
    let again = production.page().await?;
    assert_ne!(again.process, page.process);
    assert_eq!(Page { process: page.process, ..again.clone() }, page);
    let command = std::fs::read_to_string(format!("/proc/{}/cmdline", again.process))?;
    assert!(command.contains("current/app.py"), "{command}");
    assert_eq!(production.columns().await?, ["name", "email"]);
    assert!(production.folder.join("releases").join(bad).exists(), "it was released");
    rota_testkit::history::check(&production.site.fixture.client()?, true).await?.check()
}

#[tokio::test]
async fn person_decides_on_what_a_review_rejects() -> Result<()> {
    let production = Production::start().await?;
    let site = &production.site;
    let source = format!("{APP}# XXX: $(touch never) loses data\n");
    let files = [("app.py", source.as_str()), ("version.json", &version("v2", "email", "email"))];
    let commit = site.push("v2", &files).await?;
    for (decision, outcome) in [("reject", "FAILED:overrule"), ("approve", "SUCCEEDED:")] {
        production.start_deployment("v2").await;
        tasks::eventually("the question", || async {
            let client = site.fixture.client()?;
            let steps = client.all_workflow_steps("namespaces/default/workflows/deploy-app").await?;
            let question = format!("The review rejects {commit}: # XXX: $(touch never) loses data");
            Ok(steps.iter().any(|step| step.prompt.starts_with(&question)))
        })
        .await?;
        assert_eq!(production.history(), [""; 0], "nothing has happened yet");
        site.fixture.rota(&["workflow", decision, "deploy-app", "--step", "overrule"]).await.success();
        let ended = site.ended("deploy-app").await?;
        let history = production.history();
        assert_eq!(history.last(), Some(&format!("{outcome}:{commit}")), "{:?}", ended.steps);
        assert_eq!(history.len(), if decision == "approve" { 5 } else { 1 });
    }
    assert_eq!(production.page().await?.version, "v2");
    Ok(())
}
