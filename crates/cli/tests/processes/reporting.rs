//! `rota describe`, `rota workers`, `rota report` and `rota doctor`.

use anyhow::Result;
use rota_testkit::tasks;

use crate::{Fixture, Graces};

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

async fn done() -> Result<(Fixture, crate::process::Process)> {
    let fixture = Fixture::start(Graces::LONG).await?;
    fixture.apply("all.yaml", ACTOR).await.success();
    let worker = fixture.worker("actor", "one", 1).await?;
    for task in ["shaky", "broken"] {
        tasks::ended(&fixture.client()?, &format!("namespaces/default/tasks/{task}")).await?;
    }
    Ok((fixture, worker))
}

#[tokio::test]
async fn flow_shows_all_steps() -> Result<()> {
    let (fixture, _worker) = done().await?;
    let flow = fixture.rota(&["describe", "shaky", "--flow"]).await.success();
    let steps: Vec<_> = flow.lines().filter(|line| line.starts_with('+')).collect();
    let words: Vec<_> =
        steps.iter().map(|line| line.split_whitespace().find(|word| !word.ends_with('s')).unwrap()).collect();
    assert_eq!(
        words,
        ["created", "queued", "assigned", "running", "retry", "queued", "assigned", "running", "succeeded"],
        "{flow}"
    );
    assert!(flow.starts_with("shaky Succeeded after "), "{flow}");
    assert!(steps[4].contains("agent: not yet; next attempt at "), "{flow}");
    assert!(steps[3].contains("on one; 100 tokens in, 10 out $0.25"), "{flow}");
    let json = fixture.rota(&["describe", "shaky", "--flow", "-o", "json"]).await.json();
    assert_eq!((&json["steps"][3]["worker"], &json["steps"][3]["attempt"]), (&"one".into(), &1.into()));
    fixture.rota(&["describe", "worker", "one", "--flow"]).await.failed(2, &["error: --flow"]);
    Ok(())
}

#[tokio::test]
async fn worker_page_shows_activity() -> Result<()> {
    let (fixture, _worker) = done().await?;
    let client = fixture.client()?;
    // The counters follow the record.
    tasks::eventually("the worker's counters", async || {
        let workers = client.all_workers("namespaces/default", "").await?;
        Ok(workers[0].succeeded == 1 && workers[0].failed == 2)
    })
    .await?;
    let page = fixture.rota(&["workers", "one"]).await.success();
    for line in ["State:         Idle", "Attempts:      1 succeeded, 2 failed, 0 cancelled (33% success)"] {
        assert!(page.lines().any(|one| one.starts_with(line)), "{page}");
    }
    let recent: Vec<_> = page.split("Recent activity").nth(1).unwrap().lines().skip(2).collect();
    assert_eq!(recent.len(), 7, "{page}");
    assert!(recent[0].contains("shaky") || recent[0].contains("broken"), "{page}");
    assert!(recent[6].ends_with("connected"), "{page}");
    let json = fixture.rota(&["workers", "one", "-o", "json"]).await.json();
    assert_eq!(json["recentActivity"].as_array().unwrap().len(), 7);
    assert!(
        json["busyTime"].as_str().unwrap().ends_with('s') && !json["instance"].as_str().unwrap().is_empty()
    );
    fixture.rota(&["workers", "two"]).await.failed(4, &["error: worker two not found"]);
    fixture.rota(&["workers", "one", "-A"]).await.failed(2, &["error: "]);
    Ok(())
}

#[tokio::test]
async fn report_counts_tasks() -> Result<()> {
    let (fixture, _worker) = done().await?;
    let report = fixture.rota(&["report"]).await.success();
    for words in
        ["2 tasks from ", "Succeeded  1      50%", "Failed     1      50%", "agent  1      no way", "$0.50"]
    {
        assert!(report.contains(words), "{words:?} is not in {report}");
    }
    let json = fixture.rota(&["report", "--since", "1h", "-o", "json"]).await.json();
    assert_eq!((&json["tasks"], &json["retries"]["attempts"]), (&2.into(), &1.into()));
    assert_eq!(json["byAgent"][0]["costMicroUsd"], 500_000);
    let page = fixture.rota(&["report", "--markdown", "--limit", "1"]).await;
    assert!(
        page.out.starts_with("# 1 task from ")
            && page.out.contains("\n| state | tasks | share |\n| --- | --- | --- |\n")
    );
    assert!(page.err.contains("only the latest 1 tasks"), "{page:?}");
    // A range before the Unix epoch.
    assert_eq!(fixture.rota(&["report", "--since", "100years", "-o", "json"]).await.json()["tasks"], 2);
    assert_eq!(fixture.rota(&["report", "--agent", "other", "-o", "json"]).await.json()["tasks"], 0);

    let one = fixture.rota(&["report", "shaky"]).await.success();
    assert!(one.starts_with("shaky Succeeded after ") && one.contains("not yet"), "{one}");
    let json = fixture.rota(&["report", "shaky", "-o", "json"]).await.json();
    assert_eq!(
        (&json["attempts"][0]["end"], &json["attempts"][1]["end"]),
        (&"retry".into(), &"succeeded".into())
    );
    fixture.rota(&["report", "--markdown", "-o", "json"]).await.failed(2, &["error: --markdown"]);
    fixture.rota(&["report", "nothing"]).await.failed(4, &["error: "]);
    Ok(())
}

#[tokio::test]
async fn doctor_reports_problems() -> Result<()> {
    let (mut fixture, worker) = done().await?;
    let verdicts = async |fixture: &Fixture, args: &[&str]| {
        let response = fixture.rota(&[&["doctor", "-o", "json"], args].concat()).await;
        let json: serde_json::Value = serde_json::from_str(&response.out).unwrap();
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
        (response.code, names.map(|name| found(name).unwrap_or_default()))
    };
    // The token file of these tests is readable by others.
    let well = ["ok", "ok", "warn", "ok", "ok", "ok", "ok", "ok", "ok", "ok"].map(str::to_owned);
    // A slow start may degrade the control plane for a while.
    tasks::eventually("the verdicts", async || {
        let (code, found) = verdicts(&fixture, &[]).await;
        Ok(code == 0 && found == well)
    })
    .await?;
    let token = fixture.dir().join("token");
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    tasks::eventually("no warning", async || {
        let text = fixture.rota(&["doctor"]).await.success();
        // Root's attempts are not isolated.
        let warned = text.lines().any(|line| line.starts_with("warn") && !line.contains("isolation"));
        Ok(!warned && text.contains("ok    store "))
    })
    .await?;
    // An agent without a worker.
    worker.signal(nix::sys::signal::Signal::SIGTERM);
    worker.ended().await;
    let client = fixture.client()?;
    tasks::eventually("the worker's end", async || {
        Ok(client.all_workers("namespaces/default", "").await?.is_empty())
    })
    .await?;
    let text = fixture.rota(&["doctor"]).await.success();
    assert!(
        text.contains("warn  agents ") && text.contains("→ start one with `rota worker --agent actor`"),
        "{text}"
    );
    // A wrong token, an invalid config file, and no server.
    let other = fixture.dir().join("other");
    std::fs::write(&other, "another-token")?;
    let refused = fixture.rota(&["doctor", "--token-file", other.to_str().unwrap()]).await;
    assert!(refused.code == 5 && refused.out.contains("FAIL  token"), "{refused:?}");
    let config = fixture.dir().join("home/.config/rota/config.toml");
    std::fs::create_dir_all(config.parent().unwrap())?;
    std::fs::write(&config, "endpont = 'x'\n")?;
    let wrong = fixture.rota(&["doctor"]).await;
    assert!(
        wrong.code == 1 && wrong.out.starts_with("FAIL  config") && wrong.out.matches("FAIL").count() == 1,
        "{wrong:?}"
    );
    std::fs::remove_file(&config)?;
    fixture.kill_server().await;
    let unreachable = fixture.rota(&["doctor"]).await;
    assert!(
        unreachable.code == 5
            && unreachable.out.contains("FAIL  connection")
            && unreachable.out.contains("→ "),
        "{unreachable:?}"
    );
    Ok(())
}
