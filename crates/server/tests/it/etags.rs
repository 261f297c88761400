//! Etags of records: reads that return nothing new, and changes that undo no other.

use anyhow::{Context, Result};
use reqwest::{Method, RequestBuilder, StatusCode};
use rota_proto::v1;
use rota_testkit::client::Error;
use rota_testkit::{Backend, Cluster, tasks};
use serde_json::{Value, json};

/// Path of a record, the method and path that change it, and two bodies of it.
struct Record {
    path: &'static str,
    create: (Method, &'static str),
    change: (Method, &'static str),
    bodies: [Value; 2],
}

fn records() -> [Record; 4] {
    let agent =
        |description: &str| json!({ "spec": { "runtime": { "command": {} }, "description": description } });
    let schedule = |cron: &str| {
        let task = json!({ "spec": { "target": { "agent": "a" }, "prompt": "x" } });
        json!({ "spec": { "cron": cron, "task": task } })
    };
    let template = |prompt: &str| {
        let task = json!({ "target": { "agent": "a" }, "prompt": prompt });
        json!({ "spec": { "workflow": { "steps": [{ "name": "one", "task": task }] } } })
    };
    let kind = |prompt: &str| json!({ "spec": { "description": prompt } });
    [
        Record {
            path: "agents/e",
            create: (Method::POST, "agents?agentId=e"),
            change: (Method::PATCH, "agents/e"),
            bodies: [agent("one"), agent("two")],
        },
        Record {
            path: "schedules/e",
            create: (Method::POST, "schedules?scheduleId=e"),
            change: (Method::PATCH, "schedules/e"),
            bodies: [schedule("0 3 * * *"), schedule("0 4 * * *")],
        },
        Record {
            path: "templates/e",
            create: (Method::POST, "templates?workflowTemplateId=e"),
            change: (Method::PATCH, "templates/e"),
            bodies: [template("one"), template("two")],
        },
        Record {
            path: "kinds/e",
            create: (Method::PUT, "kinds/e"),
            change: (Method::PUT, "kinds/e"),
            bodies: [kind("one"), kind("two")],
        },
    ]
}

/// Sends a request; returns the status, the etag and the reason of an error.
async fn send(request: RequestBuilder) -> Result<(StatusCode, Option<String>, String)> {
    let answer = request.send().await?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let etag = headers.get("etag").map(|etag| etag.to_str().map(str::to_owned)).transpose()?;
    let text = answer.text().await?;
    let body: Value =
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).context(text)? };
    if status.is_success() && etag.is_some() {
        assert_eq!(etag, body["etag"].as_str().map(|etag| format!("\"{etag}\"")));
    }
    let reason = body["details"][0]["reason"].as_str().unwrap_or_default().to_owned();
    Ok((status, etag, reason))
}

#[tokio::test]
async fn records_have_etags_over_http() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let call = |method: &Method, path: &str| {
        http.request(method.clone(), format!("http://{}/api/v1/namespaces/default/{path}", cluster.addr()))
    };
    for Record { path, create, change, bodies: [one, two] } in records() {
        let (status, first, _) = send(call(&create.0, create.1).json(&one)).await?;
        assert_eq!(status, StatusCode::OK, "{path}");
        let first = first.with_context(|| format!("{path} has no etag"))?;
        let read = || call(&Method::GET, path);
        assert_eq!(send(read()).await?.1.as_ref(), Some(&first), "{path}");
        for known in [first.as_str(), "*", &format!("\"x\", W/{first}")] {
            let (status, etag, _) = send(read().header("if-none-match", known)).await?;
            assert_eq!((status, etag.as_ref()), (StatusCode::NOT_MODIFIED, Some(&first)), "{path} {known}");
        }
        let changed = |body: &Value| call(&change.0, change.1).json(body);
        let (status, second, _) = send(changed(&two).header("if-match", &first)).await?;
        let second = second.with_context(|| format!("{path} has no etag"))?;
        assert!(status == StatusCode::OK && second != first, "{path} {status}");
        let (status, ..) = send(read().header("if-none-match", &first)).await?;
        assert_eq!(status, StatusCode::OK, "{path}");
        // Who has read before that changes and deletes nothing.
        let deleted = || call(&Method::DELETE, path);
        for late in [changed(&one).header("if-match", &first), deleted().header("if-match", &first)] {
            let (status, _, reason) = send(late).await?;
            assert_eq!(
                (status, reason.as_str()),
                (StatusCode::PRECONDITION_FAILED, "ETAG_MISMATCH"),
                "{path}"
            );
        }
        assert_eq!(send(read()).await?.1.as_ref(), Some(&second), "{path}");
        let (status, _, reason) = send(changed(&one).header("if-match", "weak")).await?;
        assert_eq!((status, reason.as_str()), (StatusCode::BAD_REQUEST, "REQUEST_INVALID"));
        assert_eq!(send(changed(&one).header("if-match", "*")).await?.0, StatusCode::OK, "{path}");
        let third = send(read()).await?.1.context("no etag")?;
        assert_eq!(send(deleted().header("if-match", &third)).await?.0, StatusCode::OK, "{path}");
        // One that is created again is another.
        let (_, fourth, _) = send(call(&create.0, create.1).json(&one)).await?;
        assert!(fourth.is_some_and(|fourth| fourth != first && fourth != third), "{path}");
    }
    // A call that would not check it refuses the header.
    let task = tasks::create(cluster.client(), tasks::task("missing")).await?;
    let cancel = http.post(format!("http://{}/api/v1/{}:cancel", cluster.addr(), task.name));
    let (status, _, reason) = send(cancel.header("if-match", "*")).await?;
    assert_eq!((status, reason.as_str()), (StatusCode::BAD_REQUEST, "REQUEST_INVALID"));
    Ok(())
}

#[tokio::test]
async fn one_of_concurrent_changes_wins() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    tasks::agent(client, "e", tasks::script([]), &[]).await?;
    let read =
        client.get_agent(v1::GetAgentRequest { name: "namespaces/default/agents/e".to_owned() }).await?;
    let change = |number: usize| {
        let mut agent = read.clone();
        agent.spec.get_or_insert_default().description = number.to_string();
        let request =
            v1::UpdateAgentRequest { agent: Some(agent), etag: read.etag.clone(), ..Default::default() };
        client.update_agent(request)
    };
    let answers = futures::future::join_all((0..8).map(change)).await;
    let won = answers.iter().filter(|answer| answer.is_ok()).count();
    let lost = answers.iter().filter_map(|answer| answer.as_ref().err());
    assert_eq!(won, 1);
    assert!(lost.map(|error: &Error| error.reason.as_deref()).all(|reason| reason == Some("ETAG_MISMATCH")));
    Ok(())
}

#[tokio::test]
async fn changes_of_tasks_depend_on_what_was_read() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    let name = tasks::create(client, tasks::task("missing")).await?.name;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://{}/api/v1/{name}", cluster.addr());
    let read = || http.get(&url);
    let change = |field: &str, value: Value| {
        http.patch(format!("{url}?updateMask={field}")).json(&json!({ field: value }))
    };
    let first = send(read()).await?.1.context("no etag")?;
    let (status, second, _) = send(change("priority", json!(8)).header("if-match", &first)).await?;
    let second = second.context("no etag")?;
    assert!(status == StatusCode::OK && second != first, "{status}");
    for late in [change("priority", json!(2)), change("labels", json!({ "a": "b" }))] {
        let (status, _, reason) = send(late.header("if-match", &first)).await?;
        assert_eq!((status, reason.as_str()), (StatusCode::PRECONDITION_FAILED, "ETAG_MISMATCH"));
    }
    assert_eq!(tasks::get(client, &name).await?.priority, Some(8));
    assert_eq!(send(change("priority", json!(3)).header("if-match", "*")).await?.0, StatusCode::OK);
    // Its state is not part of it: who waits for the end reads all of it each time.
    let etag = send(read()).await?.1.context("no etag")?;
    assert_eq!(send(read().header("if-none-match", &etag)).await?.0, StatusCode::OK);

    // Of concurrent changes one wins, also if all were checked before the first was committed.
    let etag = tasks::get(client, &name).await?.etag;
    let change = |priority: i32| {
        client.update_task(v1::UpdateTaskRequest {
            task: Some(v1::Task { name: name.clone(), priority: Some(priority), ..Default::default() }),
            update_mask: Some(pbjson_types::FieldMask { paths: vec!["priority".to_owned()] }),
            etag: etag.clone(),
            ..Default::default()
        })
    };
    let answers = futures::future::join_all((4..10).map(change)).await;
    let reasons = answers.iter().filter_map(|answer| answer.as_ref().err());
    let reasons: Vec<_> = reasons.map(|error: &Error| error.reason.as_deref()).collect();
    assert_eq!(reasons, [Some("ETAG_MISMATCH"); 5]);
    Ok(())
}

#[tokio::test]
async fn changes_of_budgets_depend_on_what_was_read() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    let set = async |daily_micro_usd: i64, etag: &str| {
        let budget = Some(v1::Budget { daily_micro_usd, ..Default::default() });
        let name = "namespaces/default".to_owned();
        let request = v1::SetNamespaceBudgetRequest { name, budget, etag: etag.to_owned() };
        client.set_namespace_budget(request).await.map(|set| set.status.unwrap_or_default().etag)
    };
    let first = set(1000, "").await?;
    tasks::eventually("the budget is listed", async || {
        let all = v1::ListBudgetsRequest { parent: "namespaces/-".to_owned(), ..Default::default() };
        let listed = client.list_budgets(all).await?;
        Ok(listed.budgets.iter().any(|budget| budget.etag == first))
    })
    .await?;
    let second = set(2000, &first).await?;
    for late in [set(3000, &first).await, set(3000, "something else").await] {
        assert_eq!(late.unwrap_err().reason.as_deref(), Some("ETAG_MISMATCH"));
    }
    set(2000, "*").await?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let put = |daily: i64| {
        let url = format!("http://{}/api/v1/namespaces/default/budget", cluster.addr());
        http.put(url).json(&json!({ "dailyMicroUsd": daily.to_string() }))
    };
    let quoted = format!("\"{second}\"");
    assert_eq!(send(put(4000).header("if-match", &quoted)).await?.0, StatusCode::OK);
    let (status, _, reason) = send(put(5000).header("if-match", &quoted)).await?;
    assert_eq!((status, reason.as_str()), (StatusCode::PRECONDITION_FAILED, "ETAG_MISMATCH"));
    Ok(())
}
