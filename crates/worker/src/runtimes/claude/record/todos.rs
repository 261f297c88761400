//! The agent's to-do list, from the calls of the tools that keep it: `TodoWrite`, which replaces it, or `TaskCreate` and `TaskUpdate`,
//! which change it. Bounded; knows nothing of events.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// Maximum number of items; further ones are left out.
const MAX_ITEMS: usize = 500;
/// Maximum number of calls without a result.
const MAX_PENDING: usize = 64;
/// Maximum size of an item's text, which secrets are redacted from later.
const MAX_TEXT_BYTES: usize = 4 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    InProgress,
    Completed,
    Deleted,
    #[default]
    #[serde(other)]
    Pending,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Item {
    #[serde(skip)]
    id: String,
    #[serde(alias = "subject")]
    content: String,
    status: Status,
}

#[derive(Debug, Deserialize)]
struct Written {
    todos: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Updated {
    #[serde(rename = "taskId")]
    id: String,
    status: Option<Status>,
    subject: Option<String>,
}

/// What a call does once it has succeeded.
#[derive(Debug)]
enum Change {
    Replace(Vec<Item>),
    Add(Item),
    Update(Updated),
}

#[derive(Debug, Default)]
pub(super) struct Todos {
    items: Vec<Item>,
    /// Changes of calls without a result, by call.
    pending: BTreeMap<String, Change>,
}

impl Todos {
    /// Takes a call of a tool.
    pub(super) fn call(&mut self, id: &str, tool: &str, input: &Value) {
        let change = match tool {
            "TodoWrite" => Written::deserialize(input).ok().map(|written| Change::Replace(written.todos)),
            "TaskCreate" => Item::deserialize(input).ok().map(Change::Add),
            "TaskUpdate" => Updated::deserialize(input).ok().map(Change::Update),
            _ => None,
        };
        if let Some(change) = change
            && self.pending.len() < MAX_PENDING
        {
            self.pending.insert(id.to_owned(), change);
        }
    }

    /// Takes the result of a call. Returns whether the list has changed.
    pub(super) fn result(&mut self, call: &str, output: &str, is_error: bool) -> bool {
        let Some(change) = self.pending.remove(call).filter(|_| !is_error) else { return false };
        match change {
            Change::Replace(items) => self.items = items,
            Change::Add(item) => {
                // "Task #1 created successfully: …"
                let id = output.split_once('#').map(|(_, rest)| rest);
                let id = id.and_then(|rest| rest.split(|next: char| !next.is_ascii_alphanumeric()).next());
                self.items.push(Item { id: id.unwrap_or_default().to_owned(), ..item });
            }
            Change::Update(updated) => {
                let Some(item) = self.items.iter_mut().find(|item| item.id == updated.id) else {
                    return false;
                };
                item.status = updated.status.unwrap_or(item.status);
                if let Some(subject) = updated.subject {
                    item.content = subject;
                }
            }
        }
        self.items.retain(|item| item.status != Status::Deleted);
        self.items.truncate(MAX_ITEMS);
        for item in &mut self.items {
            item.content.truncate(item.content.floor_char_boundary(MAX_TEXT_BYTES));
        }
        true
    }

    /// Returns the completed fraction, and the step, such as `3/7: Write the parser`: the item in progress, or else the next one.
    /// None without a list.
    pub(super) fn progress(&self) -> Option<(f64, String)> {
        let all = self.items.len();
        let done = self.items.iter().filter(|item| item.status == Status::Completed).count();
        let first = |status| self.items.iter().find(|item| item.status == status);
        let item = first(Status::InProgress).or_else(|| first(Status::Pending)).or(self.items.last())?;
        let text = item.content.trim().lines().next().unwrap_or_default();
        Some((done as f64 / all as f64, format!("{}/{all}: {text}", (done + 1).min(all))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn step(todos: &Todos) -> String {
        todos.progress().map(|(fraction, step)| format!("{fraction:.2} {step}")).unwrap_or_default()
    }

    #[test]
    fn written_list_has_a_fraction_and_a_step() {
        let mut todos = Todos::default();
        assert_eq!(todos.progress(), None);
        let item = |text: &str, status: &str| json!({"content": text, "status": status, "activeForm": text});
        let list = json!({"todos": [item("Read", "completed"), item("Test", "pending"), item("Write\nit", "in_progress")]});
        todos.call("c1", "TodoWrite", &list);
        assert_eq!(todos.progress(), None, "the call has no result yet");
        assert!(todos.result("c1", "Todos have been modified", false));
        assert_eq!(step(&todos), "0.33 2/3: Write");
        todos.call("c2", "TodoWrite", &json!({"todos": []}));
        assert!(!todos.result("c2", "denied", true), "a failed call changes nothing");
        todos.call(
            "c3",
            "TodoWrite",
            &json!({"todos": [item("Read", "completed"), item("Test", "completed")]}),
        );
        assert!(todos.result("c3", "", false));
        assert_eq!(step(&todos), "1.00 2/2: Test");
        todos.call("c4", "TodoWrite", &json!({"todos": "everything"}));
        assert!(!todos.result("c4", "", false));
    }

    #[test]
    fn tasks_are_created_and_updated() {
        let mut todos = Todos::default();
        for (id, subject) in [("1", "Write the parser"), ("2", "Test it"), ("3", "Forget it")] {
            todos.call(id, "TaskCreate", &json!({"subject": subject, "description": "d"}));
            assert!(todos.result(id, &format!("Task #{id} created successfully: {subject}"), false));
        }
        assert_eq!(step(&todos), "0.00 1/3: Write the parser");
        let mut update = |input: Value| {
            todos.call("u", "TaskUpdate", &input);
            todos.result("u", "Updated", false);
            step(&todos)
        };
        assert_eq!(update(json!({"taskId": "3", "status": "deleted"})), "0.00 1/2: Write the parser");
        assert_eq!(update(json!({"taskId": "1", "status": "completed"})), "0.50 2/2: Test it");
        assert_eq!(update(json!({"taskId": "2", "subject": "Test all"})), "0.50 2/2: Test all");
        assert_eq!(update(json!({"taskId": "9", "status": "completed"})), "0.50 2/2: Test all");
    }

    #[test]
    fn list_is_bounded() {
        let mut todos = Todos::default();
        let items: Vec<_> =
            (0..2000).map(|_| json!({"content": "ä".repeat(5000), "status": "new"})).collect();
        todos.call("c", "TodoWrite", &json!({ "todos": items }));
        assert!(todos.result("c", "", false));
        assert!(step(&todos).starts_with("0.00 1/500: ä") && step(&todos).len() < 5000);
        for call in 0..1000 {
            todos.call(&call.to_string(), "TodoWrite", &json!({"todos": []}));
        }
        assert_eq!(todos.pending.len(), MAX_PENDING);
    }
}
