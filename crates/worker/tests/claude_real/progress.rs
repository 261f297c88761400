//! Progress by the to-do list of the real CLI.

use rota_proto::v1::event;
use serde_json::{Value, json};

use super::bash;
use super::case::Case;

fn todos(states: [&str; 3]) -> Value {
    let items = ["Read the grammar", "Write the parser", "Test it"];
    let items: Vec<_> = (items.iter().zip(states))
        .map(|(text, state)| json!({"content": text, "status": state, "activeForm": text}))
        .collect();
    json!({"tools": [{"name": "TodoWrite", "input": {"todos": items}}]})
}

fn progress(seen: &[event::Kind]) -> Vec<(u32, &str)> {
    seen.iter()
        .filter_map(|event| match event {
            event::Kind::Progress(progress) => {
                Some(((progress.fraction * 100.0).round() as u32, progress.step.as_str()))
            }
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn todo_list_is_the_progress() {
    let mut case = Case::new().await;
    case.claude.allowed_tools = vec!["Bash(echo *)".to_owned()];
    let script = json!([
        bash("echo first"),
        todos(["in_progress", "pending", "pending"]),
        bash("echo second"),
        todos(["completed", "in_progress", "pending"]),
        todos(["completed", "completed", "completed"]),
        {"text": "done"},
    ]);
    let (_, seen) = case.succeeds(&script).await;
    let expected = [
        (0, "Bash: Try it"),
        (0, "TodoWrite"),
        (0, "1/3: Read the grammar"),
        (33, "2/3: Write the parser"),
        (100, "3/3: Test it"),
    ];
    assert_eq!(progress(&seen), expected, "{seen:#?}");
}

#[tokio::test]
async fn tasks_of_the_agent_are_its_progress_too() {
    let mut case = Case::new().await;
    case.own_environment.insert("CLAUDE_CODE_ENABLE_TASKS".to_owned(), "1".to_owned());
    let one = |tool: &str, input: Value| json!({"tools": [{"name": tool, "input": input}]});
    let script = json!([
        one("TaskCreate", json!({"subject": "Write the parser", "description": "d"})),
        one("TaskCreate", json!({"subject": "Test it", "description": "d"})),
        one("TaskUpdate", json!({"taskId": "1", "status": "completed"})),
        {"text": "done"},
    ]);
    let (_, seen) = case.succeeds(&script).await;
    let steps = progress(&seen);
    assert_eq!(
        steps[1..],
        [(0, "1/1: Write the parser"), (0, "1/2: Write the parser"), (50, "2/2: Test it")],
        "{steps:?}"
    );
}
