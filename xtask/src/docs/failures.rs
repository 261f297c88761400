//! Page of failures: classes of failed attempts with their recovery and usual severity. Descriptions come from the protos, rules
//! from the core; both must have the same classes.

use anyhow::{Context, ensure};
use prost_reflect::{DescriptorPool, EnumDescriptor};
use rota_core::failure::{Class, Failure, Recovery, Severity};
use serde::Serialize;

use super::MARK;
use super::table::table;
use crate::protos::comment;

const RECOVERIES: [(Recovery, &str, &str); 5] = [
    (Recovery::Retry, "retry", "a new attempt after a backoff, as often as the task's retry policy allows"),
    (
        Recovery::Wait,
        "wait",
        "a new attempt at the time that the failure names or after a backoff, not counted by the retry policy",
    ),
    (
        Recovery::Credentials,
        "wait for credentials",
        "as for *wait*, until the agent's credentials are replaced; stop, if the task brought its own",
    ),
    (Recovery::Elsewhere, "retry once", "one new attempt, on another worker if there is one"),
    (Recovery::Stop, "stop", "the task fails, since a new attempt would fail too"),
];

pub(super) fn page(pool: &DescriptorPool) -> anyhow::Result<String> {
    let classes = find(pool, "rota.v1.FailureClass")?;
    let severities = find(pool, "rota.v1.Severity")?;
    ensure!(classes.values().len() == Class::ALL.len() + 1, "the protos and the core have different classes");

    let mut rows = Vec::new();
    for class in Class::ALL {
        let name = word(&class)?;
        let severity = word(&Failure::new(class, "").severity)?;
        let recovery =
            RECOVERIES.iter().find(|(one, ..)| *one == class.recovery()).context("an unknown recovery")?.1;
        let meaning = meaning(&classes, "FAILURE_CLASS", &name)?;
        rows.push(vec![format!("`{name}`"), meaning, recovery.to_owned(), severity]);
    }
    let mut text = format!(
        "{MARK}\n\n# Failures\n\nEach failed attempt has a class, which decides how it is handled, and a severity.\n\n{}\n",
        table(&["Class", "Meaning", "Recovery", "Usual severity"], &rows)
    );
    text += "Recoveries:\n\n";
    for (_, name, meaning) in RECOVERIES {
        text += &format!("- **{name}**: {meaning}\n");
    }
    text += "\nSeverities:\n\n";
    for severity in [Severity::Low, Severity::Medium, Severity::High, Severity::Critical] {
        let name = word(&severity)?;
        text += &format!("- **{name}**: {}\n", meaning(&severities, "SEVERITY", &name)?);
    }
    Ok(text)
}

fn find(pool: &DescriptorPool, name: &str) -> anyhow::Result<EnumDescriptor> {
    pool.get_enum_by_name(name).with_context(|| format!("the protos have no enum {name}"))
}

/// Serialized name of a variant.
fn word(variant: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::from_value(serde_json::to_value(variant)?)?)
}

fn meaning(one: &EnumDescriptor, prefix: &str, word: &str) -> anyhow::Result<String> {
    let name = format!("{prefix}_{}", word.to_uppercase());
    let value = one.values().find(|value| value.name() == name);
    let value = value.with_context(|| format!("the protos have no {name}"))?;
    Ok(comment(&one.parent_file(), value.path()))
}
