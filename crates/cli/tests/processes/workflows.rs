//! Workflows on the command line: the page of docs, run as it is written, over a killed control plane.

use std::path::Path;

use anyhow::{Context, Result};

use crate::Fixture;
use crate::fixture::Graces;
use crate::process::Process;
use crate::responses::Response;

const PAGE: &str = include_str!("../../../../docs/workflows.md");
const AGENT: &str = "\
apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: shell}
spec: {runtime: {command: {}}, slots: 4, management: External}
";

/// Returns the commands of the page, in order.
fn commands() -> Vec<&'static str> {
    let blocks = PAGE.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.flat_map(str::lines).filter(|line| line.starts_with("rota workflow ")).collect()
}

/// Runs a line of the page in a shell.
async fn run(fixture: &Fixture, line: &str) -> String {
    let script = format!("rota() {{ '{}' \"$@\"; }}\n{line}", env!("CARGO_BIN_EXE_rota"));
    Response::of(fixture.command_of(Path::new("bash"), &["-c", &script]), "").await.success()
}

/// Waits until the workflow asks a person.
async fn asks(fixture: &Fixture, modules: usize) -> Result<()> {
    let question = format!("waits for a decision: Announce {modules} modules?");
    rota_testkit::tasks::eventually("the approval", || async {
        let explained = fixture.rota(&["workflow", "explain", "release", "--step", "approve"]).await;
        Ok(explained.out.contains(&question))
    })
    .await
}

#[tokio::test]
async fn commands_of_the_page_run() -> Result<()> {
    let mut fixture = Fixture::start(Graces::LONG).await?;
    fixture.apply("agent.yaml", AGENT).await.success();
    let _worker = fixture.worker("shell", "one", 4).await?;
    let file = PAGE.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).context("a file")?;
    std::fs::write(fixture.dir().join("release.yaml"), file)?;
    let commands = commands();
    let [create, list, get, explain, approve, watch, rerun, cancel, failed, from, pictures @ ..] =
        commands.as_slice()
    else {
        anyhow::bail!("other commands: {commands:?}");
    };
    let created = run(&fixture, create).await;
    assert!(created.contains("workflow/release created"), "{created}");
    let listed = run(&fixture, list).await;
    assert!(listed.contains("release") && listed.contains("RUNNING"), "{listed}");
    asks(&fixture, 3).await?;
    let shown = run(&fixture, get).await;
    assert!(shown.contains("3/3") && shown.contains("Announce 3 modules?"), "{shown}");
    run(&fixture, explain).await;

    let mut follower = Process::start("watch", fixture.command(&["workflow", "watch", "release"]));
    follower.prints("Announce 3 modules?").await;
    fixture.kill_server().await;
    fixture.start_server().await?;
    asks(&fixture, 3).await?;
    run(&fixture, approve).await;
    let followed = follower.ended().await;
    assert_eq!(followed.status.code(), Some(0), "{followed:?}");
    assert!(followed.output.contains("workflow SUCCEEDED"), "{followed:?}");
    let watched = run(&fixture, watch).await;
    assert!(watched.contains("workflow SUCCEEDED"), "{watched}");
    let ended = run(&fixture, get).await;
    assert!(ended.contains("announced api and web and cli"), "{ended}");
    let again = run(&fixture, rerun).await;
    assert!(again.contains("workflow/release created"), "{again}");
    asks(&fixture, 1).await?;
    run(&fixture, cancel).await;
    let watched = fixture.rota(&["workflow", "watch", "release"]).await;
    assert_eq!(watched.code, 3, "{watched:?}");
    assert!(watched.out.contains("workflow CANCELLED: was a test"), "{watched:?}");

    run(&fixture, failed).await;
    asks(&fixture, 1).await?;
    let [drawn, svg, report] = pictures else { anyhow::bail!("other commands: {pictures:?}") };
    let file = run(&fixture, drawn).await;
    assert!(file.contains("│ test (for each) │") && file.contains("│ clean │"), "{file}");
    run(&fixture, svg).await;
    let svg = std::fs::read_to_string(fixture.dir().join("release.svg"))?;
    assert!(svg.contains("test: succeeded, reused") && svg.trim_end().ends_with("</svg>"), "{svg}");
    let reported = run(&fixture, report).await;
    assert!(
        reported.contains("Critical path") && reported.contains(": test, publish, approve"),
        "{reported}"
    );
    for (format, line) in
        [("mermaid", "s0 --> s1"), ("dot", "s0 -> s1;"), ("dot", "s3 -> s4 [style=dashed];")]
    {
        let drawn = fixture.rota(&["workflow", "graph", "release", "--format", format]).await.success();
        assert!(drawn.lines().any(|found| found.trim() == line), "{drawn}");
    }
    run(&fixture, approve).await;
    let watched = run(&fixture, watch).await;
    assert!(watched.contains("workflow SUCCEEDED"), "{watched}");
    let report = fixture.rota(&["workflow", "report", "release", "-o", "json"]).await.json();
    assert_eq!(report["steps"][3]["tasks"], 1, "{report}");
    assert_eq!(report["criticalPath"][2], "approve", "{report}");
    run(&fixture, from).await;
    asks(&fixture, 1).await?;
    run(&fixture, cancel).await;
    let watched = fixture.rota(&["workflow", "watch", "release"]).await;
    assert_eq!(watched.code, 3, "{watched:?}");
    rota_testkit::history::check(&fixture.client()?, true).await?.check()
}

#[tokio::test]
async fn several_agents_and_added_steps_by_commands() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    fixture.apply("agent.yaml", AGENT).await.success();
    fixture.apply("other.yaml", &AGENT.replace("name: shell", "name: other")).await.success();
    let _worker = fixture.worker("shell", "one", 4).await?;
    let echo = ["--quiet", "--command", "--", "echo", "done"];
    // The other agent has no worker.
    let any = fixture.rota(&[&["run", "--agent", "other,shell"][..], &echo].concat()).await.success();
    assert_eq!(any.trim(), "done");
    let _other = fixture.worker("other", "two", 4).await?;
    let all =
        fixture.rota(&[&["run", "--agent", "other,shell", "--all"][..], &echo].concat()).await.success();
    assert_eq!(all.trim(), "done\ndone");

    let wait = "steps: [{name: go, wait: {signal: go}}]\noutputs: {}\n";
    std::fs::write(fixture.dir().join("wait.yaml"), wait)?;
    fixture.rota(&["workflow", "run", "-f", "wait.yaml", "--name", "wait"]).await.success();
    let step = "name: end\nneeds: [{step: go}]\ntask: {target: {agent: shell}, runtime: {command: {shell: echo ended}}}\n";
    std::fs::write(fixture.dir().join("step.yaml"), step)?;
    fixture.rota(&["workflow", "add-step", "wait", "-f", "step.yaml"]).await.success();
    fixture
        .rota(&["workflow", "signal", "wait", "no"])
        .await
        .failed(1, &["waits for signal no", "workflow explain wait"]);
    let sent = fixture.rota(&["workflow", "signal", "wait", "go", "-o", "json"]).await.json();
    assert_eq!(sent["steps"], 1, "{sent}");
    let watched = fixture.rota(&["workflow", "watch", "wait"]).await.success();
    assert!(watched.contains("end") && watched.contains("workflow SUCCEEDED"), "{watched}");
    let late = fixture.rota(&["workflow", "add-step", "wait", "-f", "step.yaml"]).await;
    assert_eq!(late.code, 0, "the same step: {late:?}");
    std::fs::write(fixture.dir().join("late.yaml"), step.replace("name: end", "name: late"))?;
    let late = fixture.rota(&["workflow", "add-step", "wait", "-f", "late.yaml"]).await;
    assert_eq!(late.code, 1, "{late:?}");
    Ok(())
}

const TEMPLATE: &str = "\
parameters:
  - {name: image, schema: {type: string, minLength: 1}}
  - {name: replicas, schema: {type: integer}, default: 2}
workflow:
  steps:
    - name: build
      task: {target: {agent: shell}, runtime: {command: {shell: 'echo built ${{ inputs.image }}; test ${{ inputs.image }} != broken'}}, retry: {maxAttempts: 1}}
    - name: approve
      condition: inputs.replicas > 2
      needs: [{step: build}]
      approval: {prompt: 'Many?'}
  outputs: {image: '${{ steps.build.result.text }}', replicas: '${{ inputs.replicas }}'}
";

#[tokio::test]
async fn template_runs_to_its_outputs() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    fixture.apply("agent.yaml", AGENT).await.success();
    let _worker = fixture.worker("shell", "one", 2).await?;
    std::fs::write(fixture.dir().join("deploy.yaml"), TEMPLATE)?;
    fixture.rota(&["template", "apply", "deploy", "-f", "deploy.yaml"]).await.success();
    let run = ["run", "--template", "deploy", "--name", "ship", "-l", "team=shop"];
    let with = |more: &[&'static str]| [&run[..], more].concat();

    let ran = fixture.rota(&with(&["-p", "image=shop:1"])).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "image=built shop:1\nreplicas=2\n"), "{ran:?}");
    assert!(ran.err.contains("build") && ran.err.contains("SUCCEEDED"), "{ran:?}");
    let json = fixture.rota(&with(&["-p", "image=shop:2", "-o", "json"])).await.json();
    assert_eq!(json["status"]["outputs"]["image"], "built shop:2", "{json}");
    assert_eq!(json["labels"]["team"], "shop", "{json}");

    let failed = fixture.rota(&with(&["--parameter", "image=broken", "--quiet"])).await;
    failed.failed(1, &["failed", "rota workflow explain", "--step build"]);
    assert!(failed.out.is_empty() && !failed.err.contains("FAILED"), "{failed:?}");
    let explain = ["workflow", "explain", "ship", "--step", "build"];
    let hint = fixture.rota(&explain).await.success();
    assert!(hint.contains("rota get tasks --workflow "), "{hint}");
    let tasks = ["get", "tasks", "--workflow", "ship", "--state", "failed", "-o", "json"];
    let tasks = fixture.rota(&tasks).await.json();
    assert_eq!(tasks["tasks"].as_array().map(Vec::len), Some(1), "{tasks}");
    fixture.rota(&with(&["-p", "image="])).await.failed(1, &["image"]);
    fixture.rota(&with(&[])).await.failed(1, &["image"]);
    fixture.rota(&["run", "--template", "none"]).await.failed(4, &["none"]);
    fixture.rota(&with(&["--agent", "shell"])).await.failed(2, &["--agent"]);
    fixture.rota(&["run", "-p", "image=x", "prompt"]).await.failed(2, &["--template"]);

    let detached =
        fixture.rota(&with(&["-p", "image=shop:3", "-p", "replicas=3", "--detach"])).await.success();
    let cancel = ["workflow", "cancel", detached.trim(), "--reason", "enough"];
    let key = ["--idempotency-key", "again", "-p", "image=shop:4", "-p", "replicas=4"];
    let first = fixture.rota(&with(&[&key[..], &["--detach"]].concat())).await.success();
    fixture.rota(&cancel).await.success();
    fixture.rota(&["workflow", "cancel", first.trim()]).await.success();
    // The same key follows the same workflow.
    fixture.rota(&with(&key)).await.failed(3, &["was cancelled", first.trim()]);
    Ok(())
}

#[tokio::test]
async fn report_counts_tasks_of_nested_workflows() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    fixture.apply("agent.yaml", AGENT).await.success();
    let _worker = fixture.worker("shell", "one", 4).await?;
    let task = "{target: {agent: shell}, runtime: {command: {shell: echo done}}}";
    let spec = format!(
        "steps:
- name: each
  forEach: {{items: '[1, 2]'}}
  workflow:
    spec:
      steps:
      - name: own
        task: {task}
      - name: deeper
        workflow: {{spec: {{steps: [{{name: own, task: {task}}}]}}}}
- name: own
  needs: [{{step: each}}]
  task: {task}
"
    );
    std::fs::write(fixture.dir().join("nested.yaml"), spec)?;
    fixture.rota(&["workflow", "run", "-f", "nested.yaml", "--name", "nested", "--watch"]).await.success();
    let report = fixture.rota(&["workflow", "report", "nested", "-o", "json"]).await.json();
    let counts =
        |step: usize| ["workflows", "tasks", "attempts"].map(|field| report["steps"][step][field].as_i64());
    assert_eq!(counts(0), [Some(4), Some(4), Some(4)], "{report}");
    assert_eq!(counts(1), [Some(0), Some(1), Some(1)], "{report}");
    Ok(())
}

#[tokio::test]
async fn workflows_are_listed_by_what_they_have() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    fixture.apply("agent.yaml", AGENT).await.success();
    let _worker = fixture.worker("shell", "one", 2).await?;
    std::fs::write(fixture.dir().join("deploy.yaml"), TEMPLATE)?;
    fixture.rota(&["template", "apply", "deploy", "-f", "deploy.yaml"]).await.success();
    let labels = ["-l", "team=shop"];
    let first = ["run", "--template", "deploy@1", "--name", "first", "--owner", "ann", "-p", "image=a"];
    fixture.rota(&[&first[..], &labels].concat()).await.success();
    // It waits for a person.
    let many = ["-p", "image=b", "-p", "replicas=3"];
    let second = ["workflow", "run", "--template", "deploy", "--name", "second", "--owner", "bob"];
    fixture.rota(&[&second[..], &many, &labels].concat()).await.success();
    std::fs::write(fixture.dir().join("wait.yaml"), "owner: cid\nsteps: [{name: go, wait: {signal: go}}]\n")?;
    let third = ["workflow", "run", "-f", "wait.yaml", "--name", "third", "--paused"];
    fixture.rota(&third).await.success();
    let fourth = ["workflow", "run", "-f", "wait.yaml", "--name", "fourth", "--paused", "--owner", "dan"];
    fixture.rota(&fourth).await.success();
    for (filter, expected) in [
        (&["--owner", "ann"][..], &["first"][..]),
        (&["--owner", "bob"], &["second"]),
        (&["--owner", "cid"], &["third"]),
        (&["--owner", "dan"], &["fourth"]),
        (&["--state", "succeeded"], &["first"]),
        (&["--state", "running"], &["second"]),
        (&["--state", "Paused,SUCCEEDED"], &["fourth", "third", "first"]),
        (&["--state", "compensation-failed"], &[]),
        (&["-l", "team=shop"], &["second", "first"]),
        (&["-l", "team=shop", "--state", "running"], &["second"]),
        (&["-l", "team=other"], &[]),
        (&["--template", "deploy"], &["second", "first"]),
        (&["--template", "deploy@1"], &["second", "first"]),
        (&["--template", "deploy@2"], &[]),
    ] {
        let listed = fixture.rota(&[&["workflow", "list"][..], filter].concat()).await.success();
        let names: Vec<_> =
            listed.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
        assert_eq!(names, expected, "{filter:?}: {listed}");
    }
    let newest = fixture.rota(&["workflow", "list", "--limit", "1"]).await;
    assert!(newest.out.contains("fourth") && !newest.out.contains("third"), "{newest:?}");
    assert!(newest.err.contains("only the newest 1 workflows"), "{newest:?}");
    assert!(!fixture.rota(&["workflow", "list", "--limit", "4"]).await.err.contains("newest"));
    let shown = fixture.rota(&["workflow", "get", "first"]).await.success();
    assert!(shown.lines().any(|line| line.split_whitespace().eq(["Template", "deploy@1"])), "{shown}");
    fixture.rota(&["workflow", "list", "--state", "lost"]).await.failed(2, &["lost", "compensating"]);
    fixture.rota(&["run", "--template", "deploy@7", "-p", "image=a"]).await.failed(4, &["no version 7"]);
    Ok(())
}

const COUNT: &str = "\
parameters: [{name: data, schema: {type: object}}]
workflow:
  steps:
    - name: count
      task: {target: {agent: shell}, runtime: {command: {shell: 'wc -w < $ROTA_CONTEXT/${{ inputs.data.path }}'}}}
  outputs: {words: '${{ steps.count.result.text }}'}
";

#[tokio::test]
async fn files_are_inputs_of_templates_and_reruns() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    fixture.apply("agent.yaml", AGENT).await.success();
    let _worker = fixture.worker("shell", "one", 1).await?;
    std::fs::write(fixture.dir().join("count.yaml"), COUNT)?;
    std::fs::write(fixture.dir().join("data.txt"), "one two three")?;
    std::fs::write(fixture.dir().join("other.txt"), "one")?;
    fixture.rota(&["template", "apply", "count", "-f", "count.yaml"]).await.success();
    let run = ["run", "--template", "count", "--name", "counted", "--input", "data.txt"];
    let ran = fixture.rota(&run).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "words=3\n"), "{ran:?}");
    fixture.rota(&["workflow", "rerun", "counted", "--failed", "--input", "data=other.txt"]).await.success();
    fixture.rota(&["workflow", "watch", "counted"]).await.success();
    let again = fixture.rota(&["workflow", "get", "counted", "-o", "json"]).await.json();
    assert_eq!(again["status"]["outputs"]["words"], "1", "{again}");
    let spec = COUNT.split("workflow:\n").nth(1).context("a workflow")?.replace("\n  ", "\n");
    std::fs::write(fixture.dir().join("spec.yaml"), spec.trim_start())?;
    let run = ["workflow", "run", "-f", "spec.yaml", "--name", "file", "--input", "data=data.txt", "--watch"];
    fixture.rota(&run).await.success();
    let ended = fixture.rota(&["workflow", "get", "file", "-o", "json"]).await.json();
    assert_eq!(ended["status"]["outputs"]["words"], "3", "{ended}");
    let missing = fixture.rota(&["run", "--template", "count", "--input", "data=none.txt"]).await;
    assert!(missing.code != 0 && missing.err.contains("none.txt"), "{missing:?}");
    let unnamed = fixture.rota(&["run", "--template", "count", "--input", "2.txt"]).await;
    assert!(unnamed.code == 2 && unnamed.err.contains("NAME=2.txt"), "{unnamed:?}");
    Ok(())
}
