//! `rota top` and `rota explain` as a person sees them, in a terminal.

use anyhow::Result;
use nix::sys::signal::Signal;
use rota_proto::v1::TaskState;
use rota_testkit::tasks;

use crate::process::Process;
use crate::terminal::{Terminal, steady};
use crate::{Graces, Stage};

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

/// The same work again and again, each for itself.
fn more(name: &str, rest: &str) -> String {
    format!("---\napiVersion: rota.dev/v1alpha1\nkind: Task\nmetadata: {{name: {name}}}\nspec: {{{rest}}}\n")
}

/// A worker with one task, one that waits for its slot, and one that waits for an agent.
async fn filled() -> Result<(Stage, Process)> {
    let stage = Stage::start(Graces::LONG).await?;
    stage.apply("all.yaml", ALL).await.done();
    let worker = stage.worker("actor", "one", 1).await?;
    let client = stage.client()?;
    let build = "namespaces/default/tasks/build";
    tasks::until(&client, build, |status| status.progress.is_some()).await?;
    stage.apply("more.yaml", &(more("next", "agent: actor") + &more("lost", "agent: nobody"))).await.done();
    tasks::until_state(&client, "namespaces/default/tasks/next", TaskState::Queued).await?;
    Ok((stage, worker))
}

#[tokio::test]
async fn a_fleet_is_followed_live() -> Result<()> {
    let (stage, _worker) = filled().await?;
    let mut top = Terminal::start(&stage.command(&["top"]), 16, 100);
    let wanted = [
        "rota top SERVER default",
        "running 1 asking 0 queued 1 pending 1 workers 1 cost $0/min",
        "",
        "AGENT READY BUSY IDLE DRAINING QUEUED RUNNING FLOOR CEILING",
        "actor 1 1 0 0 1 1 0 1",
        "",
        "TASK STATE FOR AGENT WORKER TRY COST DOING",
        "build Running TIME actor one 1 ████░░░░░░ 40%",
        "next Queued TIME actor",
        "lost Pending TIME nobody agent missing nobody",
        "",
        "",
        "",
        "",
        "",
        "q quit s sort: state f show: all ↑↓ scroll",
    ];
    top.shows("the fleet", |lines| steady(lines) == wanted).await;
    // What happens comes by itself.
    stage.apply("later.yaml", &more("later", "agent: actor")).await.done();
    top.says("later Queued").await;
    top.says("queued 2").await;
    // Fewer tasks, another order.
    top.press("f");
    let lines = top.says("show: running").await;
    assert!(!lines.iter().any(|line| line.starts_with("next")), "{lines:#?}");
    top.press("ffff");
    top.press("s");
    top.says("sort: age show: all").await;
    // Another size is another frame.
    for (rows, cols) in [(10, 60), (4, 20), (30, 120)] {
        top.resize(rows, cols);
        let foot = usize::from(rows) - 1;
        top.shows("the foot", |lines| lines.get(foot).is_some_and(|line| line.starts_with("q quit"))).await;
    }
    // What ends goes.
    stage.rota(&["cancel", "build"]).await.done();
    top.shows("the end of build", |lines| !lines.iter().any(|line| line.starts_with("build "))).await;
    top.press("q");
    assert_eq!(top.ended().await, 0);
    Ok(())
}

#[tokio::test]
async fn whatever_ends_it_the_terminal_is_as_it_was() -> Result<()> {
    let (stage, _worker) = filled().await?;
    let start = async || {
        let mut top = Terminal::start(&stage.command(&["top"]), 12, 80);
        top.says("build Running").await;
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
async fn a_terminal_that_goes_away_ends_it() -> Result<()> {
    let (stage, _worker) = filled().await?;
    let ended = Terminal::taken_away(&stage.command(&["top"]), "build").await;
    assert_eq!((ended.exit_code(), ended.signal()), (130, None));
    Ok(())
}

#[tokio::test]
async fn a_lost_control_plane_is_told_until_it_is_back() -> Result<()> {
    let (mut stage, _worker) = filled().await?;
    let mut top = Terminal::start(&stage.command(&["top"]), 12, 120);
    top.says("build Running").await;
    stage.kill_server().await;
    top.says("NOT CONNECTED").await;
    stage.start_server().await?;
    top.shows("the connection", |lines| !lines[0].contains("NOT CONNECTED")).await;
    top.says("build Running").await;
    top.press("q");
    assert_eq!(top.ended().await, 0);
    Ok(())
}

#[tokio::test]
async fn without_a_terminal_there_is_one_look() -> Result<()> {
    let (stage, _worker) = filled().await?;
    stage.rota(&["top"]).await.failed(2, &["error: this is no terminal", "hint: ", "--once"]);
    let once = stage.rota(&["top", "--once"]).await.done();
    let lines: Vec<_> = once.lines().map(str::to_owned).collect();
    let lines = steady(&lines);
    assert!(lines.contains(&"actor 1 1 0 0 1 1 0 1".to_owned()), "{once}");
    assert_eq!(lines.last().unwrap(), "lost Pending TIME nobody agent missing nobody");
    let json = stage.rota(&["top", "-o", "json", "--show", "queued"]).await.json();
    assert_eq!((&json["pools"][0]["agent"], &json["pools"][0]["queued"]), (&"actor".into(), &1.into()));
    assert_eq!(json["tasks"].as_array().unwrap().len(), 1);
    assert_eq!(json["tasks"][0]["name"], "next");
    Ok(())
}

#[tokio::test]
async fn a_wait_is_explained() -> Result<()> {
    let (stage, _worker) = filled().await?;
    stage.apply("last.yaml", &more("last", "agent: actor, dependsOn: [{task: next}]")).await.done();
    stage.apply("third.yaml", &more("third", "agent: actor")).await.done();
    let explained = async |task: &str| {
        let mut terminal = Terminal::start(&stage.command(&["explain", task]), 12, 120);
        let lines = terminal
            .shows("an explanation", |lines| lines.iter().any(|line| line.starts_with("The task")))
            .await;
        assert!(!lines.is_empty());
        let last = terminal.lines();
        assert_eq!(terminal.ended().await, 0);
        last
    };
    let third = stage.rota(&["explain", "third"]).await.done();
    let third: Vec<_> = third.lines().collect();
    assert_eq!(
        third,
        [
            "The task is QUEUED: all 1 slots of the 1 workers for the agent actor are busy.",
            "  wait, raise the agent's maxReplicas or slots, or raise the task's priority",
            "- its workers are busy with build",
            "- it is number 2 in the queue: 1 tasks of the same route go first",
        ]
    );
    assert!(explained("next").await[0].starts_with("The task is QUEUED"));
    let next = stage.rota(&["explain", "next"]).await.done();
    assert!(next.contains("- it is the next in its queue"), "{next}");
    let last = stage.rota(&["explain", "last"]).await.done();
    assert!(last.contains("the task next that it depends on has not ended: it is QUEUED"), "{last}");
    let lost = stage.rota(&["explain", "lost"]).await.done();
    assert!(lost.contains("its agent nobody does not exist yet"), "{lost}");
    Ok(())
}
