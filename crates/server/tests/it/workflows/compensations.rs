//! Compensation of the elements of a fan-out.

use anyhow::{Context, Result};
use reqwest::StatusCode;
use rota_testkit::{Backend, Cluster, history, tasks};
use serde_json::{Value, json};

use super::{Api, WORKFLOWS, echoes};

fn shell(agent: &str, text: &str) -> Value {
    json!({ "target": { "agent": agent }, "retry": { "maxAttempts": 1 }, "runtime": { "command": { "shell": text } } })
}

/// Returns the compensations of a workflow in the order of their creation, with the step and the item of each.
async fn compensations(api: &Api, workflow: &Value) -> Result<Vec<(String, u64, String)>> {
    let id = workflow["uid"].as_str().context("an id")?;
    let all = api.get(&format!("/api/v1/namespaces/default/tasks?filter.workflow={id}&pageSize=100")).await?;
    let all = all["tasks"].as_array().cloned().unwrap_or_default();
    let mut names: Vec<_> = all
        .iter()
        .filter(|task| task["step"]["compensates"] == true)
        .filter_map(|task| task["name"].as_str())
        .collect();
    // Their ids begin with the time.
    names.sort_unstable();
    let mut found = Vec::new();
    for name in names {
        let task = api.get(&format!("/api/v1/{name}")).await?;
        let text = task["status"]["result"]["text"].as_str().unwrap_or_default().to_owned();
        let item = task["step"]["item"].as_u64().unwrap_or(0);
        found.push((task["step"]["step"].as_str().unwrap_or_default().to_owned(), item, text));
    }
    Ok(found)
}

fn expected(list: &[(&str, u64, &str)]) -> Vec<(String, u64, String)> {
    list.iter().map(|(step, item, text)| ((*step).to_owned(), *item, (*text).to_owned())).collect()
}

#[tokio::test]
async fn killed_control_plane_compensates_completed_elements() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    for agent in ["echo", "undo"] {
        tasks::agent(cluster.client(), agent, tasks::script([]), &[]).await?;
    }
    let net = json!({
        "steps": [{ "name": "do", "task": echoes("net ${{ inputs.name }}") }],
        "outputs": { "text": "${{ steps.do.result.text }}" },
    });
    let seen = "cat $ROTA_CONTEXT/previous_results.json";
    let spec = json!({
        "inputs": { "regions": ["a", "b", "c", "d"] },
        "onFailure": "ON_STEP_FAILURE_COMPENSATE",
        "steps": [
            { "name": "network", "forEach": { "items": "['x', 'y']" },
              "workflow": { "spec": net, "inputs": { "name": "${{ item }}" } },
              "compensate": shell("undo", "echo no ${{ item }} of ${{ steps.network.result.text }}") },
            { "name": "deploy", "needs": [{ "step": "network" }], "forEach": { "items": "inputs.regions" },
              "task": shell("echo", "[ ${{ item }} != c ] && echo up ${{ item }}"),
              "compensate": shell("undo", &format!("echo down ${{{{ item }}}} ${{{{ index }}}} of ${{{{ steps.deploy.result.text }}}}; {seen}")) },
            { "name": "empty", "needs": [{ "step": "network" }], "forEach": { "items": "[]" },
              "task": echoes("never"), "compensate": echoes("never") },
        ],
    });
    {
        let _worker = cluster.worker("echo", "one", 4)?;
        let api = Api::new(&cluster)?;
        api.create("undo", spec).await?;
        tasks::eventually("the first compensation", async || {
            Ok(api.step("undo", "deploy").await?["compensation"] == "STEP_STATE_RUNNING")
        })
        .await?;
    }
    cluster.kill().await;
    cluster.restart().await?;
    let _worker = cluster.worker("undo", "two", 4)?;
    let api = Api::new(&cluster)?;
    let ended = api.ended("undo").await?;
    assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_FAILED", "{ended}");
    let deploy = api.step("undo", "deploy").await?;
    assert_eq!(
        (&deploy["state"], &deploy["compensation"]),
        (&json!("STEP_STATE_FAILED"), &json!("STEP_STATE_SUCCEEDED"))
    );
    let found = compensations(&api, &ended).await?;
    let brief: Vec<_> = found
        .iter()
        .map(|(step, item, text)| (step.clone(), *item, text.lines().next().unwrap_or_default().to_owned()))
        .collect();
    let all = expected(&[
        ("deploy", 3, "down d 3 of up d"),
        ("deploy", 1, "down b 1 of up b"),
        ("deploy", 0, "down a 0 of up a"),
        ("network", 1, "no y of net y"),
        ("network", 0, "no x of net x"),
    ]);
    assert_eq!(brief, all, "{found:?}");
    // The files have both elements of the step before, and that of the own step which is compensated.
    let (_, given) = found[1].2.split_once('\n').context("the results")?;
    let given: Vec<Value> = serde_json::from_str(given)?;
    let given: Vec<_> =
        given.iter().map(|one| (one["step"].as_str(), one["item"].as_u64().unwrap_or(0))).collect();
    assert_eq!(given, [(Some("network"), 0), (Some("network"), 1), (Some("deploy"), 1)]);
    history::check(cluster.client(), true).await?.check()
}

#[tokio::test]
async fn failed_compensation_of_an_element_ends_the_others() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 4)?;
    let api = Api::new(&cluster)?;
    let spec = json!({
        "onFailure": "ON_STEP_FAILURE_COMPENSATE",
        "steps": [
            { "name": "made", "forEach": { "items": "['a', 'b', 'c']" }, "task": echoes("made ${{ item }}"),
              "compensate": shell("echo", "echo ${{ item }}; [ ${{ item }} != b ]") },
            { "name": "bad", "needs": [{ "step": "made" }], "task": shell("echo", "exit 3") },
        ],
    });
    api.create("undo", spec).await?;
    let ended = api.ended("undo").await?;
    assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_COMPENSATION_FAILED", "{ended}");
    let message = ended["status"]["message"].as_str().context("a message")?;
    assert!(message.contains("compensation of element 1 has failed"), "{message}");
    let items: Vec<_> = compensations(&api, &ended).await?.into_iter().map(|(_, item, _)| item).collect();
    assert_eq!(items, [2, 1], "the last one first, and none after the one that has failed");
    Ok(())
}

#[tokio::test]
async fn person_resolves_failed_compensations() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let worker = cluster.worker("echo", "one", 4)?;
    let api = Api::new(&cluster)?;
    let folder = tempfile::tempdir()?;
    let fixed = folder.path().join("fixed");
    let path = fixed.to_str().context("a path")?;
    let spec = json!({
        "onFailure": "ON_STEP_FAILURE_COMPENSATE",
        "steps": [
            { "name": "one", "task": echoes("1"), "compensate": shell("echo", "echo undone") },
            { "name": "two", "needs": [{ "step": "one" }], "task": echoes("2"),
              "compensate": shell("echo", &format!("test -e {path}")) },
            { "name": "each", "needs": [{ "step": "two" }], "forEach": { "items": "['a', 'b']" },
              "task": echoes("made ${{ item }}"), "compensate": shell("echo", "[ ${{ item }} != b ]") },
            { "name": "bad", "needs": [{ "step": "each" }], "task": shell("echo", "exit 3") },
        ],
        "finally": [{ "name": "clean", "task": echoes("${{ workflow.status }}") }],
    });
    api.create("undo", spec).await?;
    api.ended("undo").await?;
    let explained = api.get(&format!("{WORKFLOWS}/undo:explain")).await?.to_string();
    assert!(explained.contains("the compensation of step each has failed"), "{explained}");
    let resolve = async |step: &str, resolution: &str, failure: u32| {
        let resolution = format!("COMPENSATION_RESOLUTION_{resolution}");
        let body = json!({ "step": step, "resolution": resolution, "failure": failure, "note": "looked" });
        api.post(&format!("{WORKFLOWS}/undo:resolveCompensation"), &body).await
    };
    for (step, resolution, failure) in [("none", "SKIP", 1), ("two", "SKIP", 1), ("each", "SKIP", 2)] {
        let (status, refused) = resolve(step, resolution, failure).await?;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{step}: {refused}");
    }
    // A repeated call finds the first one.
    for _ in 0..2 {
        let (status, answer) = resolve("each", "SKIP", 1).await?;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let resolved = &answer["step"]["resolvedCompensation"];
        assert_eq!((&resolved["by"], &resolved["note"]), (&json!("an admin"), &json!("looked")), "{answer}");
    }
    cluster.kill().await;
    cluster.restart().await?;
    let ended = api.ended("undo").await?;
    assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_COMPENSATION_FAILED", "{ended}");
    assert_eq!(api.step("undo", "each").await?["compensation"], "STEP_STATE_SKIPPED");
    std::fs::write(&fixed, "")?;
    assert_eq!(resolve("two", "RETRY", 1).await?.0, StatusCode::OK);
    let ended = api.ended("undo").await?;
    assert_eq!(
        (&ended["status"]["state"], &ended["status"]["failedStep"]),
        (&json!("WORKFLOW_STATE_FAILED"), &json!("bad"))
    );
    for step in ["one", "two"] {
        assert_eq!(api.step("undo", step).await?["compensation"], "STEP_STATE_SUCCEEDED", "{step}");
    }
    let ran: Vec<_> =
        compensations(&api, &ended).await?.into_iter().map(|(step, item, _)| (step, item)).collect();
    let expected = [("each", 1), ("each", 0), ("two", 0), ("two", 0), ("one", 0)];
    assert_eq!(ran, expected.map(|(step, item)| (step.to_owned(), item)));
    drop(worker);
    history::check(cluster.client(), true).await?.check()
}

#[tokio::test]
async fn compensation_without_elements_reads_none() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let api = Api::new(&cluster)?;
    let each = json!({ "items": "[1]" });
    for (step, part) in [
        (
            json!({ "task": echoes("x"), "compensate": echoes("${{ item }}") }),
            "steps[0].compensate: reads `item`",
        ),
        (json!({ "task": echoes("x"), "compensate": echoes("${{ previous }}") }), "only steps with repeat"),
        (json!({ "task": echoes("x"), "outputs": { "a": "${{ index }}" } }), "in repeat.until or outputs"),
        (
            json!({ "task": echoes("x"), "forEach": each, "outputs": { "a": "${{ item }}" } }),
            "in repeat.until or outputs",
        ),
    ] {
        let mut step = step;
        step["name"] = json!("a");
        let spec = json!({ "onFailure": "ON_STEP_FAILURE_COMPENSATE", "steps": [step] });
        let (status, refused) = api.post(WORKFLOWS, &json!({ "spec": spec })).await?;
        assert!(status == StatusCode::BAD_REQUEST && refused.to_string().contains(part), "{part}: {refused}");
    }
    Ok(())
}
