//! Kinds of tasks on the command line: the page of docs, run as it is written.

use anyhow::{Context, Result};

use crate::{Fixture, Graces};

const PAGE: &str = include_str!("../../../../docs/kinds.md");
/// An agent that answers with its prompt.
const AGENT: &str = "\
apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: NAME}
spec: {runtime: {command: {argv: [cat]}}, management: External, capabilities: [documentation]}
";

#[tokio::test]
async fn kinds_are_listed_applied_and_run() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    for name in ["writer", "default"] {
        fixture.apply("agent.yaml", &AGENT.replace("NAME", name)).await.success();
    }
    let _workers = [fixture.worker("writer", "one", 1).await?, fixture.worker("default", "two", 1).await?];
    let listed = fixture.rota(&["kind", "list"]).await.success();
    for (name, text) in
        [("review", "needs code_review"), ("bug_fix", "comes with Rota"), ("auto", "Decided by")]
    {
        let shown = |line: &&str| line.starts_with(name) && line.contains(text);
        assert!(listed.lines().any(|line| shown(&line)), "{listed}");
        // The table of the page has them all.
        assert!(PAGE.contains(&format!("| `{name}` |")), "{name}");
    }
    let printed = fixture.rota(&["kind", "get", "docs"]).await.success();
    std::fs::write(fixture.dir().join("docs.yaml"), &printed)?;
    let applied = fixture.rota(&["kind", "apply", "docs", "-f", "docs.yaml"]).await.success();
    assert_eq!(applied, "kind/docs created", "the one that comes with Rota is none of the namespace");
    let apply = ["kind", "apply", "docs", "-f", "docs.yaml"];
    assert_eq!(fixture.rota(&apply).await.success(), "kind/docs unchanged");
    std::fs::write(fixture.dir().join("docs.yaml"), printed.replace("- changelog\n", ""))?;
    assert_eq!(fixture.rota(&apply).await.success(), "kind/docs configured");
    std::fs::write(fixture.dir().join("docs.yaml"), &printed)?;
    fixture.rota(&apply).await.success();
    assert_eq!(fixture.rota(&["kind", "get", "docs"]).await.success(), printed);

    let notes = PAGE.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).context("a file")?;
    // The agent returns no data.
    let notes: String = notes
        .lines()
        .filter(|line| !line.starts_with("resultSchema"))
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(fixture.dir().join("notes.yaml"), notes)?;
    let apply = ["kind", "apply", "release-notes", "-f", "notes.yaml"];
    let dry = fixture.rota(&[&apply[..], &["--dry-run"]].concat()).await.success();
    assert_eq!(dry, "kind/release-notes would be created");
    fixture.rota(&["kind", "get", "release-notes"]).await.failed(4, &["does not exist"]);
    fixture.rota(&apply).await.success();

    let parent = fixture.rota(&["run", "--quiet", "--detach", "--name", "whole", "all"]).await.success();
    let run = ["run", "--quiet", "--kind", "auto", "--owner", "ada", "--parent", "whole", "--name", "part"];
    let answer = fixture.rota(&[&run[..], &["Release 2"]].concat()).await.success();
    assert_eq!(answer.trim(), "Write for users, not for developers:\n\nRelease 2");
    for filter in
        [["--kind", "release-notes"], ["--owner", "ada"], ["--parent", "whole"], ["--parent", &parent]]
    {
        let found = fixture.rota(&[&["get", "tasks", "-o", "json"][..], &filter].concat()).await.json();
        assert_eq!(found["tasks"].as_array().context("tasks")?.len(), 1, "{filter:?} {found}");
        assert_eq!(found["tasks"][0]["alias"], "part", "{filter:?}");
    }
    let gathered = fixture.rota(&["result", "whole", "--children"]).await.success();
    assert_eq!(gathered, "== part Succeeded\nWrite for users, not for developers:\n\nRelease 2");
    let gathered = fixture.rota(&["result", &parent, "--children", "-o", "json"]).await.json();
    assert_eq!(gathered["tasks"][0]["alias"], "part", "{gathered}");
    assert!(
        gathered["tasks"][0]["status"]["result"]["text"].as_str().is_some_and(|it| it.ends_with("Release 2"))
    );
    let shown = fixture.rota(&["run", "--kind", "docs", "--agent", "writer", "a page"]).await;
    assert!(shown.err.contains("time ") && shown.err.contains(", agent writer, trace "), "{shown:?}");
    let table = fixture.rota(&["get", "tasks"]).await.success();
    assert!(table.contains(" KIND ") && table.contains(" release-notes "), "{table}");
    let page = fixture.rota(&["describe", "part"]).await.success();
    assert!(
        page.contains("Kind:          release-notes") && page.contains("Prompt:        Release 2"),
        "{page}"
    );
    fixture.rota(&["run", "--kind", "no-such", "x"]).await.failed(1, &["is not a kind", "bug_fix"]);
    fixture.rota(&["kind", "delete", "release-notes"]).await.success();
    fixture.rota(&["kind", "delete", "release-notes"]).await.failed(4, &["release-notes"]);
    Ok(())
}
