//! The server: other paths, records, bounds, start and shutdown.

use std::net::{Ipv4Addr, SocketAddr};

use rota_fake_model::{Auth, Error, Options, Outcome, Route};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Model, TEST_TIMEOUT, script, user};

#[tokio::test]
async fn other_paths_of_the_cli_are_answered() {
    let model = Model::start().await;
    assert_eq!(model.head("/api/hello").send().await.unwrap().status(), 200);
    let count = model.post("/v1/messages/count_tokens?beta=true").json(&json!({"messages": [user("hello")]}));
    let count: Value = count.send().await.unwrap().json().await.unwrap();
    assert!(count["input_tokens"].as_u64().unwrap() > 0);
    assert_eq!(
        model.get("/v1/models").send().await.unwrap().json::<Value>().await.unwrap()["data"],
        json!([])
    );
    let unknown = model.get("/v1/nothing").send().await.unwrap();
    assert_eq!(unknown.status(), 404);
    assert_eq!(unknown.json::<Value>().await.unwrap()["error"]["type"], "not_found_error");
    let routes: Vec<_> = model.handle.requests().iter().map(|request| request.route).collect();
    assert_eq!(routes, [Route::Hello, Route::CountTokens, Route::Models, Route::Other]);
}

#[tokio::test]
async fn records_contain_no_secret() {
    let model = Model::start().await;
    let (key, word) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let body = json!({"model": "m", "stream": true, "tools": [{"name": "Bash"}], "messages": [user(&format!("secret {word}"))]});
    let request =
        model.post("/v1/messages").header("x-api-key", &key).bearer_auth(&key).header("traceparent", trace);
    request.json(&body).send().await.unwrap().text().await.unwrap();

    let seen = &model.handle.requests()[0];
    assert_eq!((seen.number, seen.status, seen.outcome, seen.auth), (1, 200, Outcome::Answered, Auth::Both));
    assert_eq!((seen.model.as_str(), seen.stream, seen.messages, seen.tools), ("m", true, 1, 1));
    assert_eq!(seen.header("traceparent"), Some(trace));
    let debug = model.get("/debug/requests").send().await.unwrap().text().await.unwrap();
    assert!(debug.contains(trace) && !debug.contains(&key) && !debug.contains(&word), "{debug}");
    let debug: Value = serde_json::from_str(&debug).unwrap();
    assert_eq!(debug["counts"]["by_status"]["200"], 1);
    assert_eq!(debug["requests"][0]["outcome"], "answered");
}

#[tokio::test]
async fn records_and_answers_are_bounded() {
    let model =
        Model::with(Options { max_records: 2, max_active: 1, max_body: 1000, ..Options::default() }).await;
    let hang = json!([script(&json!([{"fail": {"hang_after": 0}}]))]);
    let held = model.send(true, hang).await;
    assert_eq!(model.send(true, json!([user("hi")])).await.status(), 529, "one too many");
    drop(held);
    model.handle.until(|counts| counts.active == 0).await;
    assert_eq!(model.send(true, json!([user("hi")])).await.status(), 200);
    assert_eq!(model.send(true, json!([user(&"x".repeat(1000))])).await.status(), 413);
    let numbers: Vec<_> = model.handle.requests().iter().map(|request| request.number).collect();
    assert_eq!(numbers, [3, 4]);
}

#[tokio::test]
async fn invalid_requests_are_rejected() {
    let model = Model::start().await;
    for body in ["", "{}", "{\"messages\":[]}", "{\"messages\":[{\"role\":\"robot\",\"content\":\"\"}]}"] {
        assert_eq!(model.post("/v1/messages").body(body).send().await.unwrap().status(), 400, "{body}");
    }
}

#[tokio::test]
async fn remote_addresses_are_rejected_by_default() {
    let addr = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let refused = Options { addr, ..Options::default() }.bind().await;
    assert!(matches!(refused, Err(Error::NotLoopback(_))));
    let taken = Model::start().await.handle.addr();
    assert!(matches!(Options { addr: taken, ..Options::default() }.bind().await, Err(Error::Bind { .. })));
}

#[tokio::test]
async fn shutdown_ends_active_answers() {
    let model = Model::start().await;
    let late = json!([script(&json!([{"text": "late", "delay_ms": 3_600_000}]))]);
    let stop = async {
        model.handle.until(|counts| counts.messages == 1).await;
        model.handle.shutdown().await;
    };
    let (sent, ()) = tokio::join!(model.send(true, late), stop);
    assert!(sent.text().await.is_ok());
    let handle = Options::default().bind().await.unwrap().handle();
    tokio::time::timeout(TEST_TIMEOUT, handle.shutdown())
        .await
        .expect("a server that never ran has ended too");
}
