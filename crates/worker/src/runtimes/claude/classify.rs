//! Judges how a run ended: its result, or which kind of failure it was. Pure; it sees the last result
//! line, the failed model calls, the exit and the last of stderr, and never the exit code alone.

use rota_proto::v1::{Failure, FailureClass, Severity, TaskResult};
use serde_json::Value;

use super::lines::Finished;
use super::options::{bypass_as_root, invalid};
use super::record::Record;
use super::text;
use crate::supervise::{Error, Exit};

const INSTALL: &str = "install Claude Code (for example `npm install -g @anthropic-ai/claude-code`), or name its path in the agent's `program`";
const KEY: &str = "set ANTHROPIC_API_KEY (or ANTHROPIC_AUTH_TOKEN) in the agent's environment or secrets, and see that it is valid for ANTHROPIC_BASE_URL";
const REACH: &str = "see that the worker reaches the model's API (ANTHROPIC_BASE_URL, proxy, firewall)";

/// What there is to judge by.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    pub(super) record: &'a Record,
    pub(super) exit: Exit,
    /// The last of what it printed there.
    pub(super) stderr: &'a str,
    /// The task wanted structured output.
    pub(super) schema: bool,
}

/// Whether the session that was to go on does not exist (any more).
pub(super) fn lost_session(record: &Record, stderr: &str) -> bool {
    const WORDS: &str = "No conversation found";
    let errors = record.result.iter().flat_map(|result| &result.errors);
    errors.map(String::as_str).chain([stderr]).any(|text| text.contains(WORDS))
}

/// The result, or why there is none. The session is the caller's to add.
pub(super) fn judge(evidence: &Evidence<'_>) -> Result<TaskResult, Failure> {
    let mut verdict = match &evidence.record.result {
        Some(result) if result.subtype == "success" && !result.is_error => success(evidence, result),
        Some(result) => Err(failed(evidence, result)),
        None => Err(silent(evidence)),
    };
    if let Err(failure) = &mut verdict {
        failure.exit_code = evidence.exit.code;
        failure.signal = evidence.exit.signal;
    }
    verdict
}

fn success(evidence: &Evidence<'_>, result: &Finished) -> Result<TaskResult, Failure> {
    let data = result.structured_output.as_ref().filter(|value| !value.is_null());
    if evidence.schema && data.is_none() {
        let message = "the agent ended without the structured output that the task asks for";
        return Err(failure(
            FailureClass::Agent,
            message,
            "ask for it in the prompt, or make the schema simpler",
        ));
    }
    let said = result.result.as_deref().filter(|text| !text.is_empty());
    let said = said.unwrap_or(&evidence.record.last_words);
    let words =
        if said.is_empty() { data.map(Value::to_string).unwrap_or_default() } else { said.to_owned() };
    Ok(TaskResult {
        text: words,
        data: data.and_then(text::to_struct),
        files: evidence.record.files.iter().cloned().collect(),
        exit_code: evidence.exit.code,
        ..TaskResult::default()
    })
}

/// There is a result line, and it is a bad one.
fn failed(evidence: &Evidence<'_>, result: &Finished) -> Failure {
    let message = said(evidence, result);
    let ended = result.terminal_reason.as_deref().unwrap_or_default();
    match result.subtype.as_str() {
        "error_max_turns" => {
            return failure(
                FailureClass::Budget,
                &or(&message, "the turns ran out"),
                "raise limits.maxTurns",
            );
        }
        "error_max_budget_usd" => {
            let hint = "raise limits.budgetUsd";
            return failure(FailureClass::Budget, &or(&message, "the budget ran out"), hint);
        }
        "error_max_structured_output_retries" => return failure(FailureClass::Agent, &message, ""),
        _ => {}
    }
    match result.startup_failure_reason.as_deref() {
        Some("bypass_root") => return bypass_as_root(),
        Some(_) => return failure(FailureClass::Start, &message, ""),
        None => {}
    }
    if evidence.record.refused {
        return failure(
            FailureClass::Refusal,
            &or(&message, "the model refused the task"),
            "word the task otherwise",
        );
    }
    let error = evidence.record.api_error.as_ref();
    let status = result.api_error_status.or(error.and_then(|error| error.status));
    let word = error.map_or("", |error| error.word.as_str());
    if ended == "api_error" || status.is_some() || result.api_error.is_some() {
        return model(evidence, status, word, &message);
    }
    match ended {
        "prompt_too_long" | "image_error" => invalid(&message, "shorten the task's input"),
        // Nobody here interrupted it, or this would not be asked.
        "aborted_tools" | "aborted_streaming" => {
            failure(FailureClass::Crash, &or(&message, "something interrupted the agent"), "")
        }
        _ => failure(FailureClass::Agent, &or(&message, "the agent failed without saying why"), ""),
    }
}

/// A model call failed for good.
fn model(evidence: &Evidence<'_>, status: Option<u16>, word: &str, message: &str) -> Failure {
    let (class, hint) = match (status, word) {
        (_, "billing_error") => (FailureClass::Auth, "add credit to the account of the key"),
        (Some(401 | 403), _) | (_, "authentication_failed" | "oauth_org_not_allowed") => {
            (FailureClass::Auth, KEY)
        }
        (Some(429), _) | (None, "rate_limit") => (FailureClass::RateLimit, ""),
        (Some(404), _) | (None, "model_not_found") => {
            (FailureClass::Invalid, "choose another model, or see that ANTHROPIC_BASE_URL is right")
        }
        (Some(408 | 500..), _) => (FailureClass::Overload, ""),
        (Some(_), _) | (None, "invalid_request") => (FailureClass::Invalid, ""),
        (None, _) => (FailureClass::Overload, REACH),
    };
    let mut failure = failure(class, &or(message, "a call of the model failed"), hint);
    if class == FailureClass::RateLimit {
        failure.retry_after = told_delay(evidence.record);
    }
    failure
}

/// The wait that the API told at last, as far as the CLI lets it be seen.
fn told_delay(record: &Record) -> Option<pbjson_types::Duration> {
    let retry = record.retry.as_ref().filter(|retry| retry.error_status == Some(429))?;
    let delay = std::time::Duration::try_from_secs_f64(retry.retry_delay_ms / 1000.0).ok()?;
    Some(delay.into())
}

/// There is no result line.
fn silent(evidence: &Evidence<'_>) -> Failure {
    let stderr = evidence.stderr.trim();
    let tail = if stderr.is_empty() { String::new() } else { format!(": {stderr}") };
    let Exit { code, signal, .. } = evidence.exit;
    if stderr.contains("Invalid MCP configuration") {
        return invalid(stderr, "see the agent's mcp_servers");
    }
    if stderr.contains("cannot be used with root") {
        return bypass_as_root();
    }
    // A signal's number behind 128 is how the CLI says that it got one.
    let by_signal =
        signal.or(code.filter(|code| matches!(code, 129 | 130 | 137 | 143)).map(|code| code - 128));
    if let Some(signal) = by_signal {
        let message = format!("Claude Code was ended by signal {signal}{tail}");
        return failure(FailureClass::Crash, &message, "");
    }
    if evidence.record.unreadable > 0 || stderr.contains("Error parsing streaming input line") {
        let message = format!(
            "Claude Code printed {} lines that cannot be read, and no result{tail}",
            evidence.record.unreadable
        );
        return failure(FailureClass::Protocol, &message, "");
    }
    if evidence.record.lines == 0 {
        let message = format!("Claude Code did not start{tail}");
        let hint =
            if stderr.contains("unknown option") { "its version may not fit this worker" } else { INSTALL };
        return failure(FailureClass::Start, &message, hint);
    }
    if code == Some(0) {
        return failure(FailureClass::Protocol, &format!("Claude Code ended without a result{tail}"), "");
    }
    failure(FailureClass::Crash, &format!("Claude Code ended without a result{tail}"), "")
}

/// The program could not be started, or was lost.
pub(super) fn lost(error: &Error) -> Failure {
    match error {
        Error::Start { source, .. } => {
            // A missing directory has the kind, and not the number.
            let missing = source.raw_os_error() == Some(nix::errno::Errno::ENOENT as i32);
            let hint = if missing { INSTALL } else { "" };
            let mut failure = failure(FailureClass::Start, &error.to_string(), hint);
            failure.severity = Severity::Critical.into();
            failure
        }
        Error::Lost(_) => failure(FailureClass::Crash, &error.to_string(), ""),
    }
}

fn said(evidence: &Evidence<'_>, result: &Finished) -> String {
    let text = result.result.clone().filter(|text| !text.is_empty());
    let errors = Some(result.errors.join("; ")).filter(|text| !text.is_empty());
    let api = evidence.record.api_error.as_ref().map(|error| error.text.clone());
    text.or(errors).or(api).unwrap_or_default()
}

fn or(text: &str, otherwise: &str) -> String {
    if text.is_empty() { otherwise.to_owned() } else { text.to_owned() }
}

pub(super) fn failure(class: FailureClass, message: &str, hint: &str) -> Failure {
    Failure { hint: hint.to_owned(), ..crate::runtimes::failure(class, message) }
}

#[cfg(test)]
#[path = "classify_tests.rs"]
mod tests;
