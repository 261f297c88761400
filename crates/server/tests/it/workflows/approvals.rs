//! The list of steps that wait for a person: over all workflows, page by page, and after a restart.

use anyhow::{Context, Result};
use rota_testkit::{Backend, Cluster, Setup, tasks};
use serde_json::{Value, json};

use super::{Api, WORKFLOWS};

/// Reads all pages of so many entries; returns the prompts.
async fn prompts(api: &Api, namespace: &str, size: usize) -> Result<Vec<String>> {
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/v1/namespaces/{namespace}/approvals?pageSize={size}&pageToken={token}");
        let page = api.get(&path).await?;
        let approvals = page["approvals"].as_array().cloned().unwrap_or_default();
        assert!(approvals.len() <= size, "{page}");
        for approval in &approvals {
            assert!(approval["workflow"]["name"].is_string(), "{approval}");
            found.push(approval["step"]["prompt"].as_str().unwrap_or_default().to_owned());
        }
        token = page["nextPageToken"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            return Ok(found);
        }
    }
}

fn asks(names: &[&str]) -> Value {
    let steps =
        names.iter().map(|name| json!({ "name": name, "approval": { "prompt": format!("{name}?") } }));
    json!({ "title": "asks", "steps": steps.collect::<Vec<_>>() })
}

#[tokio::test]
async fn steps_that_wait_are_listed_over_all_workflows() -> Result<()> {
    let mut cluster = Cluster::start_with(Setup { http: true, ..Setup::new(Backend::Sqlite) }).await?;
    let api = Api::new(&cluster)?;
    api.create("old", asks(&["a", "b"])).await?;
    let other = json!({ "spec": asks(&["c"]) });
    api.post("/api/v1/namespaces/other/workflows", &other).await?;
    api.create("new", asks(&["d"])).await?;
    tasks::eventually("all steps wait", || async { Ok(prompts(&api, "-", 9).await?.len() == 4) }).await?;
    // Those of the newest workflow first.
    for size in [1, 2, 9] {
        assert_eq!(prompts(&api, "default", size).await?, ["d?", "b?", "a?"], "{size}");
    }
    assert_eq!(prompts(&api, "-", 3).await?, ["d?", "c?", "b?", "a?"]);
    for (workflow, expected) in [("old", vec!["b?", "a?"]), ("new", vec!["d?"])] {
        let path = format!("/api/v1/namespaces/default/approvals?workflow={workflow}");
        let page = api.get(&path).await?;
        let found: Vec<_> =
            page["approvals"].as_array().into_iter().flatten().map(|one| &one["step"]["prompt"]).collect();
        assert_eq!(found, expected, "{workflow}");
    }
    for (parent, workflow, expected) in [("-", "old", 400), ("other", "old", 404), ("default", "none", 404)] {
        let path = format!("{}/api/v1/namespaces/{parent}/approvals?workflow={workflow}", api.base);
        let refused = api.http.get(path).send().await?;
        assert_eq!(refused.status().as_u16(), expected, "{parent} {workflow}");
    }
    let decision = json!({ "step": "b", "decision": "STEP_DECISION_APPROVE" });
    api.post(&format!("{WORKFLOWS}/old:decide"), &decision).await?;
    api.post(&format!("{WORKFLOWS}/new:cancel"), &json!({})).await?;
    tasks::eventually("two have ended", || async { Ok(prompts(&api, "-", 9).await?.len() == 2) }).await?;
    cluster.stop().await;
    cluster.restart().await?;
    let api = Api::new(&cluster)?;
    let address = cluster.http_addr().context("no address")?;
    let page = api.http.get(format!("http://{address}/metrics")).send().await?.text().await?;
    assert!(page.contains("rota_workflow_approvals_waiting 2\n"), "the first page has them: {page}");
    assert_eq!(prompts(&api, "-", 9).await?, ["c?", "a?"]);
    Ok(())
}
