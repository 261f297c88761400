//! The Claude runtime with the real Claude Code CLI against the fake model: verifies what the CLI actually does.
//! Installs the CLI if necessary; without it the tests fail.

mod case;
mod money;
mod probe;
mod progress;
mod project;
mod project_settings;
mod providers;
mod set_up;

use std::time::Duration;

use case::{CLI, Case, TEST_TIMEOUT, answers, codes, command, succeeded};
use rota_proto::v1::{Decision, FailureClass, InputKind, Limits, PermissionPolicy};
use rota_worker::runtimes::RunOutcome;
use rota_worker::runtimes::claude::version;
use serde_json::{Value, json};
use tokio::time::timeout;

fn bash(command: &str) -> Value {
    json!({"tools": [{"name": "Bash", "input": {"command": command, "description": "Try it"}}]})
}

/// A command that no rule allows. In the mode acceptEdits, `touch` would be allowed.
fn makes(file: &str) -> Value {
    bash(&format!("perl -e 'open(F, q(>{file}))'"))
}

/// A long tool call. Not `sleep`, which the CLI rejects.
fn long_tool() -> Value {
    bash("touch begun; setsid perl -e 'sleep 600' & perl -e 'sleep 600'")
}

#[tokio::test]
async fn version_is_parsed() {
    assert_eq!(version(&CLI).await.unwrap(), "2.1.329");
}

#[tokio::test]
async fn successful_run_reports_usage_and_session() {
    let case = Case::new().await;
    let (report, seen) = case.run(&json!([{"thinking": "hm", "text": "hello there"}])).await;
    assert_eq!(report.usage.as_ref().unwrap().turns, 1);
    assert!(report.usage.as_ref().unwrap().cost_micro_usd > 0, "{:?}", report.usage);
    assert!(!report.runtime_session.is_empty());
    let session = format!("{}.jsonl", report.runtime_session);
    let result = succeeded(report, &seen);
    assert_eq!(result.text, "hello there");
    assert_eq!(result.exit_code, Some(0));
    assert_eq!(codes(&seen), ["runtime_started"]);
    let projects = case.workspace().with_file_name(".workspace.claude").join("projects");
    let projects: Vec<_> = std::fs::read_dir(projects).unwrap().flatten().collect();
    assert!(projects.iter().any(|project| project.path().join(&session).exists()), "the transcript stays");
    let counts = case.model.counts();
    assert_eq!(counts.requests, counts.messages, "it asks for nothing else");
}

#[tokio::test]
async fn tools_run_and_list_their_files() {
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
async fn tool_without_permission_is_denied() {
    let case = Case::new().await;
    let (result, seen) = case.succeeds(&json!([makes("denied"), {"text": "continued"}])).await;
    assert_eq!(result.text, "continued");
    assert!(codes(&seen).contains(&"permission_denied"), "{seen:#?}");
    assert!(!case.workspace().join("denied").exists());
}

#[tokio::test]
async fn permissions_are_decided_by_the_user() {
    let mut case = Case::new().await;
    case.claude.permission_policy = PermissionPolicy::Ask.into();
    let script = json!([makes("yes"), makes("no"), {"text": "continued"}]);
    let mut run = case.start(&script);
    let first = run.asked().await;
    assert_eq!((first.kind(), first.tool.as_str()), (InputKind::Permission, "Bash"));
    assert!(first.input_json.contains("yes"));
    run.answer(&first.request_id, Decision::Allow, "").await;
    let second = run.asked().await;
    run.answer(&second.request_id, Decision::Deny, "rather not").await;
    let (report, seen) = case.end(run).await;
    assert_eq!(succeeded(report, &seen).text, "continued");
    assert!(case.workspace().join("yes").exists() && !case.workspace().join("no").exists());
    assert!(answers(&seen)[1].contains("rather not"), "{seen:#?}");
}

#[tokio::test]
async fn question_is_answered_by_the_user() {
    let mut case = Case::new().await;
    case.claude.permission_policy = PermissionPolicy::Ask.into();
    let question = json!({"question": "Which color?", "header": "Color", "multiSelect": false, "options": [
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
        ("Which color?", &["red", "blue"].map(str::to_owned)[..])
    );
    run.answer(&asked.request_id, Decision::Unspecified, "green, if it must be").await;
    let (report, seen) = case.end(run).await;
    assert!(succeeded(report, &seen).text.contains("green, if it must be"), "{seen:#?}");
}

#[tokio::test]
async fn allow_policy_permits_every_tool() {
    let mut case = Case::new().await;
    case.claude.permission_policy = PermissionPolicy::Allow.into();
    case.succeeds(&json!([makes("allowed"), {"text": "done"}])).await;
    assert!(case.workspace().join("allowed").exists());
}

#[tokio::test]
async fn steering_reaches_the_running_agent() {
    let mut case = Case::new().await;
    case.claude.permission_policy = PermissionPolicy::Ask.into();
    // While it waits for a permission, it is certainly running.
    let mut run = case.start(&json!([makes("x"), {"text": "not steered"}]));
    let asked = run.asked().await;
    run.answer("", Decision::Unspecified, r#"MOCK[{"text":"steered"}]"#).await;
    run.answer(&asked.request_id, Decision::Allow, "").await;
    let (report, seen) = case.end(run).await;
    assert_eq!(succeeded(report, &seen).text, "steered");
}

#[tokio::test]
async fn rate_limit_is_retried() {
    let case = Case::new().await;
    let (result, seen) =
        case.succeeds(&json!([{"fail": {"status": 429, "retry_after": 1}, "text": "at last"}])).await;
    assert_eq!(result.text, "at last");
    assert!(codes(&seen).contains(&"api_retry"), "{seen:#?}");
}

#[tokio::test]
async fn model_failures_map_to_classes() {
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
async fn rate_limit_carries_retry_delay() {
    let mut case = Case::new().await;
    case.environment.insert("CLAUDE_CODE_MAX_RETRIES".to_owned(), "1".to_owned());
    let fault = json!({"status": 429, "retry_after": 2, "times": "always"});
    let (failure, _) = case.fails(&json!([{"fail": fault}])).await;
    let wait = failure.retry_after.unwrap_or_else(|| panic!("{:?}", failure.message));
    assert!((2..=4).contains(&wait.seconds), "{wait:?}");
}

#[tokio::test]
async fn missing_key_is_an_auth_failure() {
    let mut case = Case::new().await;
    case.environment.remove("ANTHROPIC_API_KEY");
    let (failure, _) = case.fails(&json!([{"text": "never"}])).await;
    assert_eq!(failure.class(), FailureClass::Auth);
    assert!(failure.hint.contains("ANTHROPIC_API_KEY"));
}

#[tokio::test]
async fn refusal_has_its_class() {
    let case = Case::new().await;
    let (failure, seen) = case.fails(&json!([{"stop": "refusal"}, {"stop": "refusal"}])).await;
    assert_eq!(failure.class(), FailureClass::Refusal, "{failure:?}\n{seen:#?}");
}

#[tokio::test]
async fn stop_ends_a_hanging_model_call() {
    let case = Case::new().await;
    let run = case.start(&json!([{"fail": {"hang_after": 0, "times": "always"}}]));
    timeout(TEST_TIMEOUT, case.model.until(|counts| counts.active > 0)).await.unwrap();
    run.stop(Duration::from_secs(15));
    let (report, _) = case.end(run).await;
    assert!(matches!(report.outcome, RunOutcome::Stopped { by: "interrupt" }), "{:?}", report.outcome);
}

#[tokio::test]
async fn stop_ends_tools_and_their_processes() {
    let mut case = Case::new().await;
    case.claude.permission_policy = PermissionPolicy::Allow.into();
    let run = case.start(&json!([long_tool(), {"text": "never"}]));
    while !case.workspace().join("begun").exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(case.processes().len() > 1);
    run.stop(Duration::from_secs(15));
    let (report, _) = case.end(run).await;
    assert!(matches!(report.outcome, RunOutcome::Stopped { .. }), "{:?}", report.outcome);
}

#[tokio::test]
async fn killed_session_is_resumed_by_next_attempt() {
    let mut case = Case::new().await;
    case.claude.permission_policy = PermissionPolicy::Allow.into();
    let script =
        json!([bash("touch first"), bash("touch second"), {"fail": {"hang_after": 0, "times": "always"}}]);
    let run = case.start(&script);
    timeout(TEST_TIMEOUT, case.model.until(|counts| counts.messages >= 3 && counts.active > 0))
        .await
        .unwrap();
    let cli = case.processes().into_iter().find(|pid| command(*pid).contains("stream-json")).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(cli), nix::sys::signal::Signal::SIGKILL).unwrap();
    let (report, _) = case.end(run).await;
    let RunOutcome::Failed(failure) = report.outcome else { panic!("{:?}", report.outcome) };
    assert_eq!((failure.class(), failure.signal), (FailureClass::Crash, Some(9)));
    assert!(!report.runtime_session.is_empty());

    let before = case.model.requests().iter().map(|request| request.messages).max().unwrap();
    case.resume = report.runtime_session;
    case.attempt = 2;
    let (result, seen) = case.succeeds(&json!([{"text": "continued"}])).await;
    assert_eq!((result.text.as_str(), &result.runtime_session), ("continued", &case.resume));
    assert!(!codes(&seen).contains(&"session_lost"));
    let last = case.model.requests().pop().unwrap();
    assert!(last.messages > before / 2, "it knows what was before: {} of {before}", last.messages);
}

#[tokio::test]
async fn missing_session_is_replaced() {
    let mut case = Case::new().await;
    case.resume = uuid::Uuid::new_v4().to_string();
    let (report, seen) = case.run(&json!([{"text": "new"}])).await;
    assert!(codes(&seen).contains(&"session_lost"), "{seen:#?}");
    assert_ne!(report.runtime_session, case.resume);
    assert_eq!(succeeded(report, &seen).text, "new");
}

#[tokio::test]
async fn resumed_attempt_counts_only_its_own_cost() {
    let mut case = Case::new().await;
    let script = json!([{"text": "x", "usage": {"input_tokens": 100_000, "output_tokens": 1000}}]);
    let (first, _) = case.run(&script).await;
    case.resume = first.runtime_session;
    let (second, _) = case.run(&script).await;
    let (first, second) = (first.usage.unwrap(), second.usage.unwrap());
    assert_eq!((first.input_tokens, first.cost_micro_usd), (second.input_tokens, second.cost_micro_usd));
}

#[tokio::test]
async fn budget_and_turn_limits_are_enforced() {
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
async fn structured_output_is_required() {
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
    case.claude.system_prompt = "Be brief. MARK-SYSTEM".to_owned();
    case.claude.append_system_prompt = "Be kind. MARK-APPENDED".to_owned();
    case.claude.mcp_servers = serde_json::from_value(json!({"dead": {"command": "/nonexistent"}})).unwrap();
    std::fs::create_dir_all(case.workspace()).unwrap();
    let file = case.workspace().join("file");
    std::fs::write(&file, "from-the-file").unwrap();
    let script = json!([{"tools": [{"name": "Read", "input": {"file_path": file}}]}, {"text": "done"}]);
    let (_, seen) = case.succeeds(&script).await;
    let requests = case.model.requests();
    assert!(requests[0].model.contains("haiku"), "{requests:?}");
    let marks: Vec<_> = requests[0].marks.iter().map(String::as_str).collect();
    assert_eq!(marks, ["MARK-APPENDED", "MARK-SYSTEM"]);
    assert!(codes(&seen).contains(&"mcp_server_failed"), "{seen:#?}");
    // Of the two tools that are named, one is disallowed: it is not offered, and a call of it reads nothing.
    let limited = requests[0].tools;
    assert!(!answers(&seen).iter().any(|answer| answer.contains("from-the-file")), "{seen:#?}");
    case.claude.disallowed_tools.clear();
    let (_, seen) = case.succeeds(&script).await;
    assert!(answers(&seen)[0].contains("from-the-file"), "{seen:#?}");
    let both = case.model.requests()[requests.len()].tools;
    assert!(both > limited, "{requests:#?}");
    case.claude.tools.clear();
    case.succeeds(&json!([{"text": "done"}])).await;
    assert!(case.model.requests().last().unwrap().tools > both, "all tools without a list");
}

#[tokio::test]
async fn missing_program_hints_at_installation() {
    let mut case = Case::new().await;
    case.claude.program = "/nonexistent/claude".to_owned();
    let (failure, _) = case.fails(&json!([{"text": "never"}])).await;
    assert_eq!(failure.class(), FailureClass::Start);
    assert!(failure.hint.contains("install"), "{failure:?}");
}
