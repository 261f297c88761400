//! Too much work: accepted workflows run, and new ones are refused.

use anyhow::Result;
use reqwest::StatusCode;
use rota_server::{Limits, WorkLimits};
use rota_testkit::{Backend, Cluster, Setup, tasks};
use serde_json::json;

use super::{Api, WORKFLOWS, echoes};

#[tokio::test]
async fn accepted_workflows_create_their_tasks() -> Result<()> {
    let work = WorkLimits { waiting_tasks: 5, waiting_tasks_of_namespace: 0, memory: Some(0) };
    let limits = Limits { work, ..Limits::default() };
    let cluster = Cluster::start_with(Setup { limits, ..Setup::new(Backend::Sqlite) }).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let api = Api::new(&cluster)?;
    let fan =
        json!({ "name": "fan", "task": echoes("a"), "forEach": { "items": "[1, 2, 3, 4, 5, 6, 7, 8]" } });
    let steps = json!([fan, { "name": "last", "task": echoes("b"), "needs": [{ "step": "fan" }] }]);
    api.create("one", json!({ "steps": steps })).await?;
    let list = "/api/v1/namespaces/default/tasks";
    tasks::eventually("more tasks than may wait", || async {
        Ok(api.get(list).await?["tasks"].as_array().map_or(0, Vec::len) == 8)
    })
    .await?;
    // The call waits until earlier commits are counted.
    tasks::agent(cluster.client(), "other", tasks::script([]), &[]).await?;
    let another = json!({ "alias": "two", "spec": { "steps": steps } });
    let (status, refused) = api.post(WORKFLOWS, &another).await?;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.to_string().contains("TOO_MANY_TASKS"), "{refused}");
    let _worker = cluster.worker("echo", "one", 4)?;
    assert_eq!(api.ended("one").await?["status"]["state"], "WORKFLOW_STATE_SUCCEEDED");
    tasks::agent(cluster.client(), "third", tasks::script([]), &[]).await?;
    let (status, accepted) = api.post(WORKFLOWS, &another).await?;
    assert_eq!(status, StatusCode::OK, "{accepted}");
    Ok(())
}
