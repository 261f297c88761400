//! Reviews, refactorings and rounds, by agents that are programs.

use anyhow::{Context, Result};
use rota_proto::v1::{StepState, WorkflowState};
use rota_testkit::tasks;
use serde_json::json;

use super::{Site, site_of_programs};

#[tokio::test]
async fn three_reviews_lead_to_a_verdict() -> Result<()> {
    let site = site_of_programs(&[("app.py", "print('one')\n")]).await?;
    site.push("good", &[("app.py", "print('two')\n")]).await?;
    site.push("bad", &[("app.py", "eval(input())\nexec('x')\n")]).await?;
    let perspectives = json!(["forbids eval", "forbids exec", "forbids import"]).to_string();
    let run = |branch| {
        let site = &site;
        let perspectives = perspectives.as_str();
        async move { site.run("review-by-three", &[("ref", branch), ("perspectives", perspectives)]).await }
    };
    let good = run("good").await?.succeeded();
    assert_eq!(good.output("verdict"), "approve");
    assert_eq!(good.output("reasons"), json!(["3 reviews found nothing"]));
    assert_eq!(good.step("review").tasks_succeeded, 3);
    let bad = run("bad").await?.succeeded();
    assert_eq!(bad.output("verdict"), "reject");
    assert_eq!(bad.output("reasons"), json!(["eval: eval(input())", "exec: exec('x')"]));
    Ok(())
}

#[tokio::test]
async fn agents_work_in_rounds_until_a_command_passes() -> Result<()> {
    let site = site_of_programs(&[("README.md", "nothing\n")]).await?;
    let check = "for f in a b c; do test -e $f || { echo missing $f; exit 1; }; done";
    let ended = site.run("fix-until-green", &[("check", check)]).await?.succeeded();
    // Each round knew the report of the one before, and had its commit.
    assert_eq!((ended.output("rounds"), ended.output("report")), (json!(3.0), json!("a, b, c")));
    let log = site.git(&["log", "--format=%s", "--reverse", &ended.text("commit")]).await?;
    assert_eq!(log, "first\nmake a\nmake b\nmake c");
    assert_eq!(site.git(&["rev-parse", &ended.text("branch")]).await?, ended.text("commit"));

    // Too few rounds, and an agent that claims success: the command decides.
    for parameters in
        [[("check", check), ("rounds", "2")], [("check", check), ("instructions", "Claim success.")]]
    {
        let ended = site.run("fix-until-green", &parameters).await?;
        assert_eq!(ended.state(), WorkflowState::Failed);
        assert_eq!(ended.names(StepState::Failed), ["verify"]);
        let task = format!("namespaces/default/tasks/{}", ended.step("verify").last_task);
        let task = tasks::ended(&site.fixture.client()?, &task).await?.status.unwrap();
        assert!(task.failure.clone().unwrap().message.contains("missing"), "{task:?}");
    }
    Ok(())
}

#[tokio::test]
async fn modules_are_refactored_in_parallel_and_merged() -> Result<()> {
    let names: Vec<_> = (0..6).map(|number| format!("module{number}.py")).collect();
    let mut files: Vec<_> = names.iter().map(|name| (name.as_str(), "print(1)\n")).collect();
    files.push(("other.py", "pass\n"));
    let site = site_of_programs(&files).await?;
    let test = "! grep -l print *.py && test $(grep -l log *.py | wc -l) = 6";
    let parameters = [("goal", "replace print by log"), ("test", test)];
    let ended = site.run("analyse-and-refactor", &parameters).await?.succeeded();
    assert_eq!(ended.output("modules"), json!(names));
    assert_eq!(ended.step("refactor").tasks_succeeded, 6);
    let commit = ended.text("commit");
    let log = site.git(&["log", "--no-merges", "--format=%s", &commit]).await?;
    for name in &names {
        assert!(log.contains(&format!("refactor {name}")), "{log}");
        assert_eq!(site.git(&["show", &format!("{commit}:{name}")]).await?, "log(1)");
    }
    assert_eq!(site.git(&["rev-parse", &ended.text("branch")]).await?, commit);
    // Nothing was pushed to the branch from which it started.
    assert_eq!(site.git(&["log", "--format=%s", "main"]).await?, "first");
    Ok(())
}

/// Each module adds a line to the same file.
#[tokio::test]
async fn conflict_of_modules_is_resolved_or_fails() -> Result<()> {
    let files =
        [("a.py", "print(1)\n"), ("b.py", "print(1)\n"), ("c.py", "print(1)\n"), ("CHANGES", "none\n")];
    let site = site_of_programs(&files).await?;
    let goal = "replace print by log and note it in CHANGES";
    let test = "! grep -l print *.py && test $(grep -c py CHANGES) = 3";
    let parameters = [("goal", goal), ("test", test), ("parallel", "3")];
    let ended = site.run("analyse-and-refactor", &parameters).await?.succeeded();
    let commit = ended.text("commit");
    let of = async |name: &str| site.git(&["show", &format!("{commit}:{name}")]).await;
    assert_eq!(of("CHANGES").await?, "none\na.py\nb.py\nc.py");
    for name in ["a.py", "b.py", "c.py"] {
        assert_eq!(of(name).await?, "log(1)");
    }
    assert_eq!(site.git(&["rev-parse", &ended.text("branch")]).await?, commit);
    assert_eq!(merged_by(&site).await?, ["merge", "resolve", "verify"]);

    // An agent that ends without having merged: its step fails, and with it the workflow. No branch but its own has changed.
    let goal = format!("{goal}\nGive up on conflicts.");
    let ended =
        site.run("analyse-and-refactor", &[("goal", goal.as_str()), ("test", "test -e a.py")]).await?;
    assert_eq!((ended.state(), ended.names(StepState::Failed)), (WorkflowState::Failed, vec!["merge"]));
    assert_eq!(merged_by(&site).await?, ["merge", "resolve"]);
    assert_eq!(site.git(&["log", "--format=%s", "main"]).await?, "first");
    Ok(())
}

/// Returns the steps that have succeeded of the workflow by which the newest one of the template has merged.
async fn merged_by(site: &Site) -> Result<Vec<String>> {
    let rota = async |args: &[&str]| site.fixture.rota(args).await.json();
    let list = rota(&["workflow", "list", "--parent", "analyse-and-refactor", "-o", "json"]).await;
    let name = list["workflows"][0]["name"].as_str().context("a workflow")?.to_owned();
    let steps = site.fixture.client()?.all_workflow_steps(&name).await?;
    let succeeded = steps.into_iter().filter(|step| step.state() == StepState::Succeeded);
    Ok(succeeded.map(|step| step.name).collect())
}
