//! Table of run endings and their classification.

use std::path::Path;

use serde_json::json;

use super::*;
use crate::runtimes::claude::lines::Line;

const OK: Exit = Exit { code: Some(0), signal: None, orphans: 0 };
const BAD: Exit = Exit { code: Some(1), signal: None, orphans: 0 };

/// Unix time of the classification.
const NOW: f64 = 1_763_850_000.0;

fn exit(code: Option<i32>, signal: Option<i32>) -> Exit {
    Exit { code, signal, orphans: 0 }
}

fn record(lines: &[Value]) -> Record {
    let mut record = Record::new(Path::new("/w"));
    for line in lines {
        record.lines += 1;
        match serde_json::from_value(line.clone()) {
            Ok(Line::System(line)) => drop(record.system(line)),
            Ok(Line::Assistant(line)) => drop(record.assistant(&line)),
            Ok(Line::Result(line)) => drop(record.result(*line)),
            Ok(Line::RateLimitEvent { rate_limit_info }) => drop(record.rate_limit(&rate_limit_info)),
            Ok(_) => {}
            Err(_) => record.unreadable += 1,
        }
    }
    record
}

fn evidence<'a>(record: &'a Record, exit: Exit, stderr: &'a str, schema: bool) -> Evidence<'a> {
    Evidence { record, exit, stderr, schema, fail_on_denied: false, provider: Provider::Anthropic, now: NOW }
}

fn classified(lines: &[Value], exit: Exit, stderr: &str, schema: bool) -> Result<TaskResult, Failure> {
    classify(&evidence(&record(lines), exit, stderr, schema))
}

/// Lines that the CLI prints when a model call finally fails.
fn api(status: Value, code: &str, text: &str) -> Vec<Value> {
    vec![
        json!({"type": "assistant", "message": {"model": "<synthetic>", "role": "assistant", "content": [{"type": "text", "text": text}]},
            "parent_tool_use_id": null, "error": code, "is_api_error_message": true, "api_error_status": status}),
        json!({"type": "result", "subtype": "success", "is_error": true, "num_turns": 1, "stop_reason": "stop_sequence",
            "terminal_reason": "api_error", "api_error_status": status, "result": text, "total_cost_usd": 0, "modelUsage": {}}),
    ]
}

fn error(subtype: &str, terminal: &str, errors: &[&str]) -> Vec<Value> {
    vec![
        json!({"type": "result", "subtype": subtype, "is_error": true, "num_turns": 2, "terminal_reason": terminal, "errors": errors}),
    ]
}

#[test]
fn failures_map_to_classes() {
    use FailureClass as Class;
    use Severity::{Critical, High, Low, Medium};
    let init = json!({"type": "system", "subtype": "init", "session_id": "s"});
    let refusal = json!({"type": "system", "subtype": "model_refusal_no_fallback", "message": "no"});
    let with = |first: &Value, rest: Vec<Value>| [vec![first.clone()], rest].concat();
    let mut startup = error(
        "error_during_execution",
        "",
        &["--dangerously-skip-permissions cannot be used with root/sudo"],
    );
    startup[0]["startup_failure_reason"] = json!("bypass_root");
    let mut other_startup = error("error_during_execution", "", &["something"]);
    other_startup[0]["startup_failure_reason"] = json!("other");
    let mut connection = api(Value::Null, "server_error", "API Error: Connection refused (ECONNREFUSED)");
    connection[1]["api_error"] = json!("connection_failed");
    let mut long = api(json!(400), "invalid_request", "Prompt is too long");
    long[1]["terminal_reason"] = json!("prompt_too_long");

    let table = [
        (
            "no key",
            api(Value::Null, "authentication_failed", "Not logged in · Please run /login"),
            BAD,
            "",
            Class::Auth,
            Critical,
        ),
        ("401", api(json!(401), "authentication_failed", "Invalid API key"), BAD, "", Class::Auth, Critical),
        (
            "403",
            api(json!(403), "authentication_failed", "API Error: 403 no"),
            BAD,
            "",
            Class::Auth,
            Critical,
        ),
        (
            "no credit",
            api(json!(400), "billing_error", "Credit balance is too low"),
            BAD,
            "",
            Class::Auth,
            Critical,
        ),
        (
            "429",
            api(json!(429), "rate_limit", "API Error: Request rejected (429)"),
            BAD,
            "",
            Class::RateLimit,
            Low,
        ),
        (
            "529",
            api(json!(529), "server_error", "API Error: Repeated 529 Overloaded errors"),
            BAD,
            "",
            Class::Overload,
            Low,
        ),
        ("500", api(json!(500), "server_error", "API Error: 500 boom"), BAD, "", Class::Overload, Low),
        ("408", api(json!(408), "unknown", "API Error: 408"), BAD, "", Class::Overload, Low),
        ("connection", connection, BAD, "", Class::Overload, Low),
        ("400", api(json!(400), "unknown", "API Error: 400 bad thing"), BAD, "", Class::Invalid, High),
        ("413", api(json!(413), "invalid_request", "Request too large"), BAD, "", Class::Invalid, High),
        (
            "404",
            api(json!(404), "model_not_found", "There's an issue with the selected model"),
            BAD,
            "",
            Class::Invalid,
            High,
        ),
        ("too long", long, BAD, "", Class::Invalid, High),
        (
            "refusal",
            with(&refusal, api(Value::Null, "unknown", "API Error: refused")),
            BAD,
            "",
            Class::Refusal,
            High,
        ),
        (
            "turns",
            error("error_max_turns", "max_turns", &["Reached maximum number of turns (1)"]),
            BAD,
            "",
            Class::Budget,
            High,
        ),
        ("money", error("error_max_budget_usd", "budget_exhausted", &[]), BAD, "", Class::Budget, High),
        ("root", startup, BAD, "", Class::Invalid, High),
        ("startup", other_startup, BAD, "", Class::Start, High),
        (
            "interrupted by others",
            error("error_during_execution", "aborted_tools", &[]),
            BAD,
            "",
            Class::Crash,
            Medium,
        ),
        ("agent", error("error_during_execution", "", &["it broke"]), BAD, "", Class::Agent, Medium),
        (
            "schema retries",
            error("error_max_structured_output_retries", "", &["x"]),
            BAD,
            "",
            Class::Agent,
            Medium,
        ),
        ("bad flag", vec![], BAD, "error: unknown option '--nonsense'", Class::Start, High),
        ("bad mcp", vec![], BAD, "Error: Invalid MCP configuration:\nx", Class::Invalid, High),
        (
            "bad input line",
            vec![init.clone()],
            BAD,
            "Error parsing streaming input line: x",
            Class::Protocol,
            Medium,
        ),
        ("nothing at all", vec![], OK, "", Class::Start, High),
        ("no result", vec![init.clone()], OK, "", Class::Protocol, Medium),
        ("no result, bad exit", vec![init.clone()], BAD, "", Class::Crash, Medium),
        ("garbage", vec![init.clone(), json!(3)], OK, "", Class::Protocol, Medium),
        ("SIGKILL", vec![init.clone()], exit(None, Some(9)), "", Class::Crash, Medium),
        ("SIGTERM", vec![init], exit(Some(143), None), "", Class::Crash, Medium),
    ];
    for (name, lines, exit, stderr, class, severity) in table {
        let failure = classified(&lines, exit, stderr, false).unwrap_err();
        assert_eq!(failure.class(), class, "{name}: {failure:?}");
        assert_eq!(failure.severity(), severity, "{name}: {failure:?}");
        assert!(!failure.message.is_empty(), "{name}");
        if class == Class::Auth {
            assert!(!failure.hint.is_empty(), "{name}");
        }
    }
}

#[test]
fn success_needs_subtype_and_no_error() {
    let line = json!({"type": "result", "subtype": "success", "is_error": false, "result": "done here"});
    assert_eq!(classified(&[line], OK, "", false).unwrap().text, "done here");
    let last = json!({"type": "result", "subtype": "success", "is_error": false, "result": "second"});
    let first = error("error_max_turns", "max_turns", &[]).remove(0);
    assert_eq!(
        classified(&[first, last], BAD, "", false).unwrap().text,
        "second",
        "the last result line counts"
    );
}

#[test]
fn schema_requires_structured_output() {
    let mut line = json!({"type": "result", "subtype": "success", "is_error": false, "result": ""});
    assert_eq!(classified(&[line.clone()], OK, "", true).unwrap_err().class(), FailureClass::Agent);
    line["structured_output"] = json!({"n": 3});
    let result = classified(&[line], OK, "", true).unwrap();
    assert_eq!(result.text, r#"{"n":3}"#);
    assert_eq!(structs::to_json(&result.data.unwrap()), json!({"n": 3}));
}

#[test]
fn rate_limit_carries_retry_delay() {
    let retry = |status: u16| json!({"type": "system", "subtype": "api_retry", "attempt": 1, "max_retries": 1, "retry_delay_ms": 62_000, "error_status": status, "error": "rate_limit"});
    let lines = [vec![retry(429)], api(json!(429), "rate_limit", "slow down")].concat();
    let failure = classified(&lines, BAD, "", false).unwrap_err();
    assert_eq!((failure.retry_after.unwrap().seconds, failure.limit), (62, None));
    let lines = [vec![retry(529)], api(json!(429), "rate_limit", "slow down")].concat();
    assert_eq!(classified(&lines, BAD, "", false).unwrap_err().retry_after, None);
}

#[test]
fn rate_limit_waits_until_reset() {
    let limit = |status: &str| json!({"type": "rate_limit_event", "rate_limit_info": {"status": status, "resetsAt": NOW as u64 + 7200, "rateLimitType": "five_hour"}});
    let limited = |first: Vec<Value>, text: &str| {
        let lines = [first, api(json!(429), "rate_limit", text)].concat();
        let failure = classified(&lines, BAD, "", false).unwrap_err();
        let limit = failure.limit.map(|limit| *limit).unwrap_or_default();
        assert_eq!(limit.resets, failure.retry_after.is_some());
        let named = if lines.len() > 2 && limit.resets && text.contains("5-hour") { "five_hour" } else { "" };
        assert_eq!(limit.name, named);
        failure.retry_after.map(|delay| delay.seconds)
    };
    assert_eq!(limited(vec![limit("rejected")], "You've hit your 5-hour limit"), Some(7200));
    assert_eq!(limited(vec![limit("rejected"), limit("allowed")], "slow down"), None, "lifted since");
    let text = json!({"type": "assistant", "message": {"content": [{"type": "text", "text": "hi"}]}, "parent_tool_use_id": null});
    assert_eq!(limited(vec![limit("rejected"), text], "slow down"), None, "a later call succeeded");
    assert_eq!(limited(vec![limit("allowed_warning")], "slow down"), None);
    assert_eq!(limited(vec![], "Claude AI usage limit reached|1763850060"), Some(60));
    assert_eq!(limited(vec![], "Claude AI usage limit reached|1763840000"), None, "it has passed");
}

#[test]
fn earlier_turns_and_calls_do_not_explain_a_failure() {
    let init = json!({"type": "system", "subtype": "init", "session_id": "s"});
    let retry = json!({"type": "system", "subtype": "api_retry", "attempt": 1, "max_retries": 1, "retry_delay_ms": 62_000, "error_status": 429, "error": "rate_limit"});
    let refusal = json!({"type": "system", "subtype": "model_refusal_no_fallback", "message": "no"});
    let text = json!({"type": "assistant", "message": {"content": [{"type": "text", "text": "hi"}]}, "parent_tool_use_id": null});
    // A model call of the first turn failed, or was refused; the second turn fails by itself.
    for first in [api(json!(429), "rate_limit", "slow down"), vec![refusal]] {
        let failed = error("error_during_execution", "other", &["a tool crashed"]);
        let lines = [vec![init.clone()], first, vec![init.clone()], failed].concat();
        assert_eq!(classified(&lines, BAD, "", false).unwrap_err().class(), FailureClass::Agent);
    }
    // The call that was retried has succeeded.
    let lines = [vec![init, retry, text], api(json!(429), "rate_limit", "slow down")].concat();
    assert_eq!(classified(&lines, BAD, "", false).unwrap_err().retry_after, None);
}

#[test]
fn missing_session_is_detected() {
    let lines = error("error_during_execution", "", &["No conversation found with session ID: x"]);
    assert!(is_session_lost(&record(&lines), ""));
    assert!(is_session_lost(&record(&[]), "No conversation found with session ID: x"));
    assert!(!is_session_lost(&record(&error("error_during_execution", "", &["other"])), ""));
}

#[test]
fn missing_program_hints_at_installation() {
    let source = std::io::Error::from_raw_os_error(nix::errno::Errno::ENOENT as i32);
    let failure = supervision_failure(&Error::Start { program: "claude".to_owned(), source });
    assert_eq!((failure.class(), failure.severity()), (FailureClass::Start, Severity::Critical));
    assert!(failure.hint.contains("npm install"));
    let source = std::io::Error::from_raw_os_error(nix::errno::Errno::E2BIG as i32);
    let failure = supervision_failure(&Error::Start { program: "claude".to_owned(), source });
    assert_eq!(failure.class(), FailureClass::Invalid, "no machine takes the arguments");
}

#[test]
fn denied_tools_fail_the_attempt_by_choice() {
    let denial = |id: &str, tool: &str| json!({"tool_name": tool, "tool_use_id": id});
    let by_rule =
        json!({"type": "system", "subtype": "permission_denied", "tool_name": "Bash", "tool_use_id": "t1"});
    let result = json!({"type": "result", "subtype": "success", "is_error": false, "result": "done",
        "permission_denials": [denial("t1", "Bash"), denial("t2", "Bash"), denial("t3", "Write")]});
    let record = record(&[by_rule, result]);
    let evidence = evidence(&record, OK, "", false);
    assert_eq!(classify(&evidence).unwrap().text, "done");
    let failed = classify(&Evidence { fail_on_denied: true, ..evidence }).unwrap_err();
    assert_eq!(failed.class(), FailureClass::Agent);
    assert!(failed.message.ends_with("denied: Bash (2), Write (1)"), "{failed:?}");
}

#[test]
fn rejected_credentials_are_named() {
    let record = record(&api(json!(403), "authentication_failed", "AWS authentication failed"));
    for (provider, name) in [
        (Provider::Anthropic, "CLAUDE_CODE_OAUTH_TOKEN"),
        (Provider::Bedrock, "AWS_BEARER_TOKEN_BEDROCK"),
        (Provider::Vertex, "GOOGLE_APPLICATION_CREDENTIALS"),
        (Provider::Foundry, "ANTHROPIC_FOUNDRY_API_KEY"),
    ] {
        let failed = classify(&Evidence { provider, ..evidence(&record, BAD, "", false) }).unwrap_err();
        assert!(failed.class() == FailureClass::Auth && failed.hint.contains(name), "{failed:?}");
    }
}
