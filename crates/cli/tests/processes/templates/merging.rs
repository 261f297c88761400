//! Steps that merge the work of others in a real repository: without a conflict, and with one that a program, git or a person
//! resolves, or that fails the step.

use anyhow::{Context, Result};
use rota_proto::v1::{StepState, WorkflowState};
use rota_testkit::git_host::git;
use serde_json::{Value, json};

use super::{Ended, Site, site_of_programs};

/// Merges the commits, and keeps the lines of all.
const RESOLVES: &str = r"for commit in $COMMITS; do
  git merge --quiet --no-edit $commit || {
    sed -i '/^[<=>]\{7\}/d' app.txt && git add app.txt && git commit --quiet --no-edit || exit 1
  }
done";

impl Site {
    /// Runs a workflow whose two branches write these files, and whose merge has these fields.
    async fn merge(&self, name: &str, files: [&str; 2], fields: Value) -> Result<()> {
        let write = "echo \"$NAME\" >\"$FILE\" && git add --all && git commit --quiet -m \"$NAME\"";
        let places = json!([{ "name": "one", "file": files[0] }, { "name": "two", "file": files[1] }]);
        let git = json!({ "url": "${{ inputs.url }}" });
        let mut merge = json!({ "from": ["write"], "target": { "agent": "shell" }, "git": git });
        for (field, value) in fields.as_object().into_iter().flatten() {
            merge[field] = value.clone();
        }
        let spec = json!({
            "inputs": { "url": self.url, "places": places },
            "steps": [
                { "name": "write", "forEach": { "items": "inputs.places" }, "task": {
                    "target": { "agent": "shell" }, "runtime": { "command": { "shell": write } },
                    "environment": { "NAME": "${{ item.name }}", "FILE": "${{ item.file }}" },
                    "workspace": { "git": { "url": "${{ inputs.url }}", "push": {} } },
                } },
                { "name": "join", "needs": [{ "step": "write" }], "merge": merge },
                // What follows starts from what was merged.
                { "name": "show", "needs": [{ "step": "join" }], "task": {
                    "target": { "agent": "shell" }, "runtime": { "command": { "shell": "cat a.txt app.txt b.txt 2>/dev/null || true" } },
                    "workspace": { "git": { "url": "${{ inputs.url }}", "ref": "${{ steps.join.result.commit }}" } },
                } },
            ],
            "outputs": {
                "text": "${{ steps.show.result.text }}", "conflict": "${{ steps.join.result.conflict }}",
                "commit": "${{ steps.join.result.commit }}", "branch": "${{ steps.join.result.branch }}",
            },
        });
        let file = format!("{name}.json");
        std::fs::write(self.fixture.dir().join(&file), spec.to_string())?;
        self.fixture.rota(&["workflow", "run", "-f", &file, "--name", name]).await.success();
        Ok(())
    }

    async fn merged(&self, name: &str) -> Result<Ended> {
        let ended = self.ended(name).await?.succeeded();
        let commit = ended.text("commit");
        assert_eq!(self.git(&["rev-parse", &ended.text("branch")]).await?, commit);
        Ok(ended)
    }
}

#[tokio::test]
async fn conflicts_are_resolved_by_programs_git_and_people() -> Result<()> {
    let site = site_of_programs(&[("app.txt", "base\n")]).await?;
    site.merge("plain", ["a.txt", "b.txt"], json!({})).await?;
    let ended = site.merged("plain").await?;
    assert_eq!((ended.output("conflict"), ended.text("text").trim_end()), (json!(false), "one\nbase\ntwo"));

    let same = ["app.txt", "app.txt"];
    site.merge("none", same, json!({})).await?;
    let ended = site.ended("none").await?;
    assert_eq!((ended.state(), ended.step("join").state()), (WorkflowState::Failed, StepState::Failed));
    let explained = site.fixture.rota(&["workflow", "explain", "none"]).await.success();
    assert!(explained.contains("of step join: step merge: its task has failed"), "{explained}");

    site.merge("option", same, json!({ "strategy": "theirs" })).await?;
    let ended = site.merged("option").await?;
    assert_eq!((ended.output("conflict"), ended.text("text").trim_end()), (json!(false), "two"));

    let task = json!({ "target": { "agent": "shell" }, "runtime": { "command": { "shell": RESOLVES } } });
    site.merge("program", same, json!({ "onConflict": { "task": task } })).await?;
    let ended = site.merged("program").await?;
    assert_eq!((ended.output("conflict"), ended.text("text").trim_end()), (json!(true), "one\ntwo"));
    // One that claims to have merged.
    let task = json!({ "target": { "agent": "shell" }, "runtime": { "command": { "shell": "true" } } });
    site.merge("claims", same, json!({ "onConflict": { "task": task } })).await?;
    assert_eq!(site.ended("claims").await?.state(), WorkflowState::Failed);

    site.merge("person", same, json!({ "onConflict": { "approval": { "deadline": "3600s" } } })).await?;
    rota_testkit::tasks::eventually("the question", async || {
        let explained = site.fixture.rota(&["workflow", "explain", "person"]).await;
        Ok(explained.out.contains("step resolve waits for a decision: Merge the work of the steps"))
    })
    .await?;
    let listed = site.fixture.rota(&["workflow", "list", "--parent", "person", "-o", "json"]).await.json();
    let id = listed["workflows"][0]["uid"].as_str().context("a workflow")?.to_owned();
    let nested = site.fixture.rota(&["workflow", "get", &id, "-o", "json"]).await.json();
    let work = tempfile::tempdir()?;
    let (at, bare) = (work.path(), site.bare());
    git(at, &["clone", "--quiet", bare.to_str().context("a path")?, "."]).await?;
    for commit in nested["spec"]["inputs"]["commits"].as_array().context("commits")? {
        let commit = commit.as_str().context("a commit")?;
        git(at, &["merge", "--quiet", "--no-edit", "--strategy-option", "ours", commit]).await?;
    }
    git(at, &["push", "--quiet", "origin", "HEAD:refs/heads/by-hand"]).await?;
    let approve = ["workflow", "approve", &id, "--step", "resolve", "--comment", "by-hand"];
    site.fixture.rota(&approve).await.success();
    let ended = site.merged("person").await?;
    assert_eq!((ended.text("branch").as_str(), ended.text("text").trim_end()), ("by-hand", "one"));
    Ok(())
}
