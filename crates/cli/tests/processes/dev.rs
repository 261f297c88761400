//! `rota dev`: discovery by other commands, shutdown without leftovers.

use anyhow::Result;
use nix::sys::signal::Signal;
use rota_client::{Client, Options, Token};
use rota_proto::v1::TaskState;
use rota_testkit::{history, tasks};

use crate::process::Process;
use crate::{Fixture, procfs, workload};

pub(crate) const AGENT: &str = "\
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

/// Starts `rota dev`, and returns it with a client.
pub(crate) async fn up(fixture: &Fixture) -> Result<(Process, Client)> {
    let command = fixture.command(&["dev", "--data-dir", "data", "--listen", "127.0.0.1:0"]);
    let mut dev = Process::start("dev", command);
    let line = dev.prints("rota dev is running at ").await;
    let mut options = Options::new(line.rsplit(' ').next().unwrap());
    options.token = Token::File(fixture.dir().join("data/token"));
    Ok((dev, Client::new(options)?))
}

/// Creates a task that never ends and has orphans, and waits for all its processes.
async fn hanging(fixture: &Fixture) -> Result<String> {
    let mark = workload::mark();
    let text = AGENT.to_owned() + &task("hangs", &mark, &format!("{}{}", workload::ORPHANS, workload::HANG));
    fixture.apply("hangs.yaml", &text).await.success();
    procfs::wait_for_sessions(&mark, workload::SESSIONS).await?;
    Ok(mark)
}

/// Checks that `rota dev` exits with 0 and leaves no process.
async fn exits_gracefully(dev: Process, signal: Signal, fixture: &Fixture) {
    dev.signal(signal);
    let ended = dev.ended().await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(procfs::marked(fixture.mark()), []);
}

#[tokio::test]
async fn apply_waits_and_reports_exit_code() -> Result<()> {
    let fixture = Fixture::bare();
    let (dev, client) = up(&fixture).await?;
    // Commands find it by themselves.
    std::fs::write(fixture.dir().join("good.yaml"), AGENT.to_owned() + &task("good", "x", "echo well done"))?;
    let good = fixture.rota(&["apply", "-f", "good.yaml", "--wait"]).await;
    assert_eq!(good.code, 0, "{good:?}");
    assert!(good.out.contains("task/good created") && good.out.contains("well done"), "{good:?}");
    let bad = task("fine", "x", "echo fine") + &task("bad", "x", "echo no >&2; exit 3");
    std::fs::write(fixture.dir().join("bad.yaml"), bad)?;
    let bad = fixture.rota(&["apply", "-f", "bad.yaml", "--wait"]).await;
    assert_eq!(bad.code, 1, "{bad:?}");
    assert!(bad.out.contains("exit code 3: no") && bad.out.contains("fine"), "{bad:?}");

    // A second one cannot use the same data, and the first is still found.
    let second = fixture.rota(&["dev", "--data-dir", "data", "--listen", "127.0.0.1:0"]).await;
    let pid = dev.pid().to_string();
    second.failed(1, &["error: ", "is in use by a `rota dev` at", client.endpoint(), &pid, "hint: "]);
    fixture.rota(&["get", "task", "good"]).await.success();

    // With other data it would hide the first one from commands, unless it also has another home.
    let other = ["dev", "--data-dir", "other", "--listen", "127.0.0.1:0"];
    let second = fixture.rota(&other).await;
    second.failed(1, &["error: another `rota dev` is running at ", client.endpoint(), &pid, "ROTA_HOME"]);
    let mut apart = fixture.command(&other);
    apart.env("ROTA_HOME", fixture.dir().join("apart"));
    let mut apart = Process::start("apart", apart);
    apart.prints("rota dev is running at ").await;
    apart.signal(Signal::SIGINT);
    assert_eq!(apart.ended().await.status.code(), Some(0));
    fixture.rota(&["get", "task", "good"]).await.success();

    history::check(&client, true).await?.check()?;
    exits_gracefully(dev, Signal::SIGINT, &fixture).await;
    Ok(())
}

/// Keys in the terminal of a user are none of the agents': neither workers, nor supervisors, nor programs get them.
#[tokio::test]
async fn workers_do_not_inherit_the_environment() -> Result<()> {
    let fixture = Fixture::bare();
    let mut command = fixture.command(&["dev", "--data-dir", "data", "--listen", "127.0.0.1:0"]);
    let keys = ["AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "ROTA_TOKEN", "SSH_AUTH_SOCK", "KUBECONFIG"];
    command.envs(keys.map(|name| (name, "of the user alone"))).env("LC_TIME", "C.UTF-8");
    let mut dev = Process::start("dev", command);
    dev.prints("rota dev is running at ").await;
    let mark = hanging(&fixture).await?;
    let pid = dev.pid();
    let all = procfs::marked(fixture.mark()).into_iter().chain(procfs::marked(&mark));
    let others: Vec<_> = all.filter(|one| one.pid != pid).collect();
    let workers = others.iter().filter(|one| one.parent() == Some(pid)).count();
    assert!(workers >= 1 && others.len() > workers, "{others:#?}");
    for process in others {
        let environment = std::fs::read(format!("/proc/{}/environ", process.pid))?;
        let environment = String::from_utf8_lossy(&environment);
        let leaked = environment.split('\0').find(|variable| variable.contains("of the user alone"));
        assert_eq!(leaked, None, "{process:?}");
        // What a worker needs is there, so that nothing else hides what is not.
        if process.parent() == Some(pid) {
            assert!(
                environment.contains("PATH=") && environment.contains("LC_TIME=C.UTF-8"),
                "{environment}"
            );
        }
    }
    dev.signal(Signal::SIGINT);
    dev.prints("draining workers").await;
    dev.signal(Signal::SIGINT);
    dev.ended().await;
    procfs::wait_for_none(fixture.mark()).await
}

#[tokio::test]
async fn tasks_continue_after_restart() -> Result<()> {
    let fixture = Fixture::bare();
    let (dev, _) = up(&fixture).await?;
    let mark = hanging(&fixture).await?;
    // The terminal is closed.
    exits_gracefully(dev, Signal::SIGHUP, &fixture).await;

    // The task was kept, and runs again. The second signal does not wait for the hanging agent.
    let (mut dev, client) = up(&fixture).await?;
    procfs::wait_for_sessions(&mark, workload::SESSIONS).await?;
    let status = tasks::get(&client, HANGS).await?.status.unwrap();
    assert_eq!((status.attempt, status.worker_losses), (2, 0));
    dev.signal(Signal::SIGINT);
    dev.prints("draining workers").await;
    dev.signal(Signal::SIGINT);
    assert_eq!(dev.ended().await.status.code(), Some(130));
    procfs::wait_for_none(fixture.mark()).await?;

    let (dev, client) = up(&fixture).await?;
    fixture.rota(&["cancel", "hangs"]).await.success();
    fixture.rota(&["wait", "hangs"]).await.failed(3, &[]);
    history::check(&client, true).await?.check()?;
    exits_gracefully(dev, Signal::SIGTERM, &fixture).await;
    Ok(())
}

#[tokio::test]
async fn killed_dev_leaves_no_processes() -> Result<()> {
    let fixture = Fixture::bare();
    let (dev, client) = up(&fixture).await?;
    hanging(&fixture).await?;
    // An attempt counts once its acceptance is durable, which may be after its program has started.
    tasks::until(&client, HANGS, |status| status.state() == TaskState::Running).await?;
    dev.kill().await;
    procfs::wait_for_none(fixture.mark()).await?;

    // The next one continues its tasks.
    let (dev, client) = up(&fixture).await?;
    tasks::until(&client, HANGS, |status| status.attempt == 2).await?;
    fixture.rota(&["cancel", "hangs"]).await.success();
    fixture.rota(&["wait", "hangs"]).await.failed(3, &[]);
    history::check(&client, true).await?.check()?;
    exits_gracefully(dev, Signal::SIGINT, &fixture).await;
    Ok(())
}

#[tokio::test]
async fn isolation_without_effect_is_reported() -> Result<()> {
    let fixture = Fixture::bare();
    let (dev, _client) = up(&fixture).await?;
    let isolated =
        task("alone", "x", "true").replace("  agent: shell\n", "  agent: shell\n  isolation: Pod\n");
    let applied = fixture.apply("alone.yaml", &(AGENT.to_owned() + &isolated)).await;
    assert!(applied.err.contains("task/alone: isolation Pod has no effect here"), "{applied:?}");
    let shared = fixture.apply("shared.yaml", &task("shared", "x", "true")).await;
    assert!(!shared.err.contains("isolation"), "{shared:?}");
    exits_gracefully(dev, Signal::SIGINT, &fixture).await;
    Ok(())
}
