//! The page of failures: classes, what is done about each, how bad each usually is. The sentences are
//! the protos', the rules are the core's; both must name the same classes.

use anyhow::{Context, ensure};
use rota_core::failure::{Class, Failure, Recovery, Severity};
use serde::Serialize;

use super::MARK;
use super::table::table;
use crate::protos::{Enum, File};

const RECOVERIES: [(Recovery, &str, &str); 3] = [
    (
        Recovery::Retry,
        "retry",
        "it is tried again after a growing wait, as often as the task's retry policy says",
    ),
    (
        Recovery::Wait,
        "wait",
        "it is tried again when told or after a growing wait, and no attempt of the policy is spent",
    ),
    (Recovery::Stop, "stop", "the task fails: trying again is useless"),
];

/// The page.
pub(super) fn page(files: &[File]) -> anyhow::Result<String> {
    let classes = find(files, "FailureClass")?;
    let severities = find(files, "Severity")?;
    ensure!(classes.values.len() == Class::ALL.len() + 1, "the protos and the core have different classes");

    let mut rows = Vec::new();
    for class in Class::ALL {
        let name = word(&class)?;
        let severity = word(&Failure::new(class, "").severity)?;
        let recovery =
            RECOVERIES.iter().find(|(one, ..)| *one == class.recovery()).context("an unknown recovery")?.1;
        let meaning = meaning(classes, "FAILURE_CLASS", &name)?;
        rows.push(vec![format!("`{name}`"), meaning, recovery.to_owned(), severity]);
    }
    let mut text = format!(
        "{MARK}\n\n# Failures\n\nEach failed attempt has a class, which says what is done about it, and a severity.\n\n{}\n",
        table(&["Class", "Meaning", "Recovery", "Usual severity"], &rows)
    );
    text += "Recoveries:\n\n";
    for (_, name, meaning) in RECOVERIES {
        text += &format!("- **{name}**: {meaning}\n");
    }
    text += "\nSeverities:\n\n";
    for severity in [Severity::Low, Severity::Medium, Severity::High, Severity::Critical] {
        let name = word(&severity)?;
        text += &format!("- **{name}**: {}\n", meaning(severities, "SEVERITY", &name)?);
    }
    Ok(text)
}

fn find<'a>(files: &'a [File], name: &str) -> anyhow::Result<&'a Enum> {
    files
        .iter()
        .flat_map(|file| &file.enums)
        .find(|one| one.name == name)
        .with_context(|| format!("no enum {name}"))
}

/// A variant as it is stored and shown.
fn word(variant: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::from_value(serde_json::to_value(variant)?)?)
}

fn meaning(one: &Enum, prefix: &str, word: &str) -> anyhow::Result<String> {
    let value = format!("{prefix}_{}", word.to_uppercase());
    let (.., comment) = one
        .values
        .iter()
        .find(|(name, ..)| *name == value)
        .with_context(|| format!("the protos have no {value}"))?;
    Ok(comment.clone())
}
