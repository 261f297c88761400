//! Content of answers: text, thinking, tools, stop reason and usage, streamed and whole.

use serde_json::json;
use tokio::time::{Duration, Instant};

use crate::support::{Model, assistant, events, joined, script, tool_result, user};

#[tokio::test]
async fn stream_contains_the_step() {
    let model = Model::start().await;
    let step = json!([{
        "thinking": "hm", "text": "let me look: ä ö ü, and some more, so that it needs two pieces",
        "tools": [{"name": "Bash", "input": {"command": "ls"}}, {"name": "Read", "input": {}, "id": "toolu_mine"}],
    }]);
    let response = model.send(true, json!([script(&step)])).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    assert!(response.headers().contains_key("request-id"));
    let events = events(&response.text().await.unwrap());

    let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let block = |deltas| {
        [vec!["content_block_start"], vec!["content_block_delta"; deltas], vec!["content_block_stop"]]
            .concat()
    };
    let expected = [
        vec!["message_start", "ping"],
        block(2),
        block(2),
        block(1),
        block(1),
        vec!["message_delta", "message_stop"],
    ];
    assert_eq!(kinds, expected.concat());
    assert_eq!(events[0]["message"]["model"], "some-model");
    assert_eq!(events[0]["message"]["content"], json!([]));
    assert_eq!(joined(&events, "thinking"), "hm");
    assert_eq!(joined(&events, "text"), "let me look: ä ö ü, and some more, so that it needs two pieces");
    assert_eq!(joined(&events, "partial_json"), "{\"command\":\"ls\"}{}");
    assert!(events.iter().any(|event| event["content_block"]["id"] == "toolu_mine"));
    assert_eq!(events[events.len() - 2]["delta"]["stop_reason"], "tool_use");
}

#[tokio::test]
async fn whole_answer_contains_the_step() {
    let model = Model::start().await;
    let step =
        json!([{"text": "hello ", "repeat": 3, "tools": [{"name": "Bash", "input": {"command": "ls"}}]}]);
    let answer = model.answer(json!([script(&step)])).await;
    assert_eq!(answer["type"], "message");
    assert_eq!(answer["content"][0], json!({"type": "text", "text": "hello hello hello "}));
    assert_eq!(answer["content"][1]["input"], json!({"command": "ls"}));
    assert_eq!(answer["stop_reason"], "tool_use");
}

#[tokio::test]
async fn step_sets_stop_reason_and_usage() {
    let model = Model::start().await;
    for stop in ["refusal", "max_tokens", "pause_turn", "end_turn"] {
        let step = json!([{"text": "a", "stop": stop, "usage": {"input_tokens": 7, "output_tokens": 8, "cache_read_input_tokens": 9}}]);
        let answer = model.answer(json!([script(&step)])).await;
        assert_eq!(answer["stop_reason"], stop);
        let usage = json!({"input_tokens": 7, "output_tokens": 8, "cache_read_input_tokens": 9, "cache_creation_input_tokens": 0});
        assert_eq!(answer["usage"], usage);
        let streamed = events(&model.send(true, json!([script(&step)])).await.text().await.unwrap());
        assert_eq!(streamed[streamed.len() - 2]["usage"], usage);
        assert_eq!(streamed[streamed.len() - 2]["delta"]["stop_reason"], stop);
    }
}

#[tokio::test]
async fn answer_quotes_tool_result() {
    let model = Model::start().await;
    let steps = json!([{"tools": [{"name": "Bash"}]}, {"text": "it printed {{tool_result}}!"}]);
    let call = json!({"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "Bash", "input": {}}]});
    assert_eq!(model.text(json!([script(&steps), call, tool_result("42\n")])).await, "it printed 42!");
}

#[tokio::test]
async fn prompt_without_script_is_summarized() {
    let model = Model::start().await;
    let prompt = json!([user("Hello\nyou")]);
    assert_eq!(model.text(prompt.clone()).await, "Prompt: Hello (9 characters, 2 lines)");
    assert_eq!(model.text(prompt).await, "Prompt: Hello (9 characters, 2 lines)");
    assert_eq!(
        model.text(json!([user("a"), assistant("calls"), tool_result("b")])).await,
        "Tool result: b (1 characters, 1 lines)"
    );
}

#[tokio::test]
async fn slow_step_delays_the_answer() {
    let model = Model::start().await;
    let step = json!([{
        "text": "abcdef", "slow": {"every_ms": 30, "chars": 2}, "pause": {"after": 3, "ms": 40}, "delay_ms": 50,
    }]);
    for stream in [true, false] {
        let before = Instant::now();
        let mut response = model.send(stream, json!([script(&step)])).await;
        assert!(before.elapsed() >= Duration::from_millis(50), "delayed headers");
        assert_eq!(model.handle.counts().active, 1);
        while response.chunk().await.unwrap().is_some() {}
        assert!(before.elapsed() >= Duration::from_millis(50 + 3 * 30 + 40), "delayed body");
        model.handle.until(|counts| counts.active == 0).await;
    }
}
