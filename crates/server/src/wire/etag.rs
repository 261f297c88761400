//! Etags: opaque revisions of records. A caller sends the one that it has read back, so that a change undoes no other.

use rota_core::agent::Agent;
use rota_store::{Document, Expected};
use tonic::Status;

use super::status::hinted;

/// Etag that stands for every record.
const ANY: &str = "*";

pub(crate) fn of_document(document: &Document) -> String {
    format!("{}-{}", document.uid.as_simple(), document.version)
}

/// Returns the etag of an agent, whose status has none.
pub(crate) fn of_agent(agent: &Agent) -> String {
    format!("{:x}-{}", agent.created_at.0, agent.generation)
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
    Err(hinted("ETAG_MISMATCH", format!("the record {what}"), "read it, then repeat the change"))
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
