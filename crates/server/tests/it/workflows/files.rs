//! Files as inputs of workflows: which steps and nested workflows are given them, and reruns.

use anyhow::{Context, Result};
use reqwest::StatusCode;
use rota_testkit::{Backend, Cluster, tasks};
use serde_json::{Value, json};

use super::nested::template;
use super::step_results::{shell, text};
use super::{Api, WORKFLOWS};
use crate::artifacts::{artifact, upload};

/// Stores a file, and returns what names it.
async fn stored(cluster: &Cluster, name: &str, content: &'static str) -> Result<Value> {
    upload(cluster.client(), "namespaces/default", content).await?;
    Ok(serde_json::to_value(artifact(name, content))?)
}

const PRINTS: &str = "cat $ROTA_CONTEXT/${{ inputs.data.path }}";

#[tokio::test]
async fn steps_find_the_files_that_they_name() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
        let _worker = cluster.worker("echo", "one", 4)?;
        let api = Api::new(&cluster)?;
        let count = json!({
            "steps": [{ "name": "count", "task": shell("wc -w < $ROTA_CONTEXT/${{ inputs.words.path }}") }],
            "outputs": { "count": "${{ steps.count.result.text }}" },
        });
        template(&api, "count", json!([{ "name": "words", "schema": { "type": "object" } }]), count).await?;
        let spec = json!({
            "inputs": { "other": "x" },
            "inputFiles": {
                "data": stored(&cluster, "input/data.txt", "one two").await?,
                "more": stored(&cluster, "input/more.txt", "three").await?,
            },
            "steps": [
                { "name": "print", "task": shell(PRINTS) },
                { "name": "none", "task": shell("ls $ROTA_CONTEXT/input 2>/dev/null; echo ${{ inputs.other }}") },
                { "name": "only", "task": shell("ls $ROTA_CONTEXT/input; : ${{ inputs.more.sha256 }}") },
                { "name": "each", "forEach": { "items": "[inputs.data, inputs.more]" },
                  "task": shell("cat $ROTA_CONTEXT/${{ item.path }}") },
                { "name": "nest", "workflow": { "template": "count", "inputs": { "words": "${{ inputs.data }}" } } },
            ],
            "outputs": { "all": "${{ steps.each.results.map(r, r.text).join('+') }} ${{ steps.nest.result.count }}" },
        });
        api.create("given", spec).await?;
        let ended = api.ended("given").await?;
        assert_eq!(ended["status"]["outputs"]["all"], "one two+three 2", "{ended}");
        assert_eq!(text(&api, "given", "print").await?, "one two");
        assert_eq!(text(&api, "given", "none").await?, "x");
        assert_eq!(text(&api, "given", "only").await?, "more.txt");
    }
    Ok(())
}

#[tokio::test]
async fn reruns_keep_and_replace_files() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 4)?;
    let api = Api::new(&cluster)?;
    let steps = json!([{ "name": "print", "task": shell(PRINTS) }]);
    let files = json!({ "data": stored(&cluster, "input/data", "first").await? });
    let first = api.create("one", json!({ "inputFiles": files, "steps": steps })).await?;
    api.ended("one").await?;
    let rerun = async |body: Value| -> Result<Value> {
        let (status, made) = api.post(&format!("{WORKFLOWS}/one:rerun"), &body).await?;
        anyhow::ensure!(status == StatusCode::OK, "{made}");
        api.ended("one").await?;
        api.step("one", "print").await
    };
    assert_eq!(rerun(json!({ "reuseResults": true })).await?["reused"], true);
    // It has the files of its own, also after the earlier one was removed.
    let id = first["uid"].as_str().context("an id")?;
    let deleted = api.http.delete(format!("{}{WORKFLOWS}/{id}", api.base)).send().await?;
    assert_eq!(deleted.status(), StatusCode::OK);
    assert_eq!(rerun(json!({})).await?["reused"], Value::Null);
    assert_eq!(text(&api, "one", "print").await?, "first");
    // The same path with another content is another input.
    let files = json!({ "data": stored(&cluster, "input/data", "second").await? });
    let again = rerun(json!({ "reuseResults": true, "inputFiles": files })).await?;
    assert_eq!((&again["reused"], text(&api, "one", "print").await?), (&Value::Null, "second".to_owned()));
    // A value takes the place of a file.
    rerun(json!({ "inputs": { "data": { "path": "none" } } })).await?;
    assert_eq!(api.workflow("one").await?["spec"]["inputFiles"], Value::Null);
    assert_eq!(api.step("one", "print").await?["state"], "STEP_STATE_FAILED");
    Ok(())
}

#[tokio::test]
async fn invalid_files_are_refused() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let api = Api::new(&cluster)?;
    let known = stored(&cluster, "input/known", "known").await?;
    let mut elsewhere = known.clone();
    elsewhere["name"] = json!("output/known");
    let wait = json!([{ "name": "a", "wait": { "signal": "go" } }]);
    let nested = json!({ "steps": wait, "inputFiles": { "data": known } });
    for (spec, reason) in [
        (
            json!({ "steps": wait, "inputFiles": { "data": artifact("input/lost", "lost") } }),
            "ARTIFACT_NOT_STORED",
        ),
        (json!({ "steps": wait, "inputFiles": { "data": elsewhere } }), "must be a plain path below input/"),
        (
            json!({ "steps": wait, "inputFiles": { "data": known }, "inputs": { "data": 1 } }),
            "the input is a file",
        ),
        (json!({ "steps": [{ "name": "n", "workflow": { "spec": nested } }] }), "workflow.spec.input_files"),
    ] {
        let (status, refused) = api.post(WORKFLOWS, &json!({ "spec": spec })).await?;
        assert!(status.is_client_error() && refused.to_string().contains(reason), "{refused}");
    }
    Ok(())
}
