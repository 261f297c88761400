//! A running server, a client, and short ways to ask and to read streams. Knows nothing of single tests.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response};
use rota_fake_model::{Handle, Options};
use serde_json::{Value, json};

/// No test may take longer, whatever hangs.
pub(crate) const AT_MOST: Duration = Duration::from_secs(20);

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
        let client = Client::builder().no_proxy().timeout(AT_MOST).build().unwrap();
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

    /// Sends a conversation.
    pub(crate) async fn send(&self, stream: bool, messages: Value) -> Response {
        let body = json!({"model": "some-model", "max_tokens": 100, "stream": stream, "messages": messages});
        self.post("/v1/messages").json(&body).send().await.unwrap()
    }

    /// The answer to a conversation, as a whole message.
    pub(crate) async fn answer(&self, messages: Value) -> Value {
        let response = self.send(false, messages).await;
        assert_eq!(response.status(), 200);
        response.json().await.unwrap()
    }

    /// The text of the answer to a conversation.
    pub(crate) async fn text(&self, messages: Value) -> String {
        self.answer(messages).await["content"][0]["text"].as_str().unwrap().to_owned()
    }
}

/// A user's message that holds a script.
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

/// The events of a stream that is well formed.
pub(crate) fn events(stream: &str) -> Vec<Value> {
    let event = |frame: &str| {
        let (name, data) = frame.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
        data
    };
    stream.split_terminator("\n\n").map(event).collect()
}

/// All text that the deltas of a stream hold, under one name.
pub(crate) fn joined(events: &[Value], field: &str) -> String {
    events.iter().filter_map(|event| event["delta"][field].as_str()).collect()
}
