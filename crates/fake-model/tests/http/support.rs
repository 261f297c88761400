//! Helpers: a running server with a client, and constructors of messages.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response};
use rota_fake_model::{Handle, Options};
use serde_json::{Value, json};

/// Limit for each request, exceeded only by a failure.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(90);

pub(crate) struct Model {
    pub(crate) handle: Handle,
    client: Client,
}

impl Model {
    pub(crate) async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let handle = options.start().await.unwrap();
        let client = Client::builder().no_proxy().timeout(TEST_TIMEOUT).build().unwrap();
        Self { handle, client }
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.handle.base_url()))
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.handle.base_url()))
    }

    pub(crate) fn head(&self, path: &str) -> RequestBuilder {
        self.client.head(format!("{}{path}", self.handle.base_url()))
    }

    /// Sends a conversation to the model.
    pub(crate) async fn send(&self, stream: bool, messages: Value) -> Response {
        let body = json!({"model": "some-model", "max_tokens": 100, "stream": stream, "messages": messages});
        self.post("/v1/messages").json(&body).send().await.unwrap()
    }

    /// Requests an answer without `stream`.
    pub(crate) async fn answer(&self, messages: Value) -> Value {
        let response = self.send(false, messages).await;
        assert_eq!(response.status(), 200);
        response.json().await.unwrap()
    }

    /// Requests an answer and returns its text.
    pub(crate) async fn text(&self, messages: Value) -> String {
        self.answer(messages).await["content"][0]["text"].as_str().unwrap().to_owned()
    }
}

/// User message with a script.
pub(crate) fn script(steps: &Value) -> Value {
    user(&format!("MOCK{steps}"))
}

pub(crate) fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

pub(crate) fn assistant(text: &str) -> Value {
    json!({"role": "assistant", "content": [{"type": "text", "text": text}]})
}

pub(crate) fn tool_result(text: &str) -> Value {
    json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": text}]}]})
}

/// Parses the events of a well-formed stream.
pub(crate) fn events(stream: &str) -> Vec<Value> {
    let event = |frame: &str| {
        let (name, data) = frame.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
        data
    };
    stream.split_terminator("\n\n").map(event).collect()
}

/// Joins the values of a field of all deltas.
pub(crate) fn joined(events: &[Value], field: &str) -> String {
    events.iter().filter_map(|event| event["delta"][field].as_str()).collect()
}
