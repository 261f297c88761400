//! Whoever waits is told for what, once.

use anyhow::Result;
use rota_testkit::history;

use crate::process::Process;
use crate::{Graces, Stage};

fn agent(name: &str) -> String {
    format!(
        "apiVersion: rota.dev/v1alpha1\nkind: Agent\nmetadata: {{name: {name}}}\n\
         spec: {{management: External, runtime: {{scripted: {{}}}}}}\n"
    )
}

#[tokio::test]
async fn an_agent_that_is_not_there_and_one_without_workers() -> Result<()> {
    let stage = Stage::start(Graces::LONG).await?;
    stage.apply("others.yaml", &(agent("writer") + "---\n" + &agent("coder"))).await.done();
    let run = ["run", "--agent", "codr", "--name", "lost", "x"];
    let mut run = Process::start("run", stage.command(&run));
    run.says("waiting: its agent codr does not exist yet").await;
    run.says("hint: there are the agents coder, writer; or apply a manifest of codr").await;
    let mut others = Vec::new();
    for args in [&["wait", "lost"][..], &["watch", "lost"], &["logs", "-f", "lost"]] {
        let mut other = Process::start(args[0], stage.command(args));
        other.says("waiting: its agent codr does not exist yet").await;
        others.push(other);
    }
    // One that only wants the result is not told.
    let quiet = ["run", "--quiet", "--agent", "codr", "--name", "quiet", "x"];
    let quiet = Process::start("quiet", stage.command(&quiet));

    stage.apply("agent.yaml", &agent("codr")).await.done();
    run.says("waiting: no worker for the agent codr is connected").await;
    let _worker = stage.worker("codr", "one", 1).await?;
    for one in others.into_iter().chain([run]) {
        let ended = one.ended().await;
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert_eq!(ended.said.matches("does not exist yet").count(), 1, "{ended:?}");
    }
    let quiet = quiet.ended().await;
    assert!(quiet.status.success() && !quiet.said.contains("waiting:"), "{quiet:?}");
    history::check(&stage.client()?, true).await?.check()
}
