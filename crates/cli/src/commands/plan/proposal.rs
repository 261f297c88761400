//! What a planning agent proposes: its schema, and what is checked besides it. Must not trust any of its texts.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::output::is_hidden;

/// Most bytes of a description of a subtask.
const MAX_DESCRIPTION: usize = 8 << 10;
/// Most bytes of the descriptions of a plan.
const MAX_DESCRIPTIONS: usize = 256 << 10;
const MAX_NAME: usize = 40;
const MAX_CAPABILITIES: usize = 32;
/// Beginnings of expressions that a description may have, which stay text.
const MAX_EXPRESSIONS: usize = 64;
const MAX_MINUTES: f64 = 10_080.0;
/// Problems that are reported of one plan.
const MAX_PROBLEMS: usize = 20;
/// Least budget of a subtask, in millionths of a US dollar.
pub(super) const MIN_SHARE: i64 = 10_000;

/// A plan as its agent returns it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Proposal {
    pub(super) subtasks: Vec<Subtask>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Subtask {
    pub(super) name: String,
    pub(super) description: String,
    #[serde(default)]
    pub(super) capabilities: Vec<String>,
    #[serde(default)]
    pub(super) depends_on: Vec<String>,
    #[serde(default)]
    pub(super) priority: Option<f64>,
    #[serde(default)]
    pub(super) estimated_minutes: Option<f64>,
}

/// An agent that may do a subtask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) capabilities: BTreeSet<String>,
}

/// What a plan must keep to.
#[derive(Debug)]
pub(super) struct Bounds<'a> {
    pub(super) team: &'a [Member],
    pub(super) max_subtasks: usize,
    /// Budget of all subtasks, in millionths of a US dollar.
    pub(super) budget: Option<i64>,
}

/// Returns the JSON Schema of a plan.
pub(super) fn schema(max_subtasks: usize) -> Value {
    let list = |max: usize| json!({"type": "array", "items": {"type": "string"}, "maxItems": max});
    json!({
        "type": "object",
        "properties": {"subtasks": {"type": "array", "minItems": 1, "maxItems": max_subtasks, "items": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "pattern": format!("^[a-z][a-z0-9_]{{0,{}}}$", MAX_NAME - 1)},
                "description": {"type": "string", "minLength": 1, "maxLength": MAX_DESCRIPTION},
                "capabilities": list(MAX_CAPABILITIES),
                "dependsOn": list(max_subtasks),
                "priority": {"type": "integer", "minimum": 0, "maximum": 10},
                "estimatedMinutes": {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_MINUTES},
            },
            "required": ["name", "description"],
            "additionalProperties": false,
        }}},
        "required": ["subtasks"],
        "additionalProperties": false,
    })
}

/// Returns the plan in the data of a result, or what is wrong with it. That its dependencies form no cycle is left to the control
/// plane, which checks workflows.
pub(super) fn read(data: &Value, bounds: &Bounds<'_>) -> Result<Proposal, Vec<String>> {
    let proposal = Proposal::deserialize(data).map_err(|error| vec![shown(&error.to_string())])?;
    let mut problems = problems(&proposal, bounds);
    match problems.is_empty() {
        true => Ok(proposal),
        false => {
            problems.truncate(MAX_PROBLEMS);
            Err(problems)
        }
    }
}

fn problems(proposal: &Proposal, bounds: &Bounds<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let count = proposal.subtasks.len();
    if count == 0 {
        found.push("there are no subtasks".to_owned());
    }
    if count > bounds.max_subtasks {
        found.push(format!("there are {count} subtasks; at most {} are allowed", bounds.max_subtasks));
    }
    let bytes: usize = proposal.subtasks.iter().map(|subtask| subtask.description.len()).sum();
    if bytes > MAX_DESCRIPTIONS {
        found.push(format!("the descriptions have {bytes} bytes; at most {MAX_DESCRIPTIONS} are allowed"));
    }
    if let Some(budget) = bounds.budget
        && let Some(share) = budget.checked_div(i64::try_from(count).unwrap_or(i64::MAX))
        && share < MIN_SHARE
    {
        let most = budget / MIN_SHARE;
        found.push(format!(
            "the budget leaves less than a cent for each of {count} subtasks; at most {most} are possible"
        ));
    }
    let all: BTreeSet<_> = proposal.subtasks.iter().map(|subtask| &subtask.name).collect();
    let mut names = BTreeSet::new();
    for (index, subtask) in proposal.subtasks.iter().enumerate() {
        if !names.insert(&subtask.name) {
            found.push(format!("subtask {index}: the name {} is used twice", shown(&subtask.name)));
        }
        if subtask.depends_on.len() > bounds.max_subtasks {
            found.push(format!("subtask {index}: depends on more subtasks than there may be"));
        } else if let Some(other) = subtask.depends_on.iter().find(|other| !all.contains(other)) {
            found.push(format!("subtask {index}: depends on {}, which is not a subtask", shown(other)));
        }
        found.extend(wrong(subtask, bounds.team).into_iter().map(|why| format!("subtask {index}: {why}")));
        if found.len() > MAX_PROBLEMS {
            break;
        }
    }
    found
}

/// Returns what is wrong with one subtask.
fn wrong(subtask: &Subtask, team: &[Member]) -> Vec<String> {
    let mut found = Vec::new();
    let Subtask { name, description, capabilities, depends_on: _, priority, estimated_minutes } = subtask;
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if !begins || name.len() > MAX_NAME || !name.bytes().all(inner) {
        let why = "is not a name: use up to 40 lower-case letters, digits and '_', beginning with a letter";
        found.push(format!("{} {why}", shown(name)));
    }
    if description.trim().is_empty() {
        found.push("the description is empty".to_owned());
    }
    if description.len() > MAX_DESCRIPTION {
        let bytes = description.len();
        found.push(format!("the description has {bytes} bytes; at most {MAX_DESCRIPTION} are allowed"));
    }
    if let Some(bad) = description.chars().find(|c| is_hidden(*c) && !matches!(c, '\n' | '\t')) {
        found.push(format!("the description has the control character {}", bad.escape_unicode()));
    }
    if description.matches("${{").count() > MAX_EXPRESSIONS {
        found.push(format!("the description has more than {MAX_EXPRESSIONS} of `${{{{`"));
    }
    if priority.is_some_and(|priority| !(0.0..=10.0).contains(&priority) || priority.fract() != 0.0) {
        found.push("the priority is not a whole number from 0 to 10".to_owned());
    }
    if estimated_minutes.is_some_and(|minutes| !(minutes > 0.0 && minutes <= MAX_MINUTES)) {
        found.push(format!("the estimate is not between 0 and {MAX_MINUTES} minutes"));
    }
    let wanted: BTreeSet<_> = capabilities.iter().cloned().collect();
    if wanted.len() > MAX_CAPABILITIES {
        found.push(format!("more than {MAX_CAPABILITIES} capabilities are required"));
    } else if !wanted.is_empty() && !team.iter().any(|member| wanted.is_subset(&member.capabilities)) {
        let wanted: Vec<_> = wanted.iter().map(|word| shown(word)).collect();
        found.push(format!("no agent has all of the capabilities {}", wanted.join(", ")));
    }
    found
}

/// Returns the beginning of a text of an agent, with escapes for what a terminal would act on.
fn shown(text: &str) -> String {
    let beginning: String = text.chars().take(80).collect();
    beginning
        .chars()
        .flat_map(|c| if is_hidden(c) { c.escape_unicode().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn team() -> Vec<Member> {
        let of = |name: &str, words: &[&str]| Member {
            name: name.to_owned(),
            capabilities: words.iter().map(ToString::to_string).collect(),
        };
        vec![of("coder", &["code", "test"]), of("writer", &["docs"])]
    }

    fn check(data: &Value) -> Result<Proposal, Vec<String>> {
        read(data, &Bounds { team: &team(), max_subtasks: 3, budget: Some(50_000) })
    }

    #[test]
    fn good_plans_are_read() {
        let plan = json!({"subtasks": [
            {"name": "build", "description": "Build\n\tit", "capabilities": ["test", "code"], "priority": 10, "estimatedMinutes": 0.5},
            {"name": "describe", "description": "Print ${{ inputs }}", "dependsOn": ["build"]},
        ]});
        let read = check(&plan).unwrap();
        assert_eq!(read.subtasks[1].depends_on, ["build"]);
        let schema = schema(3);
        assert_eq!(
            schema["properties"]["subtasks"]["items"]["properties"]["name"]["pattern"],
            "^[a-z][a-z0-9_]{0,39}$"
        );
    }

    #[test]
    fn problems_are_named() {
        let one = |field: &str, value: Value| {
            let mut subtask = json!({"name": "a", "description": "b"});
            subtask[field] = value;
            json!({"subtasks": [subtask]})
        };
        let many: Vec<_> = (0..6).map(|n| json!({"name": format!("n{n}"), "description": "b"})).collect();
        for (plan, problem) in [
            (json!(null), "invalid type"),
            (json!({"subtasks": "all"}), "invalid type"),
            (json!({"subtasks": []}), "no subtasks"),
            (json!({"subtasks": [{"name": "a"}]}), "missing field `description`"),
            (one("more", json!(1)), "unknown field"),
            (one("name", json!("Not a name")), "is not a name"),
            (one("name", json!("a-b")), "is not a name"),
            (one("name", json!("\u{1b}[2J")), "\\u{1b}[2J is not a name"),
            (one("description", json!(" \n")), "is empty"),
            (one("description", json!("a\u{1b}[2J")), "control character \\u{1b}"),
            (one("description", json!("a\u{202e}b")), "control character \\u{202e}"),
            (one("description", json!("a".repeat(9_000))), "9000 bytes"),
            (one("description", json!("${{ ".repeat(65))), "more than 64"),
            (one("priority", json!(11)), "priority"),
            (one("priority", json!(1.5)), "priority"),
            (one("estimatedMinutes", json!(-1)), "estimate"),
            (one("estimatedMinutes", json!(1e300)), "estimate"),
            (one("capabilities", json!(["code", "docs"])), "no agent has all of the capabilities code, docs"),
            (json!({"subtasks": many}), "6 subtasks; at most 3"),
            (json!({"subtasks": many}), "less than a cent for each of 6 subtasks; at most 5"),
            (
                one("dependsOn", json!(["x }} ${{ inputs"])),
                "depends on x }} ${{ inputs, which is not a subtask",
            ),
            (one("dependsOn", json!(["a", "a", "a", "a"])), "more subtasks than there may be"),
            (json!({"subtasks": [many[0], many[0]]}), "n0 is used twice"),
        ] {
            let problems = check(&plan).unwrap_err();
            assert!(problems.iter().any(|found| found.contains(problem)), "{problem}: {problems:?}");
        }
    }

    #[test]
    fn huge_plans_are_reported_briefly() {
        let huge: Vec<_> =
            (0..100_000).map(|n| json!({"name": format!("N{n}"), "description": "x".repeat(20)})).collect();
        let problems = check(&json!({"subtasks": huge})).unwrap_err();
        assert!(problems.len() <= MAX_PROBLEMS && problems.iter().all(|one| one.len() < 300), "{problems:?}");
    }
}
