//! `rota apply --dry-run`: says what would be done, and does nothing.

use anyhow::Result;
use rota_testkit::history;
use serde_json::Value;

use crate::{Graces, Stage};

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

impl Stage {
    async fn dry(&self, text: &str) -> crate::answers::Answer {
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
async fn what_only_the_server_knows() -> Result<()> {
    let stage = Stage::start(Graces::LONG).await?;
    let nothing = stage.all().await;
    // What the manifests bring counts; what nobody brings does not.
    let both =
        agent(1) + &task("a", "strict: true, prompt: x") + &task("b", "strict: true, dependsOn: [{task: a}]");
    let would = "agent/actor would be created\ntask/a would be created\ntask/b would be created";
    assert_eq!(stage.dry(&both).await.done(), would);
    let missing = stage.dry(&task("a", "strict: true, prompt: x")).await;
    missing.failed(1, &["error: task/a could not be applied", "cause: agent \"actor\" does not exist"]);
    let ring =
        stage.dry(&(task("a", "dependsOn: [{task: b}]") + &task("b", "dependsOn: [{task: a}]"))).await.done();
    for (line, name) in ring.lines().zip(["a", "b"]) {
        assert!(line.starts_with(&format!("task/{name} would be created, and fail at once: ")), "{ring}");
    }
    assert_eq!(stage.all().await, nothing);

    // What is there already.
    assert_eq!(stage.apply("both.yaml", &both).await.done(), would.replace("would be ", ""));
    let there = stage.all().await;
    let same = stage.dry(&both).await.done();
    assert_eq!(same, "agent/actor unchanged\ntask/a unchanged\ntask/b unchanged");
    let changed = agent(3) + &task("a", "strict: true, prompt: x, priority: HIGH, desiredState: Suspended");
    assert_eq!(
        stage.dry(&changed).await.done(),
        "agent/actor would be configured: spec.slots\ntask/a would be configured: priority, desired_state"
    );
    let told = stage.rota(&["apply", "-f", "dry.yaml", "--dry-run", "-o", "json"]).await.done();
    let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&told[0]["fields"][0], &told[1]["dryRun"]), (&"spec.slots".into(), &true.into()));
    // The same error as the real one, word for word.
    let other = task("a", "strict: true, prompt: else");
    let dry = stage.dry(&other).await;
    dry.failed(1, &["cause: ", "spec.prompt"]);
    assert_eq!(stage.apply("other.yaml", &other).await.err, dry.err);
    assert_eq!(stage.all().await, there);
    history::check(&stage.client()?, false).await?.check()
}

#[tokio::test]
async fn secrets_come_from_the_callers_environment() -> Result<()> {
    let stage = Stage::start(Graces::LONG).await?;
    let shell = "apiVersion: rota.dev/v1alpha1\nkind: Agent\nmetadata: {name: actor}\n\
                 spec: {management: External, runtime: {command: {shell: 'printf %s \"$HUSH\" | wc -c'}}}\n";
    std::fs::write(stage.dir().join("all.yaml"), shell.to_owned() + &task("a", "prompt: x"))?;
    let apply = ["apply", "-f", "all.yaml", "--secret-env", "HUSH"];
    stage.rota(&apply).await.failed(2, &["error: HUSH is not set in the environment", "hint: "]);
    assert_eq!(stage.rota(&["get", "tasks", "-o", "jsonl"]).await.done(), "");
    let mut command = stage.command(&apply);
    command.env("HUSH", "seven__");
    crate::answers::Answer::of(command, "").await.done();
    let _worker = stage.worker("actor", "one", 1).await?;
    stage.rota(&["wait", "a"]).await.done();
    assert_eq!(stage.rota(&["result", "a"]).await.done(), "7");
    let read = stage.rota(&["get", "task", "a", "-o", "json"]).await.done();
    assert!(read.contains("HUSH") && !read.contains("seven__"), "{read}");
    history::check(&stage.client()?, true).await?.check()
}
