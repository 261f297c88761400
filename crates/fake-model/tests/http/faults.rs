//! Faults of answers: their kinds, how often they happen, and the answer that follows.

use rota_fake_model::Refusal;
use serde_json::{Value, json};

use crate::support::{Model, events, joined, script};

/// Requests the same step repeatedly and returns the statuses.
async fn statuses(model: &Model, steps: &Value, tries: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..tries {
        statuses.push(model.send(true, json!([script(steps)])).await.status().as_u16());
    }
    statuses
}

#[tokio::test]
async fn faults_happen_as_often_as_scripted() {
    let model = Model::start().await;
    let steps =
        json!([{"fail": [{"status": 429, "times": 2}, {"status": 529}, {"status": 500}], "text": "ok"}]);
    assert_eq!(statuses(&model, &steps, 6).await, [429, 429, 529, 500, 200, 200]);
    let steps = json!([{"fail": {"status": 403, "times": "always"}}]);
    assert_eq!(statuses(&model, &steps, 3).await, [403; 3]);
    let counts = model.handle.counts();
    assert_eq!((counts.requests, counts.by_status[&429], counts.by_status[&403]), (9, 2, 3));
    let attempts: Vec<_> = model.handle.requests().iter().map(|request| request.attempt).collect();
    assert_eq!(attempts, [0, 1, 2, 3, 4, 5, 0, 1, 2]);
}

#[tokio::test]
async fn refused_keys_get_no_answer() {
    let model = Model::start().await;
    let body = json!({"messages": [script(&json!([{"text": "ok"}]))]});
    let status = async |header: &str, value: &str| {
        let response = model.post("/v1/messages").header(header, value).json(&body).send().await.unwrap();
        (response.status().as_u16(), response.headers().get("x-should-retry").is_some())
    };
    model.handle.refuse(Some(Refusal { status: 401, except: Some("good".to_owned()) }));
    assert_eq!(status("x-api-key", "bad").await, (401, true));
    assert_eq!(status("x-api-key", "good").await, (200, false));
    assert_eq!(status("authorization", "Bearer good").await, (200, false));
    model.handle.refuse(Some(Refusal { status: 429, except: None }));
    assert_eq!(status("x-api-key", "good").await, (429, true));
    model.handle.refuse(None);
    assert_eq!(status("x-api-key", "bad").await, (200, false));
}

#[tokio::test]
async fn faults_are_counted_per_session() {
    let model = Model::start().await;
    let body = json!({"messages": [script(&json!([{"fail": {"status": 500}, "text": "ok"}]))]});
    for (session, status) in [("a", 500), ("b", 500), ("a", 200), ("b", 200)] {
        let request = model.post("/v1/messages").header("x-claude-code-session-id", session).json(&body);
        assert_eq!(request.send().await.unwrap().status(), status);
    }
}

#[tokio::test]
async fn errors_have_the_format_of_the_api() {
    let model = Model::start().await;
    for (status, kind) in [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (529, "overloaded_error"),
    ] {
        let fault = json!({"status": status, "retry_after": 7, "should_retry": false, "message": "because"});
        let response = model.send(true, json!([script(&json!([{"fail": fault}]))])).await;
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["retry-after"], "7");
        assert_eq!(response.headers()["x-should-retry"], "false");
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"], json!({"type": kind, "message": "because"}));
    }
}

#[tokio::test]
async fn connection_is_cut_during_the_stream() {
    let model = Model::start().await;
    for (after, text) in [(0, ""), (4, "abcd"), (100, "abcdefgh")] {
        let steps =
            json!([{"fail": {"drop_after": after}, "text": "abcdefgh", "slow": {"every_ms": 0, "chars": 4}}]);
        let mut response = model.send(true, json!([script(&steps)])).await;
        let mut seen = Vec::new();
        let cut = loop {
            match response.chunk().await {
                Ok(Some(bytes)) => seen.extend(bytes),
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        assert!(cut, "a cut is not a proper end");
        assert_eq!(joined(&events(&String::from_utf8(seen).unwrap()), "text"), text);
    }
    assert!(
        model.send(false, json!([script(&json!([{"fail": {"drop_after": 0}}]))])).await.text().await.is_err()
    );
}

#[tokio::test]
async fn hang_lasts_until_either_side_closes() {
    let model = Model::start().await;
    let hang = json!([script(&json!([{"fail": {"hang_after": 1, "times": "always"}, "text": "a"}]))]);
    let mut response = model.send(true, hang.clone()).await;
    assert!(response.chunk().await.unwrap().is_some(), "one event comes");
    assert_eq!(model.handle.counts().active, 1);
    drop(response);
    model.handle.until(|counts| counts.active == 0).await;

    let mut response = model.send(true, hang).await;
    assert!(response.chunk().await.unwrap().is_some());
    let (_, rest) = tokio::join!(model.handle.shutdown(), response.chunk());
    assert!(rest.is_err(), "shutdown cuts the connection");
}

#[tokio::test]
async fn stream_ends_with_error_event() {
    let model = Model::start().await;
    let steps = json!([{"fail": {"stream_error": "overloaded_error"}, "text": "a"}]);
    let events = events(&model.send(true, json!([script(&steps)])).await.text().await.unwrap());
    assert_eq!(events[0]["type"], "message_start");
    assert_eq!(events[1]["error"]["type"], "overloaded_error");
    assert_eq!(events.len(), 2);
}

#[tokio::test]
async fn malformed_answers_violate_the_format() {
    let model = Model::start().await;
    for (how, holds, lacks) in [
        ("json", "data: {\"type\":\"content_block_st\n", "\"ping\""),
        ("order", "stray", "content_block_start"),
        ("truncated", "content_block_stop", "message_stop"),
        ("empty", "", "event"),
        ("html", "<html>", "event"),
    ] {
        let ask = json!([script(&json!([{"fail": {"malformed": how, "times": 2}, "text": "fine"}]))]);
        let text = model.send(true, ask.clone()).await.text().await.unwrap();
        assert!(text.contains(holds) && !text.contains(lacks), "{how}: {text}");
        let whole = model.send(false, ask.clone()).await.text().await.unwrap();
        assert!(
            serde_json::from_str::<Value>(&whole).map_or(true, |json| json["content"].is_null()),
            "{how}: {whole}"
        );
        assert_eq!(model.text(ask).await, "fine");
    }
}

#[tokio::test]
async fn invalid_script_is_reported() {
    let model = Model::start().await;
    let response = model.send(true, json!([script(&json!([{"text": "a", "shout": true}]))])).await;
    assert_eq!(response.status(), 400);
    assert_eq!(response.headers()["x-should-retry"], "false");
    let body: Value = response.json().await.unwrap();
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("unknown field `shout`"), "{message}");
}
