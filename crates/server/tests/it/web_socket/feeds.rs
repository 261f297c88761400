//! What each channel sends, and how clients that were away or slow catch up.

use std::collections::BTreeSet;

use reqwest::{Method, RequestBuilder};
use rota_proto::v1;

use super::*;

const WORKFLOWS: &str = "/api/v1/namespaces/default/workflows";

fn request(cluster: &Cluster, method: Method, path: &str) -> Result<RequestBuilder> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    Ok(http.request(method, format!("http://{}{path}", cluster.addr())).bearer_auth(ADMIN))
}

/// Creates a workflow with steps that wait for a person.
async fn asking(cluster: &Cluster, alias: &str, steps: usize) -> Result<()> {
    let step = |number| json!({ "name": format!("s{number}"), "approval": { "prompt": "go?" } });
    let spec = json!({ "steps": (0..steps).map(step).collect::<Vec<_>>() });
    let created = json!({ "alias": alias, "spec": spec });
    request(cluster, Method::POST, WORKFLOWS)?.json(&created).send().await?.error_for_status()?;
    Ok(())
}

/// Returns the next message of a subscription.
async fn next_of(socket: &mut Socket, id: &str) -> Result<Value> {
    loop {
        let message = socket.next().await?.ok().context("the connection has ended")?;
        if message["id"] == id {
            return Ok(message);
        }
    }
}

#[tokio::test]
async fn workflows_send_all_their_messages() -> Result<()> {
    let cluster = cluster().await?;
    asking(&cluster, "before", 1).await?;
    let mut socket = connect(&cluster, &[OFFER]).await?;
    socket.subscribe("w", "workflows", json!({})).await?;
    let whole = socket.until("snapshot", "w", |part| part["complete"] == true).await?;
    let aliases = |part: &Value| -> BTreeSet<String> {
        let items = part["items"].as_array().into_iter().flatten();
        items.filter_map(|item| item["alias"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(aliases(&whole), ["before".to_owned()].into(), "{whole}");

    asking(&cluster, "one", 1).await?;
    let is = |message: &Value, alias: &str| message["workflow"]["alias"] == alias;
    let waits = |message: &Value| is(message, "one") && message["approvals"][0]["prompt"] == "go?";
    socket.until("workflow_progress", "w", waits).await?;
    let decision = json!({ "step": "s0", "decision": "STEP_DECISION_APPROVE" });
    let decide = request(&cluster, Method::POST, &format!("{WORKFLOWS}/one:decide"))?;
    decide.json(&decision).send().await?.error_for_status()?;
    let done = socket.until("workflow_completed", "w", |message| is(message, "one")).await?;
    assert_eq!(done["workflow"]["status"]["state"], "WORKFLOW_STATE_SUCCEEDED", "{done}");
    let name = done["workflow"]["name"].as_str().context("a name")?;
    request(&cluster, Method::DELETE, &format!("{WORKFLOWS}/one"))?.send().await?.error_for_status()?;
    socket.until("workflow_deleted", "w", |message| message["workflow"]["name"] == name).await?;

    // After a position only what was missed comes.
    socket.subscribe("x", "workflows", json!({ "token": done["token"] })).await?;
    let missed = loop {
        let message = next_of(&mut socket, "x").await?;
        if message["type"] != "position" {
            break message;
        }
    };
    assert_eq!((&missed["type"], &missed["workflow"]["name"]), (&json!("workflow_deleted"), &json!(name)));

    // More at a time than a message may have, for clients that were never away: all of it again, then changes.
    asking(&cluster, "many", 300).await?;
    socket.until("error_recovery", "w", |message| message["resync"] == true).await?;
    let whole = socket.until("snapshot", "w", |part| part["complete"] == true).await?;
    assert_eq!(aliases(&whole), ["before".to_owned(), "many".to_owned()].into(), "{whole}");
    asking(&cluster, "last", 1).await?;
    socket.until("workflow_progress", "w", |message| is(message, "last")).await.map(drop)
}

#[tokio::test]
async fn changed_agents_come_with_their_workers() -> Result<()> {
    let cluster = cluster().await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 2)?;
    tasks::connected(client, "one").await?;
    let mut socket = connect(&cluster, &[OFFER]).await?;
    socket.subscribe("a", "agents", json!({})).await?;
    socket.until("snapshot", "a", |part| part["complete"] == true).await?;
    tasks::agent(client, "echo", tasks::script([]), &["code"]).await?;
    let is_changed = |message: &Value| message["agent"]["spec"]["capabilities"] == json!(["code"]);
    let changed = socket.until("agent_status", "a", is_changed).await?;
    assert_eq!(changed["agent"]["name"], format!("{PARENT}/agents/echo"));
    assert_eq!(changed["agent"]["status"]["workers"], 1, "{changed}");
    Ok(())
}

#[tokio::test]
async fn clients_away_too_long_recover() -> Result<()> {
    let mut setup = Setup::new(Backend::Memory);
    setup.timing.retention = Some(Duration::from_secs(24 * 3600));
    let cluster = Cluster::start_with(setup).await?;
    let mut socket = connect(&cluster, &[]).await?;
    socket.subscribe("t", "tasks", json!({ "snapshot": false })).await?;
    let name = tasks::create(cluster.client(), tasks::task("missing")).await?.name;
    let seen = socket.until("task_progress", "t", |message| message["task"]["name"] == name).await?;
    let token = seen["token"].as_str().context("a token")?;
    // The second part of a position is its time: here one before the retention.
    let (revision, rest) = token.split_once('.').context("a revision")?;
    let (_, origin) = rest.split_once('.').context("a time")?;
    for (id, token, first) in
        [("back", token.to_owned(), "position"), ("away", format!("{revision}.0.{origin}"), "error_recovery")]
    {
        socket.subscribe(id, "tasks", json!({ "token": token })).await?;
        let begin = next_of(&mut socket, id).await?;
        assert_eq!(begin["type"], first, "{id}: {begin}");
    }
    let whole = socket.until("snapshot", "away", |part| part["complete"] == true).await?;
    assert_eq!(whole["items"][0]["name"], name, "{whole}");
    Ok(())
}

/// The store has what neither the network nor the buffer that all watchers share holds for a client: nothing is left out.
/// What such clients cost in memory is measured in `crates/cli/tests/processes/hostile.rs`.
#[tokio::test]
async fn client_that_reads_late_misses_nothing() -> Result<()> {
    let cluster = cluster().await?;
    let mut socket = connect(&cluster, &[OFFER]).await?;
    socket.subscribe("t", "tasks", json!({ "snapshot": false })).await?;
    let (mut created, mut last) = (BTreeSet::new(), String::new());
    // In few calls: a message that is taken too late ends the connection.
    for _ in 0..10 {
        let large = |_| v1::CreateTaskRequest {
            task: Some(tasks::scripted("missing", [Step::Output("x".repeat(64 << 10))])),
            ..Default::default()
        };
        let requests = (0..30).map(large).collect();
        let batch = v1::BatchCreateTasksRequest { parent: PARENT.into(), requests, ..Default::default() };
        for result in cluster.client().batch_create_tasks(batch).await?.results {
            let Some(v1::batch_create_tasks_result::Kind::Task(task)) = result.kind else {
                bail!("not created: {result:?}")
            };
            last.clone_from(&task.name);
            created.insert(task.name);
        }
    }
    tasks::cancel(cluster.client(), &last).await?;
    let mut seen = BTreeSet::new();
    loop {
        let message = socket.next().await?.ok().context("the connection has ended")?;
        let kind = message["type"].as_str().context("a type")?;
        ensure!(["position", "task_progress", "task_completed"].contains(&kind), "{kind}");
        seen.extend(message["task"]["name"].as_str().map(str::to_owned));
        if is_state(&message, &last, "TASK_STATE_CANCELLED") {
            break;
        }
    }
    assert_eq!(seen, created);
    Ok(())
}
