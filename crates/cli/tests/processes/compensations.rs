//! Failed compensations that a person resolves on the command line, over killed control planes.

use anyhow::Result;

use crate::Fixture;
use crate::fixture::Graces;

const AGENT: &str = "\
apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: shell}
spec: {runtime: {command: {}}, slots: 2, management: External}
";

#[tokio::test]
async fn resolved_compensations_survive_kills() -> Result<()> {
    let mut fixture = Fixture::start(Graces::LONG).await?;
    fixture.apply("agent.yaml", AGENT).await.success();
    let _worker = fixture.worker("shell", "one", 2).await?;
    let dir = fixture.dir().display().to_string();
    let task = |text: &str| {
        format!(
            "{{target: {{agent: shell}}, retry: {{maxAttempts: 1}}, runtime: {{command: {{shell: '{text}'}}}}}}"
        )
    };
    let spec = format!(
        "onFailure: ON_STEP_FAILURE_COMPENSATE
steps:
- {{name: one, task: {done}, compensate: {undo}}}
- {{name: two, needs: [{{step: one}}], task: {done}, compensate: {check}}}
- {{name: bad, needs: [{{step: two}}], task: {fail}}}
",
        done = task("true"),
        undo = task(&format!("echo undone >> {dir}/undone")),
        check = task(&format!("test -e {dir}/fixed")),
        fail = task("exit 3"),
    );
    std::fs::write(fixture.dir().join("undo.yaml"), spec)?;
    let run = ["workflow", "run", "-f", "undo.yaml", "--name", "undo", "--watch"];
    let watched = fixture.rota(&run).await;
    assert!(watched.code == 1 && watched.out.contains("workflow COMPENSATION_FAILED"), "{watched:?}");
    let explained = fixture.rota(&["workflow", "explain", "undo"]).await.success();
    assert!(explained.contains("rota workflow resolve") && explained.contains("--step two"), "{explained}");
    fixture.rota(&["workflow", "resolve", "undo"]).await.failed(2, &["--retry"]);
    fixture
        .rota(&["workflow", "resolve", "undo", "--step", "one", "--done"])
        .await
        .failed(1, &["waits for a person"]);

    let retry = ["workflow", "resolve", "undo", "--retry", "--note", "looks transient"];
    let watch = ["workflow", "watch", "undo"];
    for state in ["COMPENSATION_FAILED", "FAILED"] {
        fixture.rota(&retry).await.success();
        fixture.kill_server().await;
        fixture.start_server().await?;
        let watched = fixture.rota(&watch).await;
        assert_eq!(watched.code, 1, "{watched:?}");
        assert!(watched.out.contains(&format!("workflow {state}")), "{watched:?}");
        std::fs::write(fixture.dir().join("fixed"), "")?;
    }
    assert_eq!(std::fs::read_to_string(fixture.dir().join("undone"))?, "undone\n");
    let shown = fixture.rota(&["workflow", "get", "undo"]).await.success();
    assert!(shown.contains("was resolved as retry by an admin: looks transient"), "{shown}");
    fixture.rota(&retry).await.failed(1, &["waits for a person"]);
    rota_testkit::history::check(&fixture.client()?, true).await?.check()
}
