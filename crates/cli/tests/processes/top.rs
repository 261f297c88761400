//! `rota top` and `rota explain` in a terminal.

use anyhow::Result;
use nix::sys::signal::Signal;
use rota_proto::v1::TaskState;
use rota_testkit::tasks;

use crate::process::Process;
use crate::terminal::{Terminal, steady};
use crate::{Fixture, Graces};

const ALL: &str = "\
apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: actor}
spec: {management: External, runtime: {scripted: {}}}
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: build}
spec: {agent: actor, runtime: {scripted: {steps: [{progress: 0.4}, {hang: true}]}}}
";

/// Returns the manifest of a task.
fn more(name: &str, rest: &str) -> String {
    format!("---\napiVersion: rota.dev/v1alpha1\nkind: Task\nmetadata: {{name: {name}}}\nspec: {{{rest}}}\n")
}

/// Returns a fixture with a running task, a queued one, and one that waits for an agent.
async fn filled() -> Result<(Fixture, Process)> {
    let fixture = Fixture::start(Graces::LONG).await?;
    fixture.apply("all.yaml", ALL).await.success();
    let worker = fixture.worker("actor", "one", 1).await?;
    let client = fixture.client()?;
    let build = "namespaces/default/tasks/build";
    tasks::until(&client, build, |status| status.progress.is_some()).await?;
    fixture
        .apply("more.yaml", &(more("next", "agent: actor") + &more("lost", "agent: missing")))
        .await
        .success();
    tasks::until_state(&client, "namespaces/default/tasks/next", TaskState::Queued).await?;
    Ok((fixture, worker))
}

#[tokio::test]
async fn top_follows_changes() -> Result<()> {
    let (fixture, _worker) = filled().await?;
    let mut top = Terminal::start(&fixture.command(&["top"]), 16, 100);
    let wanted = [
        "rota top SERVER default",
        "running 1 input required 0 queued 1 pending 1 workers 1 cost $0/min",
        "",
        "AGENT READY BUSY IDLE DRAINING QUEUED RUNNING FLOOR CEILING",
        "actor 1 1 0 0 1 1 0 1",
        "",
        "TASK STATE TIME AGENT WORKER ATTEMPT COST ACTIVITY",
        "build Running TIME actor one 1 ████░░░░░░ 40%",
        "next Queued TIME actor",
        "lost Pending TIME missing agent missing missing",
        "",
        "",
        "",
        "",
        "",
        "q quit s sort: state f show: all ↑↓ scroll",
    ];
    top.shows("all agents", |lines| steady(lines) == wanted).await;
    // Changes appear.
    fixture.apply("later.yaml", &more("later", "agent: actor")).await.success();
    top.prints("later Queued").await;
    top.prints("queued 2").await;
    // Fewer tasks, another order.
    top.press("f");
    let lines = top.prints("show: running").await;
    assert!(!lines.iter().any(|line| line.starts_with("next")), "{lines:#?}");
    top.press("ffff");
    top.press("s");
    top.prints("sort: age show: all").await;
    // Another size is another frame.
    for (rows, cols) in [(10, 60), (4, 20), (30, 120)] {
        top.resize(rows, cols);
        let foot = usize::from(rows) - 1;
        top.shows("the foot", |lines| lines.get(foot).is_some_and(|line| line.starts_with("q quit"))).await;
    }
    // Finished tasks disappear.
    fixture.rota(&["cancel", "build"]).await.success();
    top.shows("the end of build", |lines| !lines.iter().any(|line| line.starts_with("build "))).await;
    top.press("q");
    assert_eq!(top.ended().await, 0);
    Ok(())
}

#[tokio::test]
async fn terminal_is_restored_on_exit() -> Result<()> {
    let (fixture, _worker) = filled().await?;
    let start = async || {
        let mut top = Terminal::start(&fixture.command(&["top"]), 12, 80);
        top.prints("build Running").await;
        top
    };
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let top = start().await;
        top.signal(signal);
        assert_eq!(top.ended().await, 130, "{signal}");
    }
    let mut top = start().await;
    top.press("\u{3}");
    assert_eq!(top.ended().await, 130);
    Ok(())
}

#[tokio::test]
async fn closed_terminal_ends_top() -> Result<()> {
    let (fixture, _worker) = filled().await?;
    let ended = Terminal::closed_after(&fixture.command(&["top"]), "build").await;
    assert_eq!((ended.exit_code(), ended.signal()), (130, None));
    Ok(())
}

#[tokio::test]
async fn lost_connection_is_shown() -> Result<()> {
    let (mut fixture, _worker) = filled().await?;
    let mut top = Terminal::start(&fixture.command(&["top"]), 12, 120);
    top.prints("build Running").await;
    fixture.kill_server().await;
    top.prints("NOT CONNECTED").await;
    fixture.start_server().await?;
    top.shows("the connection", |lines| !lines[0].contains("NOT CONNECTED")).await;
    top.prints("build Running").await;
    top.press("q");
    assert_eq!(top.ended().await, 0);
    Ok(())
}

#[tokio::test]
async fn once_prints_one_frame() -> Result<()> {
    let (fixture, _worker) = filled().await?;
    fixture.rota(&["top"]).await.failed(2, &["error: `rota top` requires a terminal", "hint: ", "--once"]);
    let once = fixture.rota(&["top", "--once"]).await.success();
    let lines: Vec<_> = once.lines().map(str::to_owned).collect();
    let lines = steady(&lines);
    assert!(lines.contains(&"actor 1 1 0 0 1 1 0 1".to_owned()), "{once}");
    assert_eq!(lines.last().unwrap(), "lost Pending TIME missing agent missing missing");
    let json = fixture.rota(&["top", "-o", "json", "--show", "queued"]).await.json();
    assert_eq!((&json["pools"][0]["agent"], &json["pools"][0]["queued"]), (&"actor".into(), &1.into()));
    assert_eq!(json["tasks"].as_array().unwrap().len(), 1);
    assert_eq!(json["tasks"][0]["name"], "next");
    Ok(())
}

#[tokio::test]
async fn explain_shows_causes() -> Result<()> {
    let (fixture, _worker) = filled().await?;
    fixture.apply("last.yaml", &more("last", "agent: actor, dependsOn: [{task: next}]")).await.success();
    fixture.apply("third.yaml", &more("third", "agent: actor")).await.success();
    let explained = async |task: &str| {
        let mut terminal = Terminal::start(&fixture.command(&["explain", task]), 12, 120);
        let lines = terminal
            .shows("an explanation", |lines| lines.iter().any(|line| line.starts_with("The task")))
            .await;
        assert!(!lines.is_empty());
        let last = terminal.lines();
        assert_eq!(terminal.ended().await, 0);
        last
    };
    let third = fixture.rota(&["explain", "third"]).await.success();
    let third: Vec<_> = third.lines().collect();
    assert_eq!(
        third,
        [
            "The task is QUEUED: all 1 slots of the 1 workers for agent actor are busy.",
            "  wait, raise the agent's maxReplicas or slots, or raise the task's priority",
            "- the workers are busy with build",
            "- position 2 in the queue: 1 tasks of the same route are first",
        ]
    );
    assert!(explained("next").await[0].starts_with("The task is QUEUED"));
    let next = fixture.rota(&["explain", "next"]).await.success();
    assert!(next.contains("- next in the queue"), "{next}");
    let last = fixture.rota(&["explain", "last"]).await.success();
    assert!(last.contains("dependency next has not ended (QUEUED)"), "{last}");
    let lost = fixture.rota(&["explain", "lost"]).await.success();
    assert!(lost.contains("agent missing does not exist yet"), "{lost}");
    Ok(())
}
