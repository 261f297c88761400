//! `rota dev`: everything on this machine, found by the other commands, and gone without a trace.

use anyhow::Result;
use nix::sys::signal::Signal;
use rota_client::{Client, Options, Token};
use rota_testkit::{history, tasks};

use crate::process::Process;
use crate::{Stage, seen, work};

const AGENT: &str = "\
apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: shell}
spec: {runtime: {command: {}}, slots: 2, maxReplicas: 2}
";
const HANGS: &str = "namespaces/default/tasks/hangs";

fn task(name: &str, mark: &str, line: &str) -> String {
    let line = serde_json::to_string(line).unwrap();
    format!(
        "---\napiVersion: rota.dev/v1alpha1\nkind: Task\nmetadata: {{name: {name}}}\n\
         spec:\n  agent: shell\n  limits: {{cancelGrace: 900ms}}\n  retry: {{maxAttempts: 1}}\n  \
         environment: {{MARK: {mark}}}\n  runtime: {{command: {{shell: {line}}}}}\n"
    )
}

/// One that is up, and a client of it.
async fn up(stage: &Stage) -> Result<(Process, Client)> {
    let command = stage.command(&["dev", "--data-dir", "data", "--listen", "127.0.0.1:0"]);
    let mut dev = Process::start("dev", command);
    let line = dev.says("rota dev is up at ").await;
    let mut options = Options::new(line.rsplit(' ').next().unwrap());
    options.token = Token::File(stage.dir().join("data/token"));
    Ok((dev, Client::new(options)?))
}

/// Hands in a task that never ends and has strays, and waits until all of it is there.
async fn hanging(stage: &Stage) -> Result<String> {
    let mark = work::mark();
    let text = AGENT.to_owned() + &task("hangs", &mark, &format!("{}{}", work::STRAYS, work::HANG));
    stage.apply("hangs.yaml", &text).await.done();
    seen::are_there(&mark, work::SESSIONS).await?;
    Ok(mark)
}

/// It ends, says that all is well, and nothing that it started is left.
async fn ends_in_order(dev: Process, signal: Signal, stage: &Stage) {
    dev.signal(signal);
    let ended = dev.ended().await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(seen::marked(stage.mark()), []);
}

#[tokio::test]
async fn manifests_are_done_and_the_exit_code_says_how() -> Result<()> {
    let stage = Stage::bare();
    let (dev, client) = up(&stage).await?;
    // It is found without being told where.
    std::fs::write(stage.dir().join("good.yaml"), AGENT.to_owned() + &task("good", "x", "echo well done"))?;
    let good = stage.rota(&["apply", "-f", "good.yaml", "--wait"]).await;
    assert_eq!(good.code, 0, "{good:?}");
    assert!(good.out.contains("task/good created") && good.out.contains("well done"), "{good:?}");
    let bad = task("fine", "x", "echo fine") + &task("bad", "x", "echo no >&2; exit 3");
    std::fs::write(stage.dir().join("bad.yaml"), bad)?;
    let bad = stage.rota(&["apply", "-f", "bad.yaml", "--wait"]).await;
    assert_eq!(bad.code, 1, "{bad:?}");
    assert!(bad.out.contains("exit code 3: no") && bad.out.contains("fine"), "{bad:?}");

    // Nobody else gets the same data, and the first one is still found.
    let second = stage.rota(&["dev", "--data-dir", "data", "--listen", "127.0.0.1:0"]).await;
    let pid = dev.pid().to_string();
    second.failed(1, &["error: ", "is in use by a `rota dev` at", client.endpoint(), &pid, "hint: "]);
    stage.rota(&["get", "task", "good"]).await.done();

    // With data of its own it would take the first one's commands away; in a home of its own it would not.
    let other = ["dev", "--data-dir", "other", "--listen", "127.0.0.1:0"];
    let second = stage.rota(&other).await;
    second.failed(1, &["error: there is a `rota dev` already at ", client.endpoint(), &pid, "ROTA_HOME"]);
    let mut apart = stage.command(&other);
    apart.env("ROTA_HOME", stage.dir().join("apart"));
    let mut apart = Process::start("apart", apart);
    apart.says("rota dev is up at ").await;
    apart.signal(Signal::SIGINT);
    assert_eq!(apart.ended().await.status.code(), Some(0));
    stage.rota(&["get", "task", "good"]).await.done();

    history::check(&client, true).await?.check()?;
    ends_in_order(dev, Signal::SIGINT, &stage).await;
    Ok(())
}

#[tokio::test]
async fn its_end_ends_everything_and_the_next_one_goes_on() -> Result<()> {
    let stage = Stage::bare();
    let (dev, _) = up(&stage).await?;
    let mark = hanging(&stage).await?;
    ends_in_order(dev, Signal::SIGINT, &stage).await;

    // The task was kept, and runs again. Told twice, it does not wait for the hanging agent.
    let (mut dev, client) = up(&stage).await?;
    seen::are_there(&mark, work::SESSIONS).await?;
    assert_eq!(tasks::get(&client, HANGS).await?.status.unwrap().attempt, 2);
    dev.signal(Signal::SIGINT);
    dev.says("ending workers").await;
    dev.signal(Signal::SIGINT);
    assert_eq!(dev.ended().await.status.code(), Some(130));
    seen::none_is_left(stage.mark()).await?;

    let (dev, client) = up(&stage).await?;
    stage.rota(&["cancel", "hangs"]).await.done();
    stage.rota(&["wait", "hangs"]).await.failed(3, &[]);
    history::check(&client, true).await?.check()?;
    ends_in_order(dev, Signal::SIGTERM, &stage).await;
    Ok(())
}

#[tokio::test]
async fn killed_it_leaves_neither_workers_nor_agents() -> Result<()> {
    let stage = Stage::bare();
    let (dev, _) = up(&stage).await?;
    hanging(&stage).await?;
    dev.kill().await;
    seen::none_is_left(stage.mark()).await?;

    // The next one takes over what it left behind.
    let (dev, client) = up(&stage).await?;
    tasks::until(&client, HANGS, |status| status.attempt == 2).await?;
    stage.rota(&["cancel", "hangs"]).await.done();
    stage.rota(&["wait", "hangs"]).await.failed(3, &[]);
    history::check(&client, true).await?.check()?;
    ends_in_order(dev, Signal::SIGINT, &stage).await;
    Ok(())
}
