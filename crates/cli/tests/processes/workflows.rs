//! Workflows on the command line: the page of docs, run as it is written, over a killed control plane.

use std::path::Path;

use anyhow::{Context, Result};

use crate::Fixture;
use crate::fixture::Graces;
use crate::responses::Response;

const PAGE: &str = include_str!("../../../../docs/workflows.md");
const AGENT: &str = "\
apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: shell}
spec: {runtime: {command: {}}, slots: 4, management: External}
";

/// Returns the commands of the page, in order.
fn commands() -> Vec<&'static str> {
    let blocks = PAGE.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.flat_map(str::lines).filter(|line| line.starts_with("rota workflow ")).collect()
}

/// Runs a line of the page in a shell.
async fn run(fixture: &Fixture, line: &str) -> String {
    let script = format!("rota() {{ '{}' \"$@\"; }}\n{line}", env!("CARGO_BIN_EXE_rota"));
    Response::of(fixture.command_of(Path::new("bash"), &["-c", &script]), "").await.success()
}

/// Waits until the workflow asks a person.
async fn asks(fixture: &Fixture) -> Result<()> {
    rota_testkit::tasks::eventually("the approval", || async {
        let explained = fixture.rota(&["workflow", "explain", "release", "--step", "approve"]).await;
        Ok(explained.out.contains("waits for a decision: Announce 3 modules?"))
    })
    .await
}

#[tokio::test]
async fn commands_of_the_page_run() -> Result<()> {
    let mut fixture = Fixture::start(Graces::LONG).await?;
    fixture.apply("agent.yaml", AGENT).await.success();
    let _worker = fixture.worker("shell", "one", 4).await?;
    let file = PAGE.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).context("a file")?;
    std::fs::write(fixture.dir().join("release.yaml"), file)?;
    let commands = commands();
    let [create, list, get, explain, approve, watch, rerun, cancel] = commands.as_slice() else {
        anyhow::bail!("other commands: {commands:?}");
    };
    let created = run(&fixture, create).await;
    assert!(created.contains("workflow/release created"), "{created}");
    let listed = run(&fixture, list).await;
    assert!(listed.contains("release") && listed.contains("RUNNING"), "{listed}");
    asks(&fixture).await?;
    let shown = run(&fixture, get).await;
    assert!(shown.contains("3/3") && shown.contains("Announce 3 modules?"), "{shown}");
    run(&fixture, explain).await;

    fixture.kill_server().await;
    fixture.start_server().await?;
    asks(&fixture).await?;
    run(&fixture, approve).await;
    let watched = run(&fixture, watch).await;
    assert!(watched.contains("workflow SUCCEEDED"), "{watched}");
    let ended = run(&fixture, get).await;
    assert!(ended.contains("announced api and web and cli"), "{ended}");
    let again = run(&fixture, rerun).await;
    assert!(again.contains("workflow/release created"), "{again}");
    run(&fixture, cancel).await;
    let watched = fixture.rota(&["workflow", "watch", "release"]).await;
    assert_eq!(watched.code, 1, "{watched:?}");
    assert!(watched.out.contains("workflow CANCELLED: was a test"), "{watched:?}");
    rota_testkit::history::check(&fixture.client()?, true).await?.check()
}
