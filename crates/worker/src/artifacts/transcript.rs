//! Transcripts of conversations without secrets. Each line is JSON and stays JSON: secrets are looked for in its strings, as the agent
//! has them, and never across two of them.

use std::io::{self, BufRead, BufReader, Read, Write};

use cap_std::fs::OpenOptions;
use rota_telemetry::redact::{PLACEHOLDER, Redactor};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::checkpoint::{MAX_BYTES, file_of};
use crate::program_dir;
use crate::runtimes::CheckpointFolder;

/// Bytes of a line, which has an image at most.
pub(super) const MAX_LINE: usize = 16 << 20;

/// Bytes of a message that is looked for within longer texts.
const MIN_PART: usize = 16;

/// Copies the whole lines of a transcript: one that is being written is not there yet. Returns how many bytes were read, and whether
/// a message of a user is among them.
pub(super) fn copy(from: impl Read, to: &mut impl Write, redactor: &Redactor) -> io::Result<(u64, bool)> {
    let (mut from, mut line, mut count, mut is_begun) = (BufReader::new(from), Vec::new(), 0, false);
    loop {
        line.clear();
        let read = from.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line)?;
        count += read as u64;
        let Some(text) = line.strip_suffix(b"\n") else {
            if read > MAX_LINE {
                return Err(io::Error::other(format!("a line has more than {} MiB", MAX_LINE >> 20)));
            }
            return Ok((count, is_begun));
        };
        if let Some((clean, is_of_user)) = redacted(text, redactor) {
            to.write_all(&clean)?;
            to.write_all(b"\n")?;
            is_begun |= is_of_user;
        }
    }
}

/// Returns which of the messages the transcript of a conversation does not have. One that cannot be read has none.
pub(crate) async fn unheard(
    folder: &CheckpointFolder,
    conversation: &str,
    messages: Vec<String>,
) -> Vec<String> {
    if messages.is_empty() {
        return messages;
    }
    let (folder, conversation) = (folder.clone(), conversation.to_owned());
    let search = tokio::task::spawn_blocking(move || match open(&folder, &conversation) {
        Ok(transcript) => unheard_in(transcript, messages),
        _ => messages,
    });
    search.await.unwrap_or_default()
}

/// Opens a transcript, unless it is a link, a pipe or a device: programs may have written there.
fn open(folder: &CheckpointFolder, conversation: &str) -> io::Result<impl Read + use<>> {
    let root = program_dir::open(&folder.root)?;
    let path = folder.within.join(file_of(conversation));
    let file = program_dir::open_file(&root, &path, OpenOptions::new().read(true))?;
    Ok(file.take(MAX_BYTES))
}

fn unheard_in(transcript: impl Read, mut messages: Vec<String>) -> Vec<String> {
    for line in BufReader::new(transcript).split(b'\n') {
        let Ok(line) = line else { return messages };
        let Ok(value) = serde_json::from_slice::<Value>(&line) else { continue };
        // What the model has written, or what it had still to be sent.
        let kind = value.get("type").and_then(Value::as_str);
        if !matches!(kind, Some("assistant" | "queue-operation")) {
            messages.retain(|message| !has(&value, message));
        }
    }
    messages
}

/// Whether a text of a value has a message. Short ones occur in others, and are found where nothing else is.
fn has(value: &Value, message: &str) -> bool {
    match value {
        Value::String(text) if message.len() < MIN_PART => text.trim() == message.trim(),
        Value::String(text) => text.contains(message),
        Value::Array(values) => values.iter().any(|value| has(value, message)),
        Value::Object(fields) => fields.values().any(|value| has(value, message)),
        _ => false,
    }
}

/// Returns a line without secrets, and whether it is of the user; `None` if it is of no use to who reads lines of JSON.
fn redacted(line: &[u8], redactor: &Redactor) -> Option<(Vec<u8>, bool)> {
    let Ok(mut value) = serde_json::from_slice::<Value>(line) else {
        // Such as half of a character of two, which JavaScript writes.
        let clean = redactor.bytes(line).into_owned();
        return serde_json::from_slice::<IgnoredAny>(&clean).is_ok().then_some((clean, false));
    };
    let is_of_user = value.get("type").is_some_and(|kind| kind == "user");
    if !redact(&mut value, redactor) {
        return Some((line.to_owned(), is_of_user));
    }
    serde_json::to_vec(&value).ok().map(|clean| (clean, is_of_user))
}

/// Redacts all strings of a value, and numbers. Returns whether there were secrets.
fn redact(value: &mut Value, redactor: &Redactor) -> bool {
    match value {
        Value::String(text) => clean(text, redactor),
        Value::Number(number) => {
            let mut text = number.to_string();
            let found = clean(&mut text, redactor);
            if found {
                *value = text.into();
            }
            found
        }
        Value::Array(values) => values.iter_mut().fold(false, |found, value| redact(value, redactor) | found),
        Value::Object(fields) => {
            let mut found = false;
            for (name, mut value) in std::mem::take(fields) {
                let mut name = name;
                found |= clean(&mut name, redactor) | redact(&mut value, redactor);
                fields.insert(name, value);
            }
            // The model's host has signed its thoughts, and would not take others.
            if found
                && fields.get("type").is_some_and(|kind| kind == "thinking" || kind == "redacted_thinking")
            {
                *value = json!({"type": "text", "text": PLACEHOLDER});
            }
            found
        }
        Value::Null | Value::Bool(_) => false,
    }
}

fn clean(text: &mut String, redactor: &Redactor) -> bool {
    match redactor.bytes(text.as_bytes()) {
        std::borrow::Cow::Borrowed(_) => false,
        std::borrow::Cow::Owned(clean) => {
            *text = String::from_utf8_lossy(&clean).into_owned();
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(text: &str, redactor: &Redactor) -> (String, bool) {
        let mut to = Vec::new();
        let (_, is_begun) = copy(text.as_bytes(), &mut to, redactor).unwrap();
        (String::from_utf8(to).unwrap(), is_begun)
    }

    #[test]
    fn lines_stay_json() {
        let begin = concat!("-----BEGIN ", "PRIVATE KEY-----");
        let end = concat!("-----END ", "PRIVATE KEY-----");
        let account =
            "{\n  \"private_key_id\": \"0123456789abcdef\",\n  \"universe_domain\": \"googleapis.com\"";
        let redactor = Redactor::new([account, "nine-letters", "123456789"]);
        let user = |text: &str| json!({"type": "user", "message": {"content": text}}).to_string();
        let lines = [
            user(&format!("if text.contains(\"{begin}\") {{ \"quoted\" }}")),
            user("between"),
            user(&format!("if text.contains(\"{end}\") {{}}")),
            user("1\t{\n2\t  \"universe_domain\": \"googleapis.com\"\n3\t}"),
            user("a line\nine-letters and \nine-letters\\nine-letters"),
            json!({"nine-letters": [123_456_789, 1.5, null, "nine-letters"]}).to_string(),
        ];
        let (copied, is_begun) =
            copied(&lines.iter().map(|line| format!("{line}\n")).collect::<String>(), &redactor);
        let found: Vec<Value> = copied.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(is_begun);
        assert_eq!(found.len(), lines.len());
        assert_eq!(copied.lines().nth(1), Some(&*lines[1]), "others are as they were");
        assert_eq!(found[5], json!({"[redacted]": ["[redacted]", 1.5, null, "[redacted]"]}));
        assert_eq!(found[4]["message"]["content"], "a line\nine-letters and \nine-letters\\[redacted]");
        assert!(!copied.contains("googleapis"), "{copied}");
    }

    #[tokio::test]
    async fn messages_are_found_in_transcripts() {
        let root = tempfile::tempdir().unwrap();
        let folder = CheckpointFolder { root: root.path().to_owned(), ..CheckpointFolder::default() };
        let line = json!({"attachment": {"type": "queued_command", "prompt": "Use \"tabs\",\nplease."}});
        let own = json!({"type": "assistant", "message": {"content": "Be brief."}});
        let queued = json!({"type": "queue-operation", "operation": "enqueue", "content": "Be brief."});
        let lines = format!("no json\n{line}\n{own}\n{queued}\n");
        std::fs::write(root.path().join("c.jsonl"), lines).unwrap();
        std::os::unix::fs::symlink("c.jsonl", root.path().join("link.jsonl")).unwrap();
        let messages = || vec!["Use \"tabs\",\nplease.".to_owned(), "Be brief.".to_owned()];
        assert_eq!(unheard(&folder, "c", messages()).await, ["Be brief."]);
        for other in ["", "link"] {
            assert_eq!(unheard(&folder, other, messages()).await, messages());
        }
    }

    #[test]
    fn lines_that_are_no_json_are_left_out() {
        let redactor = Redactor::new(["a-secret-value"]);
        let half = r#"{"text":"\ud83d a-secret-value"}"#;
        let text = format!("{{\"type\":\"user\"}}\n{{\"torn\":\n{half}\n\n{{\"cut\":1}}");
        let wanted = "{\"type\":\"user\"}\n{\"text\":\"\\ud83d [redacted]\"}\n";
        assert_eq!(copied(&text, &redactor), (wanted.to_owned(), true));
        assert_eq!(
            copied("{\"type\":\"summary\"}\n", &redactor),
            ("{\"type\":\"summary\"}\n".to_owned(), false)
        );
    }

    #[test]
    fn thoughts_with_secrets_are_dropped() {
        let redactor = Redactor::new(["a-secret-value"]);
        let thought = |text: &str| json!({"type": "thinking", "thinking": text, "signature": "c2ln"});
        let line = json!({"content": [thought("of a-secret-value"), thought("of none")]});
        let (copied, _) = copied(&format!("{line}\n"), &redactor);
        let wanted = json!({"content": [{"type": "text", "text": "[redacted]"}, thought("of none")]});
        assert_eq!(serde_json::from_str::<Value>(&copied).unwrap(), wanted);
    }
}
