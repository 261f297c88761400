//! The claude runtime with the real Claude Code CLI against the fake model: what the CLI does, and not
//! what it is thought to do. Fetches the CLI where it is not there yet; without it the tests fail.

#[path = "claude_real/case.rs"]
mod case;

use std::time::Duration;

use case::{CLI, Case, PATIENCE, answers, codes, command, succeeded};
use rota_proto::v1::{Decision, FailureClass, InputKind, Limits, PermissionPolicy};
use rota_worker::runtimes::Ending;
use rota_worker::runtimes::claude::version;
use serde_json::{Value, json};
use tokio::time::timeout;

fn bash(command: &str) -> Value {
    json!({"tools": [{"name": "Bash", "input": {"command": command, "description": "Try it"}}]})
}

/// A command that no rule allows; in the mode acceptEdits, `touch` would be allowed.
fn makes(file: &str) -> Value {
    bash(&format!("perl -e 'open(F, q(>{file}))'"))
}

/// Not `sleep`, which the CLI forbids.
fn long_tool() -> Value {
    bash("touch begun; setsid perl -e 'sleep 600' & perl -e 'sleep 600'")
}

#[tokio::test]
async fn tells_its_version() {
    assert_eq!(version(&CLI).await.unwrap(), "2.1.329");
}

#[tokio::test]
async fn success() {
    let case = Case::new().await;
    let (outcome, seen) = case.run(&json!([{"thinking": "hm", "text": "hello there"}])).await;
    assert_eq!(outcome.usage.as_ref().unwrap().turns, 1);
    assert!(outcome.usage.as_ref().unwrap().cost_micro_usd > 0, "{:?}", outcome.usage);
    assert!(!outcome.runtime_session.is_empty());
    let session = format!("{}.jsonl", outcome.runtime_session);
    let result = succeeded(outcome, &seen);
    assert_eq!(result.text, "hello there");
    assert_eq!(result.exit_code, Some(0));
    assert_eq!(codes(&seen), ["runtime_started"]);
    let projects = case.workspace().join(".rota/claude/projects");
    let projects: Vec<_> = std::fs::read_dir(projects).unwrap().flatten().collect();
    assert!(projects.iter().any(|project| project.path().join(&session).exists()), "the transcript stays");
    let counts = case.model.counts();
    assert_eq!(counts.requests, counts.messages, "it asks for nothing else");
}

#[tokio::test]
async fn tools_are_used() {
    let mut case = Case::new().await;
    case.claude.allowed_tools = vec!["Bash(touch *)".to_owned(), "Bash(echo *)".to_owned()];
    let file = case.workspace().join("made.txt");
    let script = json!([
        {"text": "First.", "tools": [{"name": "Bash", "input": {"command": "echo from-bash && touch x"}}]},
        {"tools": [{"name": "Write", "input": {"file_path": file, "content": "text"}}]},
        {"text": "all done"},
    ]);
    let (result, seen) = case.succeeds(&script).await;
    assert_eq!(result.text, "all done");
    assert_eq!(result.files, ["made.txt"]);
    assert!(answers(&seen)[0].contains("from-bash"), "{seen:#?}");
    assert!(case.workspace().join("x").exists() && file.exists());
}

#[tokio::test]
async fn a_tool_without_permission_is_denied() {
    let case = Case::new().await;
    let (result, seen) = case.succeeds(&json!([makes("denied"), {"text": "went on"}])).await;
    assert_eq!(result.text, "went on");
    assert!(codes(&seen).contains(&"permission_denied"), "{seen:#?}");
    assert!(!case.workspace().join("denied").exists());
}

#[tokio::test]
async fn a_person_is_asked_and_decides() {
    let mut case = Case::new().await;
    case.claude.permission_policy = PermissionPolicy::Ask.into();
    let script = json!([makes("yes"), makes("no"), {"text": "went on"}]);
    let mut run = case.start(&script);
    let first = run.asked().await;
    assert_eq!((first.kind(), first.tool.as_str()), (InputKind::Permission, "Bash"));
    assert!(first.input_json.contains("yes"));
    run.answer(&first.request_id, Decision::Allow, "").await;
    let second = run.asked().await;
    run.answer(&second.request_id, Decision::Deny, "rather not").await;
    let (outcome, seen) = case.end(run).await;
    assert_eq!(succeeded(outcome, &seen).text, "went on");
    assert!(case.workspace().join("yes").exists() && !case.workspace().join("no").exists());
    assert!(answers(&seen)[1].contains("rather not"), "{seen:#?}");
}

#[tokio::test]
async fn a_question_reaches_a_person() {
    let mut case = Case::new().await;
    case.claude.permission_policy = PermissionPolicy::Ask.into();
    let question = json!({"question": "Which colour?", "header": "Colour", "multiSelect": false, "options": [
        {"label": "red", "description": "warm"}, {"label": "blue", "description": "cold"}]});
    let script = json!([
        {"tools": [{"name": "AskUserQuestion", "input": {"questions": [question]}}]},
        {"text": "{{tool_result}}"},
    ]);
    let mut run = case.start(&script);
    let asked = run.asked().await;
    assert_eq!(asked.kind(), InputKind::Question);
    assert_eq!(
        (asked.prompt.as_str(), asked.choices.as_slice()),
        ("Which colour?", &["red", "blue"].map(str::to_owned)[..])
    );
    run.answer(&asked.request_id, Decision::Unspecified, "green, if it must be").await;
    let (outcome, seen) = case.end(run).await;
    assert!(succeeded(outcome, &seen).text.contains("green, if it must be"), "{seen:#?}");
}

#[tokio::test]
async fn everything_can_be_allowed() {
    let mut case = Case::new().await;
    case.claude.permission_policy = PermissionPolicy::Allow.into();
    case.succeeds(&json!([makes("allowed"), {"text": "done"}])).await;
    assert!(case.workspace().join("allowed").exists());
}

#[tokio::test]
async fn steering_reaches_the_running_agent() {
    let mut case = Case::new().await;
    case.claude.permission_policy = PermissionPolicy::Ask.into();
    // While it waits for a permission, it runs for certain.
    let mut run = case.start(&json!([makes("x"), {"text": "not steered"}]));
    let asked = run.asked().await;
    run.answer("", Decision::Unspecified, r#"MOCK[{"text":"steered"}]"#).await;
    run.answer(&asked.request_id, Decision::Allow, "").await;
    let (outcome, seen) = case.end(run).await;
    assert_eq!(succeeded(outcome, &seen).text, "steered");
}

#[tokio::test]
async fn a_rate_limit_passes() {
    let case = Case::new().await;
    let (result, seen) =
        case.succeeds(&json!([{"fail": {"status": 429, "retry_after": 1}, "text": "at last"}])).await;
    assert_eq!(result.text, "at last");
    assert!(codes(&seen).contains(&"api_retry"), "{seen:#?}");
}

#[tokio::test]
async fn model_failures_have_their_class() {
    for (fault, class) in [
        (json!({"status": 429, "retry_after": 600, "times": "always"}), FailureClass::RateLimit),
        (json!({"status": 529, "times": "always"}), FailureClass::Overload),
        (json!({"status": 500, "times": "always"}), FailureClass::Overload),
        (json!({"status": 401, "should_retry": false, "times": "always"}), FailureClass::Auth),
        (json!({"status": 403, "times": "always"}), FailureClass::Auth),
        (json!({"status": 400, "times": "always"}), FailureClass::Invalid),
        (json!({"status": 404, "times": "always"}), FailureClass::Invalid),
        (json!({"status": 413, "times": "always"}), FailureClass::Invalid),
        (json!({"drop_after": 2, "times": "always"}), FailureClass::Overload),
        (json!({"malformed": "json", "times": "always"}), FailureClass::Overload),
        (json!({"malformed": "html", "times": "always"}), FailureClass::Overload),
        (json!({"malformed": "empty", "times": "always"}), FailureClass::Overload),
    ] {
        let case = Case::new().await;
        let (failure, seen) = case.fails(&json!([{"fail": fault, "text": "never"}])).await;
        assert_eq!(failure.class(), class, "{fault}: {failure:?}\n{seen:#?}");
        assert_eq!(failure.exit_code, Some(1), "{failure:?}");
    }
}

#[tokio::test]
async fn a_limited_rate_tells_its_wait() {
    let mut case = Case::new().await;
    case.environment.insert("CLAUDE_CODE_MAX_RETRIES".to_owned(), "1".to_owned());
    let fault = json!({"status": 429, "retry_after": 2, "times": "always"});
    let (failure, _) = case.fails(&json!([{"fail": fault}])).await;
    let wait = failure.retry_after.unwrap_or_else(|| panic!("{:?}", failure.message));
    assert!((2..=4).contains(&wait.seconds), "{wait:?}");
}

#[tokio::test]
async fn no_key_is_an_auth_failure() {
    let mut case = Case::new().await;
    case.environment.remove("ANTHROPIC_API_KEY");
    let (failure, _) = case.fails(&json!([{"text": "never"}])).await;
    assert_eq!(failure.class(), FailureClass::Auth);
    assert!(failure.hint.contains("ANTHROPIC_API_KEY"));
}

#[tokio::test]
async fn a_refusal_is_one() {
    let case = Case::new().await;
    let (failure, seen) = case.fails(&json!([{"stop": "refusal"}, {"stop": "refusal"}])).await;
    assert_eq!(failure.class(), FailureClass::Refusal, "{failure:?}\n{seen:#?}");
}

#[tokio::test]
async fn a_stop_ends_a_hanging_model_call() {
    let case = Case::new().await;
    let run = case.start(&json!([{"fail": {"hang_after": 0, "times": "always"}}]));
    timeout(PATIENCE, case.model.until(|counts| counts.active > 0)).await.unwrap();
    run.stop(Duration::from_secs(15));
    let (outcome, _) = case.end(run).await;
    assert!(matches!(outcome.ending, Ending::Stopped { by: "interrupt" }), "{:?}", outcome.ending);
}

#[tokio::test]
async fn a_stop_ends_tools_and_what_they_left_behind() {
    let mut case = Case::new().await;
    case.claude.permission_policy = PermissionPolicy::Allow.into();
    let run = case.start(&json!([long_tool(), {"text": "never"}]));
    while !case.workspace().join("begun").exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(case.processes().len() > 1);
    run.stop(Duration::from_secs(15));
    let (outcome, _) = case.end(run).await;
    assert!(matches!(outcome.ending, Ending::Stopped { .. }), "{:?}", outcome.ending);
}

#[tokio::test]
async fn a_killed_cli_goes_on_in_the_next_attempt() {
    let mut case = Case::new().await;
    case.claude.permission_policy = PermissionPolicy::Allow.into();
    let script =
        json!([bash("touch first"), bash("touch second"), {"fail": {"hang_after": 0, "times": "always"}}]);
    let run = case.start(&script);
    timeout(PATIENCE, case.model.until(|counts| counts.messages >= 3 && counts.active > 0)).await.unwrap();
    let cli = case.processes().into_iter().find(|pid| command(*pid).contains("stream-json")).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(cli), nix::sys::signal::Signal::SIGKILL).unwrap();
    let (outcome, _) = case.end(run).await;
    let Ending::Failed(failure) = outcome.ending else { panic!("{:?}", outcome.ending) };
    assert_eq!((failure.class(), failure.signal), (FailureClass::Crash, Some(9)));
    assert!(!outcome.runtime_session.is_empty());

    let before = case.model.requests().iter().map(|request| request.messages).max().unwrap();
    case.resume = outcome.runtime_session;
    case.attempt = 2;
    let (result, seen) = case.succeeds(&json!([{"text": "went on"}])).await;
    assert_eq!((result.text.as_str(), &result.runtime_session), ("went on", &case.resume));
    assert!(!codes(&seen).contains(&"session_lost"));
    let last = case.model.requests().pop().unwrap();
    assert!(last.messages > before / 2, "it knows what was before: {} of {before}", last.messages);
}

#[tokio::test]
async fn a_lost_session_is_begun_anew() {
    let mut case = Case::new().await;
    case.resume = uuid::Uuid::new_v4().to_string();
    let (outcome, seen) = case.run(&json!([{"text": "anew"}])).await;
    assert!(codes(&seen).contains(&"session_lost"), "{seen:#?}");
    assert_ne!(outcome.runtime_session, case.resume);
    assert_eq!(succeeded(outcome, &seen).text, "anew");
}

#[tokio::test]
async fn only_its_own_cost_counts_after_a_resume() {
    let mut case = Case::new().await;
    let script = json!([{"text": "x", "usage": {"input_tokens": 100_000, "output_tokens": 1000}}]);
    let (first, _) = case.run(&script).await;
    case.resume = first.runtime_session;
    let (second, _) = case.run(&script).await;
    let (first, second) = (first.usage.unwrap(), second.usage.unwrap());
    assert_eq!((first.input_tokens, first.cost_micro_usd), (second.input_tokens, second.cost_micro_usd));
}

#[tokio::test]
async fn money_and_turns_run_out() {
    let mut case = Case::new().await;
    case.claude.permission_policy = PermissionPolicy::Allow.into();
    let script = json!([bash("touch a"), bash("touch b"), bash("touch c"), {"text": "never"}]);
    case.limits.max_turns = 1;
    let (failure, _) = case.fails(&script).await;
    assert_eq!(failure.class(), FailureClass::Budget);
    assert!(failure.hint.contains("maxTurns"));
    case.limits = Limits { budget_micro_usd: 1, ..Limits::default() };
    let (failure, _) = case.fails(&script).await;
    assert_eq!(failure.class(), FailureClass::Budget);
    assert!(failure.hint.contains("budgetUsd"));
}

#[tokio::test]
async fn structured_output_is_asked_for() {
    let mut case = Case::new().await;
    let schema =
        json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}}, "required": ["n"]});
    case.claude.json_schema = serde_json::from_value(schema).unwrap();
    let (result, _) = case
        .succeeds(&json!([{"tools": [{"name": "StructuredOutput", "input": {"n": 3}}]}, {"text": "x"}]))
        .await;
    assert_eq!(serde_json::to_value(result.data).unwrap(), json!({"n": 3.0}));
    let (failure, _) = case.fails(&json!([{"text": "no"}, {"text": "no"}, {"text": "no"}])).await;
    assert_eq!(failure.class(), FailureClass::Agent, "{failure:?}");
}

#[tokio::test]
async fn bypass_as_root_needs_a_sandbox() {
    let mut case = Case::new().await;
    case.claude.permission_mode = "bypassPermissions".to_owned();
    let script = json!([makes("bypassed"), {"text": "done"}]);
    if nix::unistd::geteuid().is_root() {
        let (failure, _) = case.fails(&script).await;
        assert_eq!(failure.class(), FailureClass::Invalid);
        assert_eq!(case.model.counts().requests, 0);
        case.environment.insert("IS_SANDBOX".to_owned(), "1".to_owned());
    }
    case.succeeds(&script).await;
    assert!(case.workspace().join("bypassed").exists());
}

#[tokio::test]
async fn options_reach_the_cli() {
    let mut case = Case::new().await;
    case.claude.model = "haiku".to_owned();
    case.claude.tools = vec!["Bash".to_owned(), "Read".to_owned()];
    case.claude.disallowed_tools = vec!["Read".to_owned()];
    case.claude.system_prompt = "Be brief.".to_owned();
    case.claude.append_system_prompt = "Be kind.".to_owned();
    case.claude.mcp_servers = serde_json::from_value(json!({"dead": {"command": "/nonexistent"}})).unwrap();
    let (_, seen) = case.succeeds(&json!([{"text": "done"}])).await;
    let requests = case.model.requests();
    assert!(requests[0].model.contains("haiku"), "{requests:?}");
    assert!(requests[0].tools < 5, "{requests:?}");
    assert!(codes(&seen).contains(&"runtime_started"));
}

#[tokio::test]
async fn a_missing_program_says_how_to_get_it() {
    let mut case = Case::new().await;
    case.claude.program = "/nonexistent/claude".to_owned();
    let (failure, _) = case.fails(&json!([{"text": "never"}])).await;
    assert_eq!(failure.class(), FailureClass::Start);
    assert!(failure.hint.contains("install"), "{failure:?}");
}
