//! What a task's life, a worker, a span and this machine's way to a control plane are told as.

use anyhow::Result;
use rota_testkit::tasks;

use crate::{Graces, Stage};

const ACTOR: &str = "\
apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: actor}
spec: {management: External, runtime: {scripted: {}}}
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: shaky}
spec:
  agent: actor
  retry: {maxAttempts: 2, initialBackoff: 10ms, maxBackoff: 10ms}
  runtime:
    scripted:
      steps:
        - {usage: {inputTokens: 100, outputTokens: 10, costUsd: '0.25'}}
        - {fail: {message: not yet, attempts: 1}}
        - {succeed: done}
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: broken}
spec: {agent: actor, retry: {maxAttempts: 1}, runtime: {scripted: {steps: [{fail: {message: no way}}]}}}
";

async fn done() -> Result<(Stage, crate::process::Process)> {
    let stage = Stage::start(Graces::LONG).await?;
    stage.apply("all.yaml", ACTOR).await.done();
    let worker = stage.worker("actor", "one", 1).await?;
    for task in ["shaky", "broken"] {
        tasks::ended(&stage.client()?, &format!("namespaces/default/tasks/{task}")).await?;
    }
    Ok((stage, worker))
}

#[tokio::test]
async fn the_life_of_a_task() -> Result<()> {
    let (stage, _worker) = done().await?;
    let flow = stage.rota(&["describe", "shaky", "--flow"]).await.done();
    let steps: Vec<_> = flow.lines().filter(|line| line.starts_with('+')).collect();
    let words: Vec<_> =
        steps.iter().map(|line| line.split_whitespace().find(|word| !word.ends_with('s')).unwrap()).collect();
    assert_eq!(
        words,
        ["created", "queued", "assigned", "running", "retry", "queued", "assigned", "running", "succeeded"],
        "{flow}"
    );
    assert!(flow.starts_with("shaky Succeeded after "), "{flow}");
    assert!(steps[4].contains("agent: not yet; next try at "), "{flow}");
    assert!(steps[3].contains("on one; 100 tokens in, 10 out $0.25"), "{flow}");
    let json = stage.rota(&["describe", "shaky", "--flow", "-o", "json"]).await.json();
    assert_eq!((&json["steps"][3]["worker"], &json["steps"][3]["attempt"]), (&"one".into(), &1.into()));
    stage.rota(&["describe", "worker", "one", "--flow"]).await.failed(2, &["error: --flow"]);
    Ok(())
}

#[tokio::test]
async fn one_worker() -> Result<()> {
    let (stage, _worker) = done().await?;
    let client = stage.client()?;
    // Its figures follow the record.
    tasks::eventually("the worker's figures", async || {
        let workers = client.all_workers("namespaces/default", "").await?;
        Ok(workers[0].succeeded == 1 && workers[0].failed == 2)
    })
    .await?;
    let page = stage.rota(&["workers", "one"]).await.done();
    for line in ["State:         Idle", "Done:          1 succeeded, 2 failed, 0 cancelled (33% success)"] {
        assert!(page.lines().any(|one| one.starts_with(line)), "{page}");
    }
    let lately: Vec<_> = page.split("Lately").nth(1).unwrap().lines().skip(2).collect();
    assert_eq!(lately.len(), 7, "{page}");
    assert!(lately[0].contains("shaky") || lately[0].contains("broken"), "{page}");
    assert!(lately[6].ends_with("connected"), "{page}");
    let json = stage.rota(&["workers", "one", "-o", "json"]).await.json();
    assert_eq!(json["recent"].as_array().unwrap().len(), 7);
    assert!(
        json["busyTime"].as_str().unwrap().ends_with('s') && !json["instance"].as_str().unwrap().is_empty()
    );
    stage.rota(&["workers", "two"]).await.failed(4, &["error: there is no worker two"]);
    stage.rota(&["workers", "one", "-A"]).await.failed(2, &["error: "]);
    Ok(())
}

#[tokio::test]
async fn reports() -> Result<()> {
    let (stage, _worker) = done().await?;
    let fleet = stage.rota(&["report"]).await.done();
    for words in
        ["2 tasks from ", "Succeeded  1      50%", "Failed     1      50%", "agent  1      no way", "$0.50"]
    {
        assert!(fleet.contains(words), "{words:?} is not in {fleet}");
    }
    let json = stage.rota(&["report", "--since", "1h", "-o", "json"]).await.json();
    assert_eq!((&json["tasks"], &json["retries"]["attempts"]), (&2.into(), &1.into()));
    assert_eq!(json["byAgent"][0]["costMicroUsd"], 500_000);
    let page = stage.rota(&["report", "--markdown", "--limit", "1"]).await;
    assert!(
        page.out.starts_with("# 1 task from ")
            && page.out.contains("\n| state | tasks | share |\n| --- | --- | --- |\n")
    );
    assert!(page.err.contains("only the latest 1 tasks"), "{page:?}");
    // From before the clock began.
    assert_eq!(stage.rota(&["report", "--since", "100years", "-o", "json"]).await.json()["tasks"], 2);
    assert_eq!(stage.rota(&["report", "--agent", "other", "-o", "json"]).await.json()["tasks"], 0);

    let one = stage.rota(&["report", "shaky"]).await.done();
    assert!(one.starts_with("shaky Succeeded after ") && one.contains("not yet"), "{one}");
    let json = stage.rota(&["report", "shaky", "-o", "json"]).await.json();
    assert_eq!(
        (&json["attempts"][0]["end"], &json["attempts"][1]["end"]),
        (&"retry".into(), &"succeeded".into())
    );
    stage.rota(&["report", "--markdown", "-o", "json"]).await.failed(2, &["error: --markdown"]);
    stage.rota(&["report", "nothing"]).await.failed(4, &["error: "]);
    Ok(())
}

#[tokio::test]
async fn a_doctor_finds_what_is_wrong() -> Result<()> {
    let (mut stage, worker) = done().await?;
    let verdicts = async |stage: &Stage, args: &[&str]| {
        let answer = stage.rota(&[&["doctor", "-o", "json"], args].concat()).await;
        let json: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
        let found = |name: &str| {
            let mut checks = json["checks"].as_array().unwrap().iter().filter(|check| check["name"] == name);
            checks.next_back().map(|check| check["verdict"].as_str().unwrap().to_owned())
        };
        let names = [
            "config",
            "server",
            "token",
            "connection",
            "version",
            "clock",
            "control plane",
            "store",
            "agents",
            "workers",
        ];
        (answer.code, names.map(|name| found(name).unwrap_or_default()))
    };
    // The token of these tests lies open.
    let well = ["ok", "ok", "warn", "ok", "ok", "ok", "ok", "ok", "ok", "ok"].map(str::to_owned);
    assert_eq!(verdicts(&stage, &[]).await, (0, well.clone()));
    let token = stage.dir().join("token");
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let text = stage.rota(&["doctor"]).await.done();
    assert!(!text.contains("warn") && text.contains("ok    store "), "{text}");
    // An agent that nobody serves.
    worker.signal(nix::sys::signal::Signal::SIGTERM);
    worker.ended().await;
    let client = stage.client()?;
    tasks::eventually("the worker's end", async || {
        Ok(client.all_workers("namespaces/default", "").await?.is_empty())
    })
    .await?;
    let text = stage.rota(&["doctor"]).await.done();
    assert!(
        text.contains("warn  agents ") && text.contains("→ start one with `rota worker --agent actor`"),
        "{text}"
    );
    // A token that is another one, a config file that nobody understands, and no server.
    let other = stage.dir().join("other");
    std::fs::write(&other, "another-token")?;
    let refused = stage.rota(&["doctor", "--token-file", other.to_str().unwrap()]).await;
    assert!(refused.code == 5 && refused.out.contains("FAIL  token"), "{refused:?}");
    let config = stage.dir().join("home/.config/rota/config.toml");
    std::fs::create_dir_all(config.parent().unwrap())?;
    std::fs::write(&config, "endpont = 'x'\n")?;
    let wrong = stage.rota(&["doctor"]).await;
    assert!(
        wrong.code == 1 && wrong.out.starts_with("FAIL  config") && wrong.out.matches("FAIL").count() == 1,
        "{wrong:?}"
    );
    std::fs::remove_file(&config)?;
    stage.kill_server().await;
    let gone = stage.rota(&["doctor"]).await;
    assert!(gone.code == 5 && gone.out.contains("FAIL  connection") && gone.out.contains("→ "), "{gone:?}");
    Ok(())
}
