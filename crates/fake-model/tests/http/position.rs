//! Position in a script: derived from the messages alone, so that any server can continue it.

use serde_json::{Value, json};

use crate::support::{Model, assistant, script, tool_result, user};

fn steps() -> Value {
    script(&json!([{"text": "one"}, {"text": "two"}, {"text": "three"}]))
}

#[tokio::test]
async fn turns_since_script_select_the_step() {
    let model = Model::start().await;
    let mut messages = vec![user("before"), assistant("earlier"), steps()];
    for expected in ["one", "two", "three"] {
        assert_eq!(model.text(json!(messages)).await, expected);
        messages.extend([assistant(expected), tool_result("x")]);
    }
    assert_eq!(model.text(json!(messages)).await, "The script is over.");
    messages.push(user("And now?"));
    assert_eq!(model.text(json!(messages)).await, "Prompt: And now? (8 characters, 1 lines)");
    let seen: Vec<_> = model.handle.requests().iter().map(|request| (request.turns, request.step)).collect();
    assert_eq!(seen, [(1, Some(0)), (2, Some(1)), (3, Some(2)), (4, None), (4, None)]);
}

#[tokio::test]
async fn another_server_continues_the_script() {
    let (first, second) = (Model::start().await, Model::start().await);
    assert_eq!(first.text(json!([steps()])).await, "one");
    first.handle.shutdown().await;
    let resumed =
        json!([steps(), assistant("one"), assistant("No response requested."), user("please go on")]);
    assert_eq!(second.text(resumed).await, "two");
}

#[tokio::test]
async fn interrupted_answer_is_repeated() {
    let model = Model::start().await;
    let nudge = user("Your response above was cut off mid-stream. Resume directly from where it stops.");
    assert_eq!(model.text(json!([steps(), assistant("o"), nudge])).await, "one");
    assert_eq!(
        model.text(json!([steps(), assistant("o"), nudge, assistant("one"), user("on")])).await,
        "two"
    );
}

#[tokio::test]
async fn last_script_wins_even_in_system_entries() {
    let model = Model::start().await;
    let system = json!({"role": "system", "content": "the environment"});
    assert_eq!(model.text(json!([system, steps(), system])).await, "one");
    let folded = json!({"role": "system", "content": [{"type": "text", "text": "a new message: MOCK[{\"text\":\"new\"}]"}]});
    assert_eq!(model.text(json!([steps(), assistant("one"), folded])).await, "new");
}

#[tokio::test]
async fn quoted_scripts_are_ignored() {
    let model = Model::start().await;
    let reminder =
        json!({"type": "text", "text": "<system-reminder>notes about MOCK[ scripts</system-reminder>"});
    let prompt = json!({"role": "user", "content": [reminder, {"type": "text", "text": "Hi"}]});
    assert_eq!(model.text(json!([prompt])).await, "Prompt: Hi (2 characters, 1 lines)");
    let quoted =
        [steps(), assistant("MOCK[{\"text\":\"mine\"}]"), tool_result("MOCK[{\"text\":\"output\"}]")];
    assert_eq!(model.text(json!(quoted)).await, "two");
}
