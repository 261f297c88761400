//! Commands that wait report the cause, once.

use anyhow::Result;
use rota_testkit::history;

use crate::process::Process;
use crate::{Fixture, Graces};

fn agent(name: &str) -> String {
    format!(
        "apiVersion: rota.dev/v1alpha1\nkind: Agent\nmetadata: {{name: {name}}}\n\
         spec: {{management: External, runtime: {{scripted: {{}}}}}}\n"
    )
}

#[tokio::test]
async fn causes_of_waiting_are_reported_once() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    fixture.apply("others.yaml", &(agent("writer") + "---\n" + &agent("coder"))).await.success();
    let run = ["run", "--agent", "codr", "--name", "lost", "x"];
    let mut run = Process::start("run", fixture.command(&run));
    run.prints("waiting: agent codr does not exist yet").await;
    run.prints("hint: existing agents: coder, writer; or apply a manifest of codr").await;
    let mut others = Vec::new();
    for args in [&["wait", "lost"][..], &["watch", "lost"], &["logs", "-f", "lost"]] {
        let mut other = Process::start(args[0], fixture.command(args));
        other.prints("waiting: agent codr does not exist yet").await;
        others.push(other);
    }
    // With --quiet nothing is reported.
    let quiet = ["run", "--quiet", "--agent", "codr", "--name", "quiet", "x"];
    let quiet = Process::start("quiet", fixture.command(&quiet));

    fixture.apply("agent.yaml", &agent("codr")).await.success();
    run.prints("waiting: no worker for agent codr is connected").await;
    let _worker = fixture.worker("codr", "one", 1).await?;
    for one in others.into_iter().chain([run]) {
        let ended = one.ended().await;
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert_eq!(ended.output.matches("does not exist yet").count(), 1, "{ended:?}");
    }
    let quiet = quiet.ended().await;
    assert!(quiet.status.success() && !quiet.output.contains("waiting:"), "{quiet:?}");
    history::check(&fixture.client()?, true).await?.check()
}
