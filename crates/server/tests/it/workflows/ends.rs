//! Ends of workflows: the schema of their outputs, and their removal.

use anyhow::{Context, Result};
use reqwest::StatusCode;
use rota_testkit::{Backend, Cluster, tasks};
use serde_json::json;

use super::{Api, WORKFLOWS, echoes};

#[tokio::test]
async fn outputs_must_match_their_schema() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 2)?;
    let api = Api::new(&cluster)?;
    let spec = |count: &str, schema| {
        json!({
            "steps": [{ "name": "a", "task": echoes("x") }],
            "outputs": { "count": count, "text": "${{ steps.a.result.text }}" },
            "outputsSchema": schema,
        })
    };
    let schema =
        json!({ "required": ["text"], "properties": { "count": { "type": "integer", "minimum": 2 } } });
    api.create("fits", spec("${{ 1 + 1 }}", schema.clone())).await?;
    let ended = api.ended("fits").await?;
    assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_SUCCEEDED", "{ended}");
    assert_eq!(ended["status"]["outputs"]["count"], 2.0);
    for (alias, count) in [("small", "${{ 1 }}"), ("text", "two")] {
        api.create(alias, spec(count, schema.clone())).await?;
        let ended = api.ended(alias).await?;
        assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_FAILED", "{ended}");
        let message = ended["status"]["message"].as_str().context("a message")?;
        assert!(message.starts_with("outputs: count: "), "{message}");
        assert_eq!(ended["status"]["outputs"], json!(null), "{ended}");
    }
    let (status, refused) =
        api.post(WORKFLOWS, &json!({ "spec": spec("1", json!({ "type": "nothing" })) })).await?;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
    assert!(refused.to_string().contains("outputs_schema"), "{refused}");
    let without = json!({ "steps": [{ "name": "a", "task": echoes("x") }], "outputsSchema": {} });
    let (status, refused) = api.post(WORKFLOWS, &json!({ "spec": without })).await?;
    assert!(status == StatusCode::BAD_REQUEST && refused.to_string().contains("needs outputs"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn workflow_is_removed_after_its_ttl() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
        let _worker = cluster.worker("echo", "one", 2)?;
        let api = Api::new(&cluster)?;
        let steps =
            json!({ "steps": [{ "name": "a", "task": echoes("x") }, { "name": "b", "task": echoes("y") }] });
        let create = async |alias: &str, ttl: &str| {
            api.post(WORKFLOWS, &json!({ "alias": alias, "spec": steps, "ttlAfterFinished": ttl })).await
        };
        let (_, kept) = create("kept", "3600s").await?;
        assert_eq!(kept["ttlAfterFinished"], "3600s", "{kept}");
        let (_, brief) = create("brief", "0s").await?;
        let id = brief["uid"].as_str().context("an id")?;
        let absent = async |path: String| {
            tasks::eventually(&path, || async {
                Ok(api.get(&path).await.is_err_and(|error| error.to_string().contains("404")))
            })
            .await
        };
        absent(format!("{WORKFLOWS}/{id}")).await?;
        tasks::eventually("no tasks", || async {
            let left = api.get(&format!("/api/v1/namespaces/default/tasks?filter.workflow={id}")).await?;
            Ok(left["tasks"].as_array().is_none_or(Vec::is_empty))
        })
        .await?;
        let ended = api.ended("kept").await?;
        assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_SUCCEEDED", "{ended}");
        let (_, again) = api.post(&format!("{WORKFLOWS}/kept:rerun"), &json!({})).await?;
        assert_eq!(again["ttlAfterFinished"], "3600s", "{again}");
        let (status, refused) = create("long", "40000000s").await?;
        assert!(status == StatusCode::BAD_REQUEST && refused.to_string().contains("365 days"), "{refused}");
    }
    Ok(())
}
