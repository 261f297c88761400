//! Text of a push message: what the page itself shows when something begins to wait, and where it is found.

use std::sync::LazyLock;

use regex::{Captures, Regex};
use rota_core::text::prefix;
use rota_proto::names;
use serde_json::{Value, json};

use super::super::message::{Notification, Occasion};

/// Bytes of a text: notifications show few, and a push message has room for 4 KiB.
const MAX_TEXT: usize = 200;

/// Controls, and characters that change the direction of text or cannot be seen. Joiners of emoji and scripts are harmless.
static UNSEEN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"[\p{Cc}\p{Cf}\p{Zl}\p{Zp}--[\t\u{200c}\u{200d}]]").expect("a valid pattern")
});

/// Returns the payload of a notification. Its tag is that of the page's own, so that both are shown as one.
pub(super) fn of(one: &Notification) -> Value {
    let data = &one.data;
    let title = [&data.title, &data.alias, &one.subject_id].into_iter().find(|name| !name.is_empty());
    let asked = data.request.as_ref();
    let text = match one.occasion {
        Occasion::Permission => {
            format!("May it use {}?", visible(asked.map_or("", |request| request.tool.as_str())))
        }
        _ => visible(&data.message),
    };
    let namespace = one.namespace.as_str();
    let (kind, name, what) = if one.is_of_workflow() {
        let what = format!("{} {}", data.step, data.round);
        ("workflows", names::workflow(namespace, &one.subject_id), what)
    } else {
        let what = match (asked, one.occasion) {
            (Some(request), _) => prefix(&request.id, MAX_TEXT),
            (None, Occasion::Failed) => "checks",
            (None, _) => "attention",
        };
        ("tasks", names::task(namespace, &one.subject_id), what.to_owned())
    };
    json!({
        "title": visible(title.map_or("", String::as_str)),
        "text": text,
        "path": format!("/{kind}/{namespace}/{}", one.subject_id),
        "tag": format!("{name} {what}"),
    })
}

/// Returns the beginning of a text as one line that hides nothing.
fn visible(text: &str) -> String {
    let line = text.replace('\n', " ");
    let named = |found: &Captures<'_>| {
        found[0].chars().map(|one| format!("[U+{:04X}]", u32::from(one))).collect::<String>()
    };
    prefix(&UNSEEN.replace_all(&line, named), MAX_TEXT).to_owned()
}

#[cfg(test)]
mod tests {
    use rota_core::TaskKey;

    use super::*;

    #[test]
    fn payload_has_the_text_of_the_page() {
        let mut one = Notification::example(TaskKey(1), "team", "a\ntitle", "a choice");
        one.data.message = format!("Which\u{202e} way?{}", "x".repeat(MAX_TEXT));
        one.data.alias = "alias".to_owned();
        let shown = of(&one);
        assert_eq!(shown["title"], "a title");
        let text = shown["text"].as_str().unwrap();
        assert!(text.starts_with("Which[U+202E] way?x") && text.len() == MAX_TEXT, "{text}");
        assert_eq!(shown["path"], "/tasks/team/an-id");
        assert_eq!(shown["tag"], "namespaces/team/tasks/an-id ");
        assert!(!shown.to_string().contains("choice"), "{shown}");
        one.occasion = Occasion::Permission;
        if let Some(request) = &mut one.data.request {
            request.tool = "Bash".to_owned();
        }
        assert_eq!(of(&one)["text"], "May it use Bash?");
    }
}
