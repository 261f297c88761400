//! Sizes of what workflows read and what callers send.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use reqwest::StatusCode;
use rota_testkit::{Backend, Cluster, tasks};
use serde_json::{Value, json};

use super::{Api, WORKFLOWS, echoes};
use crate::artifacts::{artifact, upload};

/// Returns the message with which a workflow has failed.
async fn failure(api: &Api, alias: &str, spec: Value) -> Result<String> {
    api.create(alias, spec).await?;
    let ended = api.ended(alias).await?;
    assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_FAILED", "{}", ended["status"]);
    Ok(ended["status"]["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn values_of_many_steps_are_bounded_together() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
        let _worker = cluster.worker("echo", "one", 4)?;
        let api = Api::new(&cluster)?;
        let steps = |count: usize| -> Vec<Value> {
            let step = |index: usize| json!({ "name": format!("s{index}"), "wait": { "duration": "0s" }, "outputs": { "text": "${{ inputs.text }}" } });
            (0..count).map(step).collect()
        };
        let sizes = |count: usize| {
            let size = |index: usize| format!("size(steps.s{index}.result.text)");
            format!("${{{{ {} }}}}", (0..count).map(size).collect::<Vec<_>>().join(" + "))
        };
        let spec = |count: usize| {
            json!({
                "inputs": { "text": "x".repeat(60 << 10) }, "steps": steps(count), "outputs": { "size": sizes(count) },
            })
        };
        api.create("few", spec(16)).await?;
        let few = api.ended("few").await?;
        assert_eq!(few["status"]["outputs"]["size"], f64::from(16 * (60 << 10)), "{}", few["status"]);
        let why = failure(&api, "many", spec(20)).await?;
        assert!(why.contains("values of the steps that are read have more than 1048576 bytes"), "{why}");

        // The last result of a step counts as those before it do.
        let steps = json!([
            { "name": "fan", "task": echoes("${{ inputs.text }}"), "forEach": { "items": "[1, 2]" } },
            { "name": "end", "needs": [{ "step": "fan" }], "task": echoes("${{ size(steps.fan.results) }}") },
        ]);
        let spec = json!({ "inputs": { "text": "x".repeat(40 << 10) }, "steps": steps });
        let why = failure(&api, "two", spec).await?;
        assert!(why.contains("results of step fan have more than 65536 bytes"), "{why}");
    }
    Ok(())
}

#[tokio::test]
async fn expressions_of_a_step_are_bounded_together() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
        let _worker = cluster.worker("echo", "one", 8)?;
        let api = Api::new(&cluster)?;
        // Each costs about a seventh of what one expression may.
        let inputs = json!({ "text": "b".repeat(60 << 10), "pattern": "^c[ab]{1000}" });
        let costly = "${{ inputs.text.matches(inputs.pattern) }}";
        let steps = json!([{ "name": "a", "task": echoes(&costly.repeat(100)) }]);
        let why = failure(&api, "costly", json!({ "inputs": inputs, "steps": steps })).await?;
        assert!(why.contains("together need more work than is allowed"), "{why}");
        // Many tasks that are fine alone are made by several commands.
        let steps = json!([
            { "name": "all", "task": echoes(&costly.repeat(5)), "forEach": { "items": "inputs.list" } },
        ]);
        let list: Vec<_> = (0..30).collect();
        let inputs = json!({ "text": inputs["text"], "pattern": inputs["pattern"], "list": list });
        api.create("wide", json!({ "inputs": inputs, "steps": steps })).await?;
        let ended = api.ended("wide").await?;
        assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_SUCCEEDED", "{ended}");
        assert_eq!(api.step("wide", "all").await?["tasksSucceeded"], 30);
        // So is one that takes most of what a command may, after one that took less than half.
        let list = json!(["^c[ab]{690}", "^c[ab]{1000}"]);
        let costly = "${{ inputs.text.matches(item) }}".repeat(48);
        let steps =
            json!([{ "name": "all", "task": echoes(&costly), "forEach": { "items": "inputs.list" } }]);
        let inputs = json!({ "text": "b".repeat(58 << 10), "list": list });
        api.create("uneven", json!({ "inputs": inputs, "steps": steps })).await?;
        let ended = api.ended("uneven").await?;
        assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_SUCCEEDED", "{ended}");
    }
    Ok(())
}

#[tokio::test]
async fn pages_of_workflows_have_a_limited_size() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        let api = Api::new(&cluster)?;
        let labels: serde_json::Map<_, _> =
            (0..60).map(|index| (format!("label{index}"), "x".repeat(256).into())).collect();
        let spec = json!({ "steps": [{ "name": "ask", "approval": { "prompt": "?" } }] });
        let count = 80;
        for _ in 0..count {
            let (status, made) = api.post(WORKFLOWS, &json!({ "labels": labels, "spec": spec })).await?;
            assert_eq!(status, StatusCode::OK, "{made}");
        }
        let (mut found, mut token, mut pages) = (std::collections::BTreeSet::new(), String::new(), 0);
        loop {
            let page = api.get(&format!("{WORKFLOWS}?pageSize=1000&pageToken={token}")).await?;
            let workflows = page["workflows"].as_array().cloned().unwrap_or_default();
            // In JSON they are a little larger than in the message that is measured.
            assert!(page.to_string().len() < 2 << 20, "{} bytes", page.to_string().len());
            pages += 1;
            for workflow in workflows {
                assert!(found.insert(workflow["uid"].as_str().context("an id")?.to_owned()));
            }
            match page["nextPageToken"].as_str() {
                Some(next) => next.clone_into(&mut token),
                None => break,
            }
        }
        assert_eq!((found.len(), pages), (count, 2));
    }
    Ok(())
}

#[tokio::test]
async fn costly_requests_are_refused() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let api = Api::new(&cluster)?;
    let mut parts = serde_json::Map::new();
    for index in 0..64 {
        let next = json!({ "$ref": format!("#/$defs/a{}", index + 1) });
        parts.insert(format!("a{index}"), json!({ "allOf": [next, next] }));
    }
    parts.insert("a64".to_owned(), json!({ "required": ["a"] }));
    let schema = json!({ "$ref": "#/$defs/a0", "$defs": parts });
    let task = echoes("x");
    let long = "a".repeat(63);
    for (spec, part) in [
        (json!({ "inputsSchema": schema, "steps": [{ "name": "a", "task": task }] }), "references"),
        (
            json!({ "steps": [{ "name": long, "task": task }, { "name": "b", "needs": [{ "step": format!("{long}a") }], "task": task }] }),
            "does not exist",
        ),
    ] {
        let (status, refused) = api.post(WORKFLOWS, &json!({ "spec": spec })).await?;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
        let message = refused["message"].as_str().unwrap_or_default();
        assert!(message.contains(part) && !message.contains("did you mean"), "{part}: {refused}");
    }
    for (text, part) in [
        ("${{ 1 }}".repeat(300), "more than 256 expressions"),
        (format!("${{{{ 1 }}}}{}", "x".repeat(3 << 20)), "at most 2097152"),
    ] {
        let spec = json!({ "steps": [{ "name": "a", "task": echoes(&text) }] });
        let (status, refused) = api.post(WORKFLOWS, &json!({ "spec": spec })).await?;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(refused["message"].as_str().unwrap_or_default().contains(part), "{part}: {refused}");
    }
    let steps: Vec<_> = (0..100)
        .map(|index| json!({ "name": format!("s{index}"), "task": echoes(&"${{ 1 }}".repeat(250)) }))
        .collect();
    let (status, refused) = api.post(WORKFLOWS, &json!({ "spec": { "steps": steps } })).await?;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
    let message = refused["message"].as_str().unwrap_or_default();
    assert!(message.contains("more than 20000 expressions"), "{refused}");
    let parameters = json!([{ "name": "p", "schema": schema, "default": { "a": 1 } }]);
    let workflow = json!({ "steps": [{ "name": "a", "task": task }] });
    let template = json!({ "spec": { "parameters": parameters, "workflow": workflow } });
    let path = "/api/v1/namespaces/default/templates?workflowTemplateId=deep";
    let (status, refused) = api.post(path, &template).await?;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
    assert!(refused["message"].as_str().unwrap_or_default().contains("references"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn damaged_spec_fails_its_step() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    let steps = json!([
        { "name": "ask", "approval": { "prompt": "?" } },
        { "name": "next", "needs": [{ "step": "ask" }], "wait": { "duration": "0s" } },
    ]);
    let api = Api::new(&cluster)?;
    api.create("damaged", json!({ "steps": steps })).await?;
    api.until_step("damaged", "ask", "RUNNING").await?;
    cluster.kill().await;
    let database = rusqlite::Connection::open(cluster.folder().join("rota.sqlite"))?;
    assert_eq!(database.execute("UPDATE step_specs SET body = x'ff' WHERE step = 1", [])?, 1);
    drop(database);
    cluster.restart().await?;
    let api = Api::new(&cluster)?;
    let decide = json!({ "step": "ask", "decision": "STEP_DECISION_APPROVE" });
    assert_eq!(api.post(&format!("{WORKFLOWS}/damaged:decide"), &decide).await?.0, StatusCode::OK);
    let ended = api.ended("damaged").await?;
    assert_eq!(ended["status"]["message"], "step next: its spec cannot be decoded", "{ended}");
    Ok(())
}

#[tokio::test]
async fn items_of_a_fan_out_are_read_once() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let list: Vec<_> = (0..300).collect();
    let steps = json!([
        { "name": "list", "wait": { "duration": "0s" }, "outputs": { "items": "${{ inputs.list }}" } },
        { "name": "fan", "needs": [{ "step": "list" }], "task": echoes("${{ index }} is ${{ item }}"),
          "forEach": { "items": "steps.list.result.items", "maxParallel": 100 } },
    ]);
    let same =
        "${{ size(inputs.list.filter(i, steps.fan.results[i].text == string(i) + ' is ' + string(i))) }}";
    let spec = json!({ "inputs": { "list": list }, "steps": steps, "outputs": { "same": same } });
    let api = Api::new(&cluster)?;
    api.create("wide", spec).await?;
    api.until_step("wide", "fan", "RUNNING").await?;
    cluster.kill().await;
    // Nothing reads the list again.
    let database = rusqlite::Connection::open(cluster.folder().join("rota.sqlite"))?;
    assert_eq!(database.execute("DELETE FROM step_outputs WHERE step = 0", [])?, 1);
    drop(database);
    cluster.restart().await?;
    let _worker = cluster.worker("echo", "one", 16)?;
    let api = Api::new(&cluster)?;
    let ended = api.ended("wide").await?;
    assert_eq!(ended["status"]["outputs"]["same"], 300.0, "{}", ended["status"]);
    Ok(())
}

#[tokio::test]
async fn expression_bounds_a_fan_out() -> Result<()> {
    let mut cluster = Cluster::start(Backend::Sqlite).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let nested = json!({ "spec": { "steps": [{ "name": "ask", "approval": { "prompt": "?" } }] } });
    let spec = json!({
        "inputs": { "width": 2, "modules": ["a", "b", "c", "d", "e"] },
        "steps": [
            { "name": "fan", "task": echoes("${{ item }}"),
              "forEach": { "items": "inputs.modules", "maxParallel": "${{ inputs.width }}" } },
            { "name": "list", "wait": { "duration": "0s" }, "outputs": { "wide": "${{ inputs.width + 1 }}" } },
            { "name": "inner", "needs": [{ "step": "list" }], "workflow": nested,
              "forEach": { "items": "inputs.modules", "maxParallel": "steps.list.result.wide" } },
        ],
    });
    let api = Api::new(&cluster)?;
    api.create("wide", spec).await?;
    let each = &api.workflow("wide").await?["spec"]["steps"][0]["forEach"];
    assert_eq!(each, &json!({ "items": "inputs.modules", "maxParallelExpression": "${{ inputs.width }}" }));
    // No worker ends a task: those that exist are as many as may.
    for (step, created) in [("fan", 2), ("inner", 3)] {
        assert_eq!(api.until_step("wide", step, "RUNNING").await?["tasksCreated"], created, "{step}");
    }
    cluster.kill().await;
    cluster.restart().await?;
    let api = Api::new(&cluster)?;
    let _worker = cluster.worker("echo", "one", 4)?;
    assert_eq!(api.until_step("wide", "fan", "SUCCEEDED").await?["tasksSucceeded"], 5);
    assert_eq!(api.step("wide", "inner").await?["tasksCreated"], 3);
    Ok(())
}

#[tokio::test]
async fn expression_bounds_the_rounds() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
        let _worker = cluster.worker("echo", "one", 4)?;
        let api = Api::new(&cluster)?;
        let spec = json!({
            "inputs": { "most": 3, "wanted": 2 },
            "steps": [{ "name": "again", "task": echoes("x"),
                        "repeat": { "until": "round >= inputs.wanted", "max": "${{ inputs.most }}" } }],
        });
        let first = api.create("rounds", spec).await?;
        assert_eq!(api.ended("rounds").await?["status"]["state"], "WORKFLOW_STATE_SUCCEEDED");
        // Of a rerun that allows fewer rounds than it has had, it is not taken over.
        for (inputs, expected) in [
            (json!({ "most": 1 }), "step again: its condition does not hold after 1 rounds"),
            (json!({ "wanted": 9 }), "step again: its condition does not hold after 3 rounds"),
            (json!({ "most": 2 }), ""),
        ] {
            let body = json!({ "reuseResults": true, "inputs": inputs });
            let path = format!("{WORKFLOWS}/{}:rerun", first["uid"].as_str().context("an id")?);
            let (status, made) = api.post(&path, &body).await?;
            assert_eq!(status, StatusCode::OK, "{made}");
            let ended = api.ended(made["uid"].as_str().context("an id")?).await?;
            assert_eq!(ended["status"]["message"].as_str().unwrap_or_default(), expected, "{inputs}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn bound_that_is_no_positive_number_fails_its_step() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let api = Api::new(&cluster)?;
    for (index, (bound, shown)) in [
        (json!(0), "0"),
        (json!(-1), "-1"),
        (json!(1.5), "1.5"),
        (json!("2"), "\"2\""),
        (json!(20_000), "20000"),
    ]
    .into_iter()
    .enumerate()
    {
        let range = "and must be a whole number from 1 to";
        let each = json!({ "items": "[1]", "maxParallel": "${{ inputs.bound }}" });
        let step = json!({ "name": "a", "task": echoes("x"), "forEach": each });
        let spec = json!({ "inputs": { "bound": bound }, "steps": [step] });
        let why = failure(&api, &format!("wide-{index}"), spec).await?;
        assert_eq!(why, format!("step a: forEach.maxParallel is {shown}, {range} 10000"));
        let repeat = json!({ "until": "true", "max": "${{ inputs.bound }}" });
        let step = json!({ "name": "a", "task": echoes("x"), "repeat": repeat });
        let spec = json!({ "inputs": { "bound": bound }, "steps": [step] });
        let why = failure(&api, &format!("long-{index}"), spec).await?;
        assert_eq!(why, format!("step a: repeat.max is {shown}, {range} 1000"));
    }
    let made = api.get("/api/v1/namespaces/default/tasks").await?;
    assert_eq!(made["tasks"], Value::Null, "no task of them was created");
    for (fields, part) in [
        (json!({ "forEach": { "items": "[1]", "maxParallel": "${{ item }}" } }), "evaluated before them"),
        (json!({ "repeat": { "until": "true", "max": "round" } }), "evaluated before them"),
        (json!({ "repeat": { "until": "true", "max": "${{ steps.b.result }}" } }), "without needing"),
        (json!({ "repeat": { "until": "true", "max": 1, "maxExpression": "1" } }), "together"),
        (json!({ "repeat": { "until": "true" } }), "from 1 to 1000"),
    ] {
        let mut step = json!({ "name": "a", "task": echoes("x") });
        step.as_object_mut().context("a step")?.extend(fields.as_object().cloned().unwrap_or_default());
        let other = json!({ "name": "b", "task": echoes("x") });
        let (status, refused) = api.post(WORKFLOWS, &json!({ "spec": { "steps": [step, other] } })).await?;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
        assert!(refused["message"].as_str().unwrap_or_default().contains(part), "{part}: {refused}");
    }
    Ok(())
}

#[tokio::test]
async fn files_and_typed_expressions_are_bounded_in_number() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let api = Api::new(&cluster)?;
    upload(cluster.client(), "namespaces/default", "data").await?;
    let file = serde_json::to_value(artifact("input/data", "data"))?;
    let files: BTreeMap<_, _> = (0..65).map(|index| (format!("f{index}"), &file)).collect();
    let wait = json!({ "name": "a", "wait": { "signal": "go" } });
    let typed: BTreeMap<_, _> = (0..33).map(|index| (format!("task.limits.l{index}"), "${{ 1 }}")).collect();
    for (spec, count) in [
        (json!({ "steps": [wait], "inputFiles": files }), "65 entries; at most 64"),
        (
            json!({ "steps": [{ "name": "a", "wait": { "signal": "go" }, "expressions": typed }] }),
            "33 entries; at most 32",
        ),
    ] {
        let (status, refused) = api.post(WORKFLOWS, &json!({ "spec": spec })).await?;
        assert!(status == StatusCode::BAD_REQUEST && refused.to_string().contains(count), "{refused}");
    }
    Ok(())
}
