//! Many workflows of one template at a time.

use anyhow::Result;
use reqwest::StatusCode;
use rota_proto::v1;
use rota_testkit::{Backend, Cluster, history, tasks};
use serde_json::json;

use super::nested::template;
use super::{Api, WORKFLOWS, echoes};

const COUNT: usize = 12;

#[tokio::test]
async fn twelve_workflows_of_a_template_run_at_a_time() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let cluster = Cluster::start(backend).await?;
        tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
        let _worker = cluster.worker("echo", "one", 3)?;
        let api = Api::new(&cluster)?;
        let deploy = json!({
            "steps": [
                { "name": "build", "task": echoes("${{ inputs.image }}") },
                { "name": "go", "needs": [{ "step": "build" }], "wait": { "signal": "go" } },
                { "name": "each", "needs": [{ "step": "go" }], "forEach": { "items": "[1, 2]" },
                  "task": echoes("${{ steps.build.result.text }}${{ item }}") },
            ],
            "outputs": { "text": "${{ steps.each.results.map(r, r.text).join(' ') }}" },
        });
        template(&api, "deploy", json!([{ "name": "image", "schema": { "type": "string" } }]), deploy)
            .await?;
        let alias = |number: usize| format!("deploy-{number}");
        for number in 0..COUNT {
            let workflow = v1::Workflow { alias: alias(number), ..Default::default() };
            let request = v1::CreateWorkflowRequest {
                parent: rota_proto::names::namespace(tasks::NAMESPACE),
                workflow: Some(workflow),
                template: "deploy".to_owned(),
                parameters: serde_json::from_value(json!({ "image": format!("i{number}-") })).ok(),
                ..Default::default()
            };
            cluster.client().create_workflow(request).await?;
        }
        // All are under way before the first of them ends.
        for number in 0..COUNT {
            api.until_step(&alias(number), "go", "RUNNING").await?;
        }
        let list = api.get(&format!("{WORKFLOWS}?pageSize=100")).await?;
        let running = |one: &&serde_json::Value| one["status"]["state"] == "WORKFLOW_STATE_RUNNING";
        assert_eq!(list["workflows"].as_array().into_iter().flatten().filter(running).count(), COUNT);
        // The last one that was created continues first.
        for number in (0..COUNT).rev() {
            let path = format!("{WORKFLOWS}/{}:signal", alias(number));
            let (status, sent) = api.post(&path, &json!({ "signal": "go" })).await?;
            assert_eq!((status, &sent["steps"]), (StatusCode::OK, &json!(1)), "{sent}");
        }
        for number in 0..COUNT {
            let ended = api.ended(&alias(number)).await?;
            assert_eq!(ended["status"]["state"], "WORKFLOW_STATE_SUCCEEDED", "{ended}");
            let expected = format!("i{number}-1 i{number}-2");
            assert_eq!(ended["status"]["outputs"]["text"], expected.as_str(), "{ended}");
        }
        history::check(cluster.client(), true).await?.check()?;
    }
    Ok(())
}
