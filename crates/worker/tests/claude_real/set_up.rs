//! What an agent gives the CLI: settings, subagents, directories, plugins, effort, betas and further arguments.

use rota_proto::v1::{ClaudeRuntime, FailureClass, PermissionPolicy, event};
use serde_json::{Value, json};

use super::case::{Case, answers, codes};

fn object(value: Value) -> Option<pbjson_types::Struct> {
    serde_json::from_value(value).expect("an object")
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn agents_set_up_the_cli() {
    let mut case = Case::new().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let plugin = elsewhere.path().join("plugin");
    std::fs::create_dir_all(plugin.join(".claude-plugin")).unwrap();
    std::fs::create_dir_all(plugin.join("skills/greet")).unwrap();
    std::fs::write(plugin.join(".claude-plugin/plugin.json"), r#"{"name":"house","version":"1.0.0"}"#)
        .unwrap();
    std::fs::write(plugin.join("skills/greet/SKILL.md"), "---\nname: greet\ndescription: d\n---\nGreet.\n")
        .unwrap();
    let data = elsewhere.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("file"), "from-data").unwrap();
    let hook = json!([{"hooks": [{"type": "command", "command": "echo hooked >hooked"}]}]);
    case.claude = ClaudeRuntime {
        allowed_tools: words(&["Bash", "Skill"]),
        settings: object(
            json!({"permissions": {"deny": ["Bash(ls *)"]}, "env": {"FROM_SETTINGS": "yes"}, "hooks": {"SessionStart": hook}}),
        ),
        agents: object(json!({"critic": {"description": "MARK-CRITIC", "prompt": "Criticize."}})),
        add_dirs: words(&[data.to_str().unwrap()]),
        plugin_dirs: words(&[plugin.to_str().unwrap()]),
        effort: "low".to_owned(),
        betas: words(&["context-1m-2025-08-07"]),
        extra_args: words(&["--exclude-dynamic-system-prompt-sections"]),
        ..case.claude
    };
    let inner = json!([{"text": "criticized"}]);
    let tool = |name: &str, input: Value| json!({"tools": [{"name": name, "input": input}]});
    let script = json!([
        tool("Bash", json!({"command": "printenv FROM_SETTINGS"})),
        tool("Bash", json!({"command": "ls /etc"})),
        tool("Task", json!({"subagent_type": "critic", "description": "x", "prompt": format!("MOCK{inner}")})),
        tool("Read", json!({"file_path": data.join("file")})),
        tool("Skill", json!({"skill": "house:greet"})),
        {"text": "done"},
    ]);
    let (_, seen) = case.succeeds(&script).await;
    let answers = answers(&seen);
    assert_eq!(answers[0], "yes", "{seen:#?}");
    assert!(!answers[1].contains("passwd"), "{seen:#?}");
    assert!(answers[2].contains("criticized") && answers[3].contains("from-data"), "{seen:#?}");
    assert!(answers[4].contains("greet") && !answers[4].contains("Unknown"), "{seen:#?}");
    assert!(case.workspace().join("hooked").exists(), "the agent's hooks run");
    let requests = case.model.requests();
    assert!(requests[0].header("anthropic-beta").unwrap().contains("context-1m-2025-08-07"), "{requests:#?}");
    assert!(requests[0].effort == "low" && requests[0].marks.contains("MARK-CRITIC"), "{:?}", requests[0]);
}

#[tokio::test]
async fn calls_of_subagents_name_their_parent() {
    let mut case = Case::new().await;
    case.claude.allowed_tools = words(&["Bash"]);
    case.claude.agents = object(json!({"critic": {"description": "d", "prompt": "Criticize."}}));
    let print =
        |text: &str| json!({"tools": [{"name": "Bash", "input": {"command": format!("echo {text}")}}]});
    let inner = json!([print("inner"), {"text": "criticized"}]);
    let task = json!({"subagent_type": "critic", "description": "x", "prompt": format!("MOCK{inner}")});
    let script = json!([print("outer"), {"tools": [{"name": "Task", "input": task}]}, {"text": "done"}]);
    let (_, seen) = case.succeeds(&script).await;
    let calls: Vec<_> = seen
        .iter()
        .filter_map(|kind| match kind {
            event::Kind::ToolCall(call) => Some(call),
            _ => None,
        })
        .collect();
    let [outer, task, inner] = calls.as_slice() else { panic!("{seen:#?}") };
    assert!(outer.input_json.contains("outer") && outer.parent_call_id.is_empty(), "{seen:#?}");
    assert!(task.parent_call_id.is_empty() && !task.call_id.is_empty(), "{seen:#?}");
    assert!(inner.input_json.contains("inner") && inner.parent_call_id == task.call_id, "{seen:#?}");
}

#[tokio::test]
async fn denied_tools_fail_by_choice() {
    let mut case = Case::new().await;
    let script = json!([{"tools": [{"name": "Bash", "input": {"command": "perl -e 1"}}]}, {"text": "done"}]);
    case.succeeds(&script).await;
    case.claude.fail_on_denied_tools = true;
    let (failure, seen) = case.fails(&script).await;
    assert!(failure.class() == FailureClass::Agent && failure.message.contains("Bash (1)"), "{failure:?}");
    assert!(codes(&seen).contains(&"tools_denied"), "{seen:#?}");
    case.claude.permission_policy = PermissionPolicy::Allow.into();
    case.succeeds(&script).await;
}

#[tokio::test]
async fn agents_read_their_input_and_write_their_result() {
    let case = Case::new().await;
    let scratch = case.directory.path().join("scratch");
    let result = json!({"summary": "in short", "data": {"n": 1}, "files_created": ["a"]}).to_string();
    let script = json!([
        {"tools": [{"name": "Read", "input": {"file_path": scratch.join("context/task.json")}}]},
        {"tools": [{"name": "Write", "input": {"file_path": scratch.join("output/result.json"), "content": result}}]},
        {"text": "at length"},
    ]);
    let (result, seen) = case.succeeds(&script).await;
    assert!(answers(&seen)[0].contains("\"attempt\": 1"), "{seen:#?}");
    assert_eq!((result.text.as_str(), result.files.as_slice()), ("in short", &["a".to_owned()][..]));
    assert_eq!(serde_json::to_value(result.data).unwrap(), json!({"n": 1.0}));
}

#[tokio::test]
async fn oauth_tokens_are_sent_as_such() {
    let mut case = Case::new().await;
    let key = case.environment.remove("ANTHROPIC_API_KEY").unwrap();
    case.environment.insert("CLAUDE_CODE_OAUTH_TOKEN".to_owned(), key);
    case.succeeds(&json!([{"text": "done"}])).await;
    assert!(case.model.requests().iter().all(|request| request.auth == rota_fake_model::Auth::Bearer));
}

#[tokio::test]
async fn unusable_set_up_fails_before_the_start() {
    let mut case = Case::new().await;
    let program = case.claude.program.clone();
    for (class, claude) in [
        (
            FailureClass::Start,
            ClaudeRuntime { plugin_dirs: words(&["/nonexistent/plugin"]), ..Default::default() },
        ),
        (
            FailureClass::Start,
            ClaudeRuntime { extra_args: words(&["--no-such-option"]), ..Default::default() },
        ),
        (FailureClass::Invalid, ClaudeRuntime { extra_args: words(&["--model=opus"]), ..Default::default() }),
        (FailureClass::Invalid, ClaudeRuntime { project_hooks: true, ..Default::default() }),
    ] {
        case.claude = ClaudeRuntime { program: program.clone(), ..claude };
        let (failure, _) = case.fails(&json!([{"text": "never"}])).await;
        assert_eq!(failure.class(), class, "{failure:?}");
    }
    assert_eq!(case.model.counts().requests, 0);
}
