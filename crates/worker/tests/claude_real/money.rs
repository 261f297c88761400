//! What the real CLI reports of its cost, while it runs and at the end, and what our own prices make of it.

use std::time::Duration;

use rota_proto::v1::{Usage, event};
use rota_worker::{Prices, Tokens};
use serde_json::{Value, json};

use super::case::{Case, succeeded};
use super::long_tool;

fn step(input: u64, output: u64, read: u64, write: u64) -> Value {
    json!({"usage": {"input_tokens": input, "output_tokens": output, "cache_read_input_tokens": read,
        "cache_creation_input_tokens": write}})
}

fn with(mut step: Value, more: &Value) -> Value {
    step.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    step
}

fn usage(event: &event::Kind) -> Option<Usage> {
    match event {
        event::Kind::Usage(usage) => Some(usage.clone()),
        _ => None,
    }
}

/// Cost of the step in [`killed_cli_has_reported_its_cost`], of Opus 5.5.
const COST: i64 = 4_000 + 10_000 + 400 + 1_500;

#[tokio::test]
async fn killed_cli_has_reported_its_cost() {
    let mut case = Case::new().await;
    case.claude.model = "claude-opus-5-5".to_owned();
    case.claude.allowed_tools = vec!["Bash".to_owned()];
    let script = json!([with(step(1000, 500, 2000, 300), &long_tool()), {"text": "done"}]);
    let mut run = case.start(&script);
    let live = run.until(usage).await;
    assert_eq!((live.cost_micro_usd, live.output_tokens, live.partial), (COST, 500, true), "{live:?}");
    let tools = case.processes();
    assert!(!tools.is_empty());
    run.stop(Duration::ZERO);
    let (report, _) = case.end(run).await;
    assert_eq!(report.usage.unwrap().cost_micro_usd, COST);
}

#[tokio::test]
async fn resumed_conversation_counts_only_its_own_cost() {
    let mut case = Case::new().await;
    case.claude.model = "claude-opus-5-5".to_owned();
    let script = json!([with(step(1000, 500, 2000, 300), &json!({"text": "one"}))]);
    let (first, seen) = case.run(&script).await;
    assert_eq!(first.usage.as_ref().unwrap().cost_micro_usd, COST);
    case.resume.clone_from(&first.runtime_session);
    succeeded(first, &seen);
    case.attempt = 2;
    let script = json!([with(step(1000, 500, 2000, 300), &json!({"text": "two"}))]);
    let (second, seen) = case.run(&script).await;
    for usage in seen.iter().filter_map(usage) {
        assert!(usage.cost_micro_usd <= COST, "{usage:?}");
    }
    assert_eq!(second.usage.unwrap().cost_micro_usd, COST);
}

#[tokio::test]
async fn books_of_the_cli_and_ours_agree() {
    let prices = Prices::default();
    for model in [
        "claude-opus-5-5",
        "claude-opus-5",
        "claude-opus-4-6",
        "claude-sonnet-5-5",
        "claude-sonnet-4-6",
        "claude-haiku-5-5",
        "claude-haiku-4-5",
    ] {
        let mut case = Case::new().await;
        case.claude.model = model.to_owned();
        let (report, seen) =
            case.run(&json!([with(step(1000, 500, 2000, 300), &json!({"text": "done"}))])).await;
        let usage = report.usage.clone().unwrap();
        succeeded(report, &seen);
        let tokens = Tokens {
            input: usage.input_tokens as f64,
            output: usage.output_tokens as f64,
            cache_read: usage.cache_read_tokens as f64,
            cache_write_5m: usage.cache_write_tokens as f64,
            cache_write_1h: 0.0,
        };
        let ours = prices.cost_usd(model, &tokens) * 1e6;
        assert!((ours - usage.cost_micro_usd as f64).abs() <= 1.0, "{model}: {ours} and {usage:?}");
    }
}

#[tokio::test]
async fn unknown_model_is_noticed() {
    let mut case = Case::new().await;
    case.claude.model = "someones-own-model".to_owned();
    let (report, seen) = case.run(&json!([{"text": "done"}])).await;
    succeeded(report, &seen);
    assert!(super::codes(&seen).contains(&"model_without_price"), "{seen:#?}");
}
