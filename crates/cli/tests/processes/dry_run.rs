//! `rota apply --dry-run`: reports changes without making them.

use anyhow::Result;
use rota_testkit::history;
use serde_json::Value;

use crate::{Fixture, Graces};

fn agent(slots: u32) -> String {
    format!(
        "apiVersion: rota.dev/v1alpha1\nkind: Agent\nmetadata: {{name: actor}}\n\
         spec: {{management: External, slots: {slots}, runtime: {{scripted: {{}}}}}}\n"
    )
}

fn task(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: rota.dev/v1alpha1\nkind: Task\nmetadata: {{name: {name}}}\nspec: {{agent: actor, {spec}}}\n"
    )
}

impl Fixture {
    async fn dry(&self, text: &str) -> crate::responses::Response {
        std::fs::write(self.dir().join("dry.yaml"), text).unwrap();
        self.rota(&["apply", "-f", "dry.yaml", "--dry-run"]).await
    }

    async fn all(&self) -> Vec<Value> {
        let mut all = Vec::new();
        for kind in ["tasks", "agents"] {
            all.push(self.rota(&["get", kind, "-o", "json"]).await.json());
        }
        all
    }
}

#[tokio::test]
async fn dry_run_reports_changes() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let nothing = fixture.all().await;
    // Objects of the same manifests count as existing.
    let both =
        agent(1) + &task("a", "strict: true, prompt: x") + &task("b", "strict: true, dependsOn: [{task: a}]");
    let would = "agent/actor would be created\ntask/a would be created\ntask/b would be created";
    assert_eq!(fixture.dry(&both).await.success(), would);
    let missing = fixture.dry(&task("a", "strict: true, prompt: x")).await;
    missing.failed(1, &["error: failed to apply task/a", "cause: agent \"actor\" does not exist"]);
    let ring = fixture
        .dry(&(task("a", "dependsOn: [{task: b}]") + &task("b", "dependsOn: [{task: a}]")))
        .await
        .success();
    for (line, name) in ring.lines().zip(["a", "b"]) {
        assert!(line.starts_with(&format!("task/{name} would be created and fail immediately: ")), "{ring}");
    }
    assert_eq!(fixture.all().await, nothing);

    // Existing objects.
    assert_eq!(fixture.apply("both.yaml", &both).await.success(), would.replace("would be ", ""));
    let there = fixture.all().await;
    let same = fixture.dry(&both).await.success();
    assert_eq!(same, "agent/actor unchanged\ntask/a unchanged\ntask/b unchanged");
    let changed = agent(3) + &task("a", "strict: true, prompt: x, priority: HIGH, desiredState: Suspended");
    assert_eq!(
        fixture.dry(&changed).await.success(),
        "agent/actor would be configured: spec.slots\ntask/a would be configured: priority, desired_state"
    );
    let applied = fixture.rota(&["apply", "-f", "dry.yaml", "--dry-run", "-o", "json"]).await.success();
    let applied: Vec<Value> = applied.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&applied[0]["fields"][0], &applied[1]["dryRun"]), (&"spec.slots".into(), &true.into()));
    // The error is that of a real run, with its hint.
    let other = task("a", "strict: true, prompt: else");
    let dry = fixture.dry(&other).await;
    dry.failed(1, &["cause: ", "spec.prompt"]);
    assert!(dry.err.contains("hint: a task keeps"), "{dry:?}");
    assert_eq!(fixture.apply("other.yaml", &other).await.err, dry.err);
    assert_eq!(fixture.all().await, there);
    history::check(&fixture.client()?, false).await?.check()
}

#[tokio::test]
async fn secrets_come_from_environment() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let shell = "apiVersion: rota.dev/v1alpha1\nkind: Agent\nmetadata: {name: actor}\n\
                 spec: {management: External, overrides: All, runtime: {command: {shell: 'printf %s \"$HUSH\" | wc -c'}}}\n";
    std::fs::write(fixture.dir().join("all.yaml"), shell.to_owned() + &task("a", "prompt: x"))?;
    let apply = ["apply", "-f", "all.yaml", "--secret-env", "HUSH"];
    fixture.rota(&apply).await.failed(2, &["error: HUSH is not set in the environment", "hint: "]);
    assert_eq!(fixture.rota(&["get", "tasks", "-o", "jsonl"]).await.success(), "");
    let mut command = fixture.command(&apply);
    command.env("HUSH", "seven__");
    crate::responses::Response::of(command, "").await.success();
    let _worker = fixture.worker("actor", "one", 1).await?;
    fixture.rota(&["wait", "a"]).await.success();
    assert_eq!(fixture.rota(&["result", "a"]).await.success(), "7");
    let read = fixture.rota(&["get", "task", "a", "-o", "json"]).await.success();
    assert!(read.contains("HUSH") && !read.contains("seven__"), "{read}");
    history::check(&fixture.client()?, true).await?.check()
}
