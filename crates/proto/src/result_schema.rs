//! Failures of attempts whose result has other data than its task asks for: the same of workers and control planes.

use crate::limits::usual_severity;
use crate::v1::{Failure, FailureClass};

/// Characters of the data that a message quotes.
const MAX_QUOTE: usize = 300;
const HINT: &str =
    "ask the agent for this data in the prompt; programs write it as `data` to $ROTA_OUTPUT/result.json";

/// Returns the failure of an attempt whose data does not fit.
pub fn mismatch(why: &str) -> Failure {
    let why: String = why.chars().take(MAX_QUOTE).collect();
    let message = format!("the data of the result does not fit its schema: {why}");
    Failure { hint: HINT.to_owned(), ..failure(FailureClass::Agent, message) }
}

/// Returns the failure of an attempt whose task has a schema that cannot be used.
pub fn unusable(why: &str) -> Failure {
    failure(FailureClass::Invalid, format!("the result schema: {why}"))
}

fn failure(class: FailureClass, message: String) -> Failure {
    let severity = usual_severity(class).into();
    Failure { class: class.into(), severity, message, ..Failure::default() }
}
