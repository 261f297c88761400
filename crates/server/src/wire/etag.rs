//! Etags: opaque revisions of records. A caller sends the one that it has read back, so that a change undoes no other.

use std::hash::{DefaultHasher, Hash, Hasher};

use rota_core::agent::Agent;
use rota_core::spending::{Budget, WhenExhausted};
use rota_core::task::Task;
use rota_store::{Document, Expected};
use tonic::Status;

use super::status::etag_mismatch;

/// Etag that stands for every record.
const ANY: &str = "*";

pub(crate) fn of_document(document: &Document) -> String {
    format!("{}-{}", document.uid.as_simple(), document.version)
}

/// Returns the etag of an agent, whose status has none.
pub(crate) fn of_agent(agent: &Agent) -> String {
    format!("{:x}-{}", agent.created_at.0, agent.generation)
}

/// Returns the etag of what callers change of a task: its state has none, and changes while they look.
pub(crate) fn of_task(task: &Task) -> String {
    let mut hasher = DefaultHasher::new();
    (task.priority.get(), task.desired, &task.labels).hash(&mut hasher);
    format!("{:x}-{:x}", task.key.0, hasher.finish())
}

/// Returns the etag of a namespace's budget. It has the budget itself, which the store compares: nothing else knows the current one.
pub(crate) fn of_budget(budget: &Budget) -> String {
    let refuses = u8::from(budget.when_exhausted == WhenExhausted::Refuse);
    format!("{:x}-{:x}-{refuses}", budget.daily.unwrap_or_default(), budget.monthly.unwrap_or_default())
}

/// Whether an etag of a request stands for one state of a record.
pub(crate) fn is_specific(given: &str) -> bool {
    !given.is_empty() && given != ANY
}

/// Returns the budget that a change with an etag depends on.
pub(crate) fn expected_budget(given: &str) -> Result<Option<Budget>, Status> {
    if !is_specific(given) {
        return Ok(None);
    }
    let parts: Result<Vec<_>, _> = given.split('-').map(|part| i64::from_str_radix(part, 16)).collect();
    let limit = |micro_usd: i64| Some(micro_usd).filter(|limit| *limit != 0);
    match parts.as_deref() {
        Ok(&[daily, monthly, refuses @ 0..=1]) => {
            let when_exhausted = if refuses == 1 { WhenExhausted::Refuse } else { WhenExhausted::Queue };
            Ok(Some(Budget { daily: limit(daily), monthly: limit(monthly), when_exhausted }))
        }
        _ => Err(etag_mismatch("the budget has changed since it was read".to_owned())),
    }
}

/// Refuses a change of a record that is not as its caller has read it. Without an etag, nothing is checked.
pub(crate) fn check(given: &str, current: Option<&str>) -> Result<(), Status> {
    let is_current = match current {
        Some(current) => given.is_empty() || given == ANY || given == current,
        None => given.is_empty(),
    };
    if is_current {
        return Ok(());
    }
    let what = if current.is_some() { "has changed since it was read" } else { "does not exist" };
    Err(etag_mismatch(format!("the record {what}")))
}

/// Returns the state of a document that a change with an etag depends on, inside its commit.
pub(crate) fn expected(given: &str, current: Option<&Document>) -> Result<Expected, Status> {
    check(given, current.map(of_document).as_deref())?;
    Ok(current.filter(|_| !given.is_empty()).map_or(Expected::Any, Document::expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_of_budgets_name_them() {
        for (daily, monthly, when_exhausted) in [
            (None, None, WhenExhausted::Queue),
            (Some(5), None, WhenExhausted::Refuse),
            (Some(i64::MAX), Some(300), WhenExhausted::Queue),
        ] {
            let budget = Budget { daily, monthly, when_exhausted };
            assert_eq!(expected_budget(&of_budget(&budget)).unwrap(), Some(budget));
        }
        assert_eq!((expected_budget("").unwrap(), expected_budget("*").unwrap()), (None, None));
        for other in ["5", "5-5", "5-5-2", "5-5-0-0", "x-5-0", "--0"] {
            assert!(expected_budget(other).is_err(), "{other:?}");
        }
    }

    #[test]
    fn changes_need_the_etag_that_was_read() {
        for (given, current, is_permitted) in [
            ("", None, true),
            ("", Some("a-1"), true),
            ("a-1", Some("a-1"), true),
            ("*", Some("a-1"), true),
            ("a-1", Some("a-2"), false),
            ("a-1", None, false),
            ("*", None, false),
        ] {
            assert_eq!(check(given, current).is_ok(), is_permitted, "{given:?} {current:?}");
        }
    }
}
