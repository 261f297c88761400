//! What an agent gives the CLI: settings, subagents, directories, plugins, effort, betas and further arguments.

use rota_proto::v1::{ClaudeRuntime, FailureClass};
use serde_json::{Value, json};

use super::case::{Case, answers};

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
