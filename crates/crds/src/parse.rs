//! Parses manifests from YAML (one or more documents) or JSON, with the positions of errors. Knows no files: the caller
//! names the source.

use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{API_VERSION, Agent, Document, Object, Schedule, Task, Workflow, WorkflowTemplate};

/// Position in a text, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: u64,
    /// Column, or 0 if it is unknown.
    pub column: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.column {
            0 => write!(f, "{}", self.line),
            column => write!(f, "{}:{column}", self.line),
        }
    }
}

/// Text that is not a valid manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{source_name}:{position}: {message}")]
pub struct Error {
    /// Name of the text: a file name, or `-`.
    pub source_name: String,
    pub position: Position,
    pub message: String,
}

/// Parses all manifests of a text. Every document is parsed, so that all errors are reported together.
pub fn parse(source_name: &str, text: &str) -> Result<Vec<Document>, Vec<Error>> {
    let (mut documents, mut errors) = (Vec::new(), Vec::new());
    for part in split(text) {
        match read(source_name, &part) {
            Ok(Some(document)) => documents.push(document),
            Ok(None) => {}
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(documents) } else { Err(errors) }
}

/// Document, preceded by empty lines so that its positions are those of the whole text.
struct Part {
    text: String,
    first_line: u64,
}

/// Splits at `---` and `...` in the first column, which YAML allows nowhere else.
fn split(text: &str) -> Vec<Part> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parts = vec![Part { text: String::new(), first_line: 0 }];
    for (number, line) in text.lines().enumerate() {
        let is = |marker: &str| {
            line.strip_prefix(marker)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r']))
        };
        if is("---") || is("...") {
            // The rest of the marker's line (usually a comment) belongs to the next document.
            parts.push(Part { text: "\n".repeat(number) + "   " + &line[3..] + "\n", first_line: 0 });
            continue;
        }
        let Some(part) = parts.last_mut() else { continue };
        if part.first_line == 0 && !line.trim().is_empty() && !line.trim_start().starts_with('#') {
            part.first_line = number as u64 + 1;
        }
        // Directives such as `%YAML 1.2` are ignored.
        part.text.push_str(if line.starts_with('%') { "" } else { line });
        part.text.push('\n');
    }
    parts
}

/// Fields that select the type of the rest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: Option<String>,
    kind: Option<String>,
}

fn read(source_name: &str, part: &Part) -> Result<Option<Document>, Error> {
    let position = Position { line: part.first_line.max(1), column: 0 };
    let fail = |message: String| Error { source_name: source_name.to_owned(), position, message };
    let head: Option<Head> = deserialize(source_name, part)?;
    let Some(head) = head else { return Ok(None) };
    let version = head.api_version.unwrap_or_default();
    let kind = head.kind.unwrap_or_default();
    if version.is_empty() || kind.is_empty() {
        let missing = if version.is_empty() { "apiVersion" } else { "kind" };
        return Err(fail(format!(
            "{missing} is missing; a manifest starts with `apiVersion: {API_VERSION}` and `kind: Task` or `kind: Agent`"
        )));
    }
    if version != API_VERSION {
        return Err(fail(format!("unknown apiVersion {version:?}; expected {API_VERSION:?}")));
    }
    let object = match kind.as_str() {
        "Agent" => Object::Agent(Box::new(deserialize::<Agent>(source_name, part)?)),
        "Task" => Object::Task(Box::new(deserialize::<Task>(source_name, part)?)),
        "Schedule" => Object::Schedule(Box::new(deserialize::<Schedule>(source_name, part)?)),
        "Workflow" => Object::Workflow(Box::new(deserialize::<Workflow>(source_name, part)?)),
        "WorkflowTemplate" => {
            Object::WorkflowTemplate(Box::new(deserialize::<WorkflowTemplate>(source_name, part)?))
        }
        other => {
            return Err(fail(format!(
                "unknown kind {other:?}; expected Agent, Task, Workflow, WorkflowTemplate or Schedule"
            )));
        }
    };
    Ok(Some(Document { object, position }))
}

fn deserialize<T: DeserializeOwned>(source_name: &str, part: &Part) -> Result<T, Error> {
    let options = serde_saphyr::options! {
        // Reject what a cluster would reject: `"1"` is a string, `1` is not.
        no_schema: true,
        with_snippet: false,
    };
    let mut path = String::new();
    let read = serde_saphyr::with_deserializer_from_str_with_options(&part.text, options, |yaml| {
        serde_path_to_error::deserialize(yaml).map_err(|error| {
            path = error.path().to_string();
            error.into_inner()
        })
    });
    read.map_err(|error| {
        let position =
            error.location().map_or(Position { line: part.first_line.max(1), column: 0 }, |location| {
                Position { line: location.line(), column: location.column() }
            });
        Error { source_name: source_name.to_owned(), position, message: at(&path, reword(&error)) }
    })
}

/// Prefixes a message with the path of its field, unless it names the field.
fn at(path: &str, message: String) -> String {
    let last = path.rsplit('.').next().unwrap_or_default();
    if last.is_empty() || message.contains(last) { message } else { format!("{path}: {message}") }
}

/// Rewords the message of the YAML library, without the position, which is reported separately.
fn reword(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let line = text.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    let line = line.rfind(" at line ").map_or(line, |end| &line[..end]);
    match line.strip_prefix("duplicate mapping key: ").and_then(|rest| rest.split(',').next()) {
        Some(key) => format!("{key} is set twice"),
        None => line
            .replace("invalid i32", "must be an integer, at most 2147483647")
            .replace("invalid i64", "must be an integer, at most 9223372036854775807")
            .replace("invalid u64", "must be an integer, not negative")
            .replace("invalid floating point value", "must be a number")
            .replace("expected sequence start", "expected a list")
            .replace("expected mapping start", "expected fields"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = "apiVersion: rota.dev/v1alpha1\nkind: Task\nmetadata:\n  name: a\n";

    fn error(text: &str) -> Error {
        parse("f.yaml", text).unwrap_err().remove(0)
    }

    #[test]
    fn documents_comments_and_gaps_are_split() {
        let text = format!(
            "# first\n---\n{TASK}spec: {{prompt: hi}}\n--- # next\n\n---\napiVersion: rota.dev/v1alpha1\nkind: Agent\nmetadata: {{name: b}}\nspec:\n  runtime:\n    scripted: {{}}\n...\n"
        );
        let documents = parse("f.yaml", &text).unwrap();
        let seen: Vec<_> =
            documents.iter().map(|d| (d.object.kind(), d.object.name(), d.position.line)).collect();
        assert_eq!(seen, [("Task", "a", 3), ("Agent", "b", 11)]);
        assert_eq!(parse("f.yaml", "\n# nothing\n").unwrap(), []);
    }

    #[test]
    fn json_is_parsed() {
        let text = r#"{"apiVersion": "rota.dev/v1alpha1", "kind": "Task", "metadata": {"name": "a"},
            "spec": {"prompt": "hi\n", "limits": {"timeout": "5m"}}}"#;
        let documents = parse("f.json", text).unwrap();
        assert_eq!(documents[0].object.name(), "a");
        let pretty =
            serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(text).unwrap()).unwrap();
        assert_eq!(parse("f.json", &pretty).unwrap()[0].object, documents[0].object);
    }

    #[test]
    fn cluster_fields_are_ignored() {
        let text = format!(
            "{TASK}  uid: x\n  resourceVersion: \"5\"\n  managedFields: [{{a: 1}}]\nspec: {{}}\nstatus: {{phase: Running}}\n"
        );
        assert_eq!(parse("f", &text).unwrap().len(), 1);
    }

    #[test]
    fn errors_have_line_and_column() {
        for (spec, line, column, word) in [
            ("spec:\n  promt: hi\n", 6, 3, "promt"),
            ("spec:\n  limits:\n    timeout: 30\n", 7, 5, "duration"),
            ("spec:\n  limits:\n    timeout: -3s\n", 7, 14, "negative"),
            ("spec:\n  limits:\n    budgetUsd: 0.5\n", 7, 5, "dollars"),
            ("spec:\n  priority: 11\n", 6, 13, "priority"),
            ("spec:\n  desiredState: run\n", 6, 17, "Suspended"),
            ("spec:\n  dependsOn: x\n", 6, 14, "a list"),
            ("spec:\n  environment:\n    A: 1\n", 7, 8, "quoted"),
            ("spec:\n  prompt: [\n", 6, 11, "bracket"),
            ("spec:\n  prompt: a\n  prompt: b\n", 7, 3, "twice"),
            (
                "spec:\n  limits:\n    maxTurns: 99999999999\n",
                7,
                15,
                "spec.limits.maxTurns: must be an integer",
            ),
            ("spec:\n  retry: {maxAttempts: -99999999999}\n", 6, 24, "spec.retry.maxAttempts: "),
            ("spec:\n  dependsOn: [{task: a}, {task: [b]}]\n", 6, 33, "spec.dependsOn[1].task: "),
        ] {
            let error = error(&format!("{TASK}{spec}"));
            assert_eq!((error.position.line, error.position.column), (line, column), "{spec}{error}");
            assert!(error.message.contains(word), "{spec}{error}");
            assert!(error.to_string().starts_with(&format!("f.yaml:{line}:{column}: ")), "{error}");
        }
    }

    #[test]
    fn positions_are_relative_to_the_file() {
        let text = format!("{TASK}spec: {{}}\n---\n{TASK}spec:\n  nope: 1\n---\n{TASK}spec:\n  nope: 1\n");
        let lines: Vec<_> = parse("f", &text).unwrap_err().iter().map(|e| e.position.line).collect();
        assert_eq!(lines, [12, 19]);
    }

    #[test]
    fn incomplete_heads_are_rejected() {
        for (text, word) in [
            ("kind: Task\n", "apiVersion is missing"),
            ("apiVersion: rota.dev/v1alpha1\n", "kind is missing"),
            ("apiVersion: v1\nkind: Pod\n", "unknown apiVersion \"v1\""),
            ("apiVersion: rota.dev/v1alpha1\nkind: Pod\n", "unknown kind \"Pod\""),
            ("- a\n", ""),
            ("hello\n", ""),
        ] {
            let error = error(text);
            assert!(error.message.contains(word), "{text}{error}");
            assert_eq!(error.position.line, 1, "{error}");
        }
    }
}
