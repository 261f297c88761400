//! Classifies how a run ended: its result, or the class of its failure. Pure. Uses the last result line, failed
//! model calls, the exit status and the tail of standard error; never the exit code alone.

use rota_proto::claude::Provider;
use rota_proto::times::MAX_RESET;
use rota_proto::v1::{Failure, FailureClass, ReachedLimit, Severity, TaskResult};
use serde_json::Value;

use super::lines::Finished;
use super::options::{bypass_as_root, invalid};
use super::record::Record;
use crate::runtimes::structs;
use crate::supervise::{Error, Exit};

const INSTALL_HINT: &str = "install Claude Code (for example `npm install -g @anthropic-ai/claude-code`), or name its path in the agent's `program`";
const CONNECTIVITY_HINT: &str =
    "check that the worker can reach the model's API (ANTHROPIC_BASE_URL, proxy, firewall)";

fn key_hint(provider: Provider) -> String {
    format!(
        "set {} in the agent's environment or secrets, and check that it is valid for {}",
        provider.credentials(),
        provider.name()
    )
}

#[derive(Debug)]
pub(super) struct Evidence<'a> {
    pub(super) record: &'a Record,
    pub(super) exit: Exit,
    pub(super) stderr: &'a str,
    /// Whether the task requires structured output.
    pub(super) schema: bool,
    /// Whether an attempt in which tools were denied fails.
    pub(super) fail_on_denied: bool,
    pub(super) provider: Provider,
    /// Unix time of the end, in seconds.
    pub(super) now: f64,
}

/// Whether the session to resume does not exist.
pub(super) fn is_session_lost(record: &Record, stderr: &str) -> bool {
    const MARKER: &str = "No conversation found";
    let errors = record.result.iter().flat_map(|result| &result.errors);
    errors.map(String::as_str).chain([stderr]).any(|text| text.contains(MARKER))
}

/// Returns the result or the failure. The caller adds the session.
pub(super) fn classify(evidence: &Evidence<'_>) -> Result<TaskResult, Failure> {
    let mut outcome = match &evidence.record.result {
        Some(result) if result.subtype == "success" && !result.is_error => success(evidence, result),
        Some(result) => Err(failed_result(evidence, result)),
        None => Err(no_result(evidence)),
    };
    if let Err(failure) = &mut outcome {
        failure.exit_code = evidence.exit.code;
        failure.signal = evidence.exit.signal;
    }
    outcome
}

fn success(evidence: &Evidence<'_>, result: &Finished) -> Result<TaskResult, Failure> {
    let data = result.structured_output.as_ref().filter(|value| !value.is_null());
    if evidence.schema && data.is_none() {
        let message = "the agent ended without the structured output that the task requires";
        return Err(failure(
            FailureClass::Agent,
            message,
            "request it in the prompt, or simplify the schema",
        ));
    }
    if let Some(tools) = evidence.record.denied_tools().filter(|_| evidence.fail_on_denied) {
        let message = format!("the agent finished, and tools that it called were denied: {tools}");
        let hint = "allow them with `allowedTools` or `permissionPolicy`, or remove `failOnDeniedTools`";
        return Err(failure(FailureClass::Agent, &message, hint));
    }
    let text = result.result.as_deref().filter(|text| !text.is_empty());
    let text = text.unwrap_or(&evidence.record.last_message);
    let text = if text.is_empty() { data.map(Value::to_string).unwrap_or_default() } else { text.to_owned() };
    Ok(TaskResult {
        text,
        data: data.cloned().and_then(structs::from_json),
        files: evidence.record.files.iter().cloned().collect(),
        exit_code: evidence.exit.code,
        ..TaskResult::default()
    })
}

/// Classifies a result line that reports an error.
fn failed_result(evidence: &Evidence<'_>, result: &Finished) -> Failure {
    let message = failure_text(evidence, result);
    let ended = result.terminal_reason.as_deref().unwrap_or_default();
    match result.subtype.as_str() {
        "error_max_turns" => {
            return failure(
                FailureClass::Budget,
                &non_empty_or(&message, "turn limit reached"),
                "raise limits.maxTurns",
            );
        }
        "error_max_budget_usd" => {
            let hint = "raise limits.budgetUsd";
            return failure(FailureClass::Budget, &non_empty_or(&message, "budget exhausted"), hint);
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
            &non_empty_or(&message, "the model refused the task"),
            "rephrase the task",
        );
    }
    let error = evidence.record.api_error.as_ref();
    let status = result.api_error_status.or(error.and_then(|error| error.status));
    let code = error.map_or("", |error| error.code.as_str());
    if ended == "api_error" || status.is_some() || result.api_error.is_some() {
        return model_call_failure(evidence, status, code, &message);
    }
    match ended {
        "prompt_too_long" | "image_error" => invalid(&message, "shorten the task's input"),
        // Not interrupted by the worker, whose stops are not classified.
        "aborted_tools" | "aborted_streaming" => failure(
            FailureClass::Crash,
            &non_empty_or(&message, "the agent was interrupted by something other than the worker"),
            "",
        ),
        _ => failure(FailureClass::Agent, &non_empty_or(&message, "the agent failed without a message"), ""),
    }
}

/// Classifies a failed model call that the CLI does not retry.
fn model_call_failure(evidence: &Evidence<'_>, status: Option<u16>, code: &str, message: &str) -> Failure {
    let (class, hint) = match (status, code) {
        (_, "billing_error") => (FailureClass::Auth, "add credit to the account of the API key"),
        (Some(401 | 403), _) | (_, "authentication_failed" | "oauth_org_not_allowed") => {
            (FailureClass::Auth, "")
        }
        (Some(429), _) | (None, "rate_limit") => (FailureClass::RateLimit, ""),
        (Some(404), _) | (None, "model_not_found") => {
            (FailureClass::Invalid, "choose another model, or check ANTHROPIC_BASE_URL")
        }
        (Some(408 | 500..), _) => (FailureClass::Overload, ""),
        (Some(_), _) | (None, "invalid_request") => (FailureClass::Invalid, ""),
        (None, _) => (FailureClass::Overload, CONNECTIVITY_HINT),
    };
    let hint = match class {
        FailureClass::Auth if hint.is_empty() => key_hint(evidence.provider),
        _ => hint.to_owned(),
    };
    let mut failure = failure(class, &non_empty_or(message, "a model call failed"), &hint);
    if class == FailureClass::RateLimit {
        let (delay, resets) = retry_after(evidence, message);
        let name = evidence.record.limit.as_ref().map_or("", |limit| &limit.rate_limit_type);
        let resets = delay.is_some() && resets;
        failure.limit =
            (resets || !name.is_empty()).then(|| ReachedLimit { name: name.to_owned(), resets }.into());
        failure.retry_after = delay.map(Box::new);
    }
    failure
}

/// Time until the limit is lifted, or the delay that the API requested last, as far as the CLI reveals them, and whether it is
/// the first of the two.
fn retry_after(evidence: &Evidence<'_>, message: &str) -> (Option<pbjson_types::Duration>, bool) {
    let resets = evidence.record.limit.as_ref().and_then(|limit| limit.resets_at);
    // Once it has passed, the end of the limit is unknown.
    let until = resets.or_else(|| reset_time(message)).filter(|until| *until > evidence.now);
    (delay(evidence, until), until.is_some())
}

fn delay(evidence: &Evidence<'_>, until: Option<f64>) -> Option<pbjson_types::Duration> {
    let seconds = match until {
        Some(until) => (until - evidence.now).max(1.0),
        None => {
            let retry = evidence.record.retry.as_ref().filter(|retry| retry.error_status == Some(429))?;
            retry.retry_delay_ms / 1000.0
        }
    };
    let delay = std::time::Duration::try_from_secs_f64(seconds).ok()?;
    Some(delay.min(MAX_RESET).into())
}

/// Parses the time in a message such as `Claude AI usage limit reached|1763856000`.
fn reset_time(message: &str) -> Option<f64> {
    let digits = message.rsplit_once("limit reached|")?.1.trim();
    digits.parse::<u32>().ok().map(f64::from)
}

/// Classifies a run without a result line.
fn no_result(evidence: &Evidence<'_>) -> Failure {
    let stderr = evidence.stderr.trim();
    let tail = if stderr.is_empty() { String::new() } else { format!(": {stderr}") };
    let Exit { code, signal, .. } = evidence.exit;
    if stderr.contains("Invalid MCP configuration") {
        return invalid(
            stderr,
            "check the agent's `mcpServers`, and the repository's .mcp.json if it is loaded",
        );
    }
    if stderr.contains("cannot be used with root") {
        return bypass_as_root();
    }
    // The CLI exits with 128 plus the number of a signal that it received.
    let by_signal =
        signal.or(code.filter(|code| matches!(code, 129 | 130 | 137 | 143)).map(|code| code - 128));
    if let Some(signal) = by_signal {
        let message = format!("Claude Code was killed by signal {signal}{tail}");
        return failure(FailureClass::Crash, &message, "");
    }
    if evidence.record.unreadable > 0 || stderr.contains("Error parsing streaming input line") {
        let message = format!(
            "Claude Code printed {} unreadable lines and no result{tail}",
            evidence.record.unreadable
        );
        return failure(FailureClass::Protocol, &message, "");
    }
    if evidence.record.lines == 0 {
        let message = format!("Claude Code failed to start{tail}");
        let hint = if stderr.contains("unknown option") {
            "the CLI's version may be incompatible with this worker"
        } else {
            INSTALL_HINT
        };
        return failure(FailureClass::Start, &message, hint);
    }
    if code == Some(0) {
        return failure(FailureClass::Protocol, &format!("Claude Code ended without a result{tail}"), "");
    }
    failure(FailureClass::Crash, &format!("Claude Code ended without a result{tail}"), "")
}

/// Classifies a program that could not be started, or was lost.
pub(super) fn supervision_failure(error: &Error) -> Failure {
    match error {
        Error::Start { source, .. } => {
            // For a missing directory the error has this kind, but no number.
            let missing = source.raw_os_error() == Some(nix::errno::Errno::ENOENT as i32);
            let hint = if missing { INSTALL_HINT } else { "" };
            if source.raw_os_error() == Some(nix::errno::Errno::E2BIG as i32) {
                return failure(FailureClass::Invalid, &error.to_string(), "");
            }
            let mut failure = failure(FailureClass::Start, &error.to_string(), hint);
            failure.severity = Severity::Critical.into();
            failure
        }
        Error::Lost(_) | Error::Stuck(_) => failure(FailureClass::Crash, &error.to_string(), ""),
    }
}

fn failure_text(evidence: &Evidence<'_>, result: &Finished) -> String {
    let text = result.result.clone().filter(|text| !text.is_empty());
    let errors = Some(result.errors.join("; ")).filter(|text| !text.is_empty());
    let api = evidence.record.api_error.as_ref().map(|error| error.text.clone());
    text.or(errors).or(api).unwrap_or_default()
}

fn non_empty_or(text: &str, otherwise: &str) -> String {
    if text.is_empty() { otherwise.to_owned() } else { text.to_owned() }
}

pub(super) fn failure(class: FailureClass, message: &str, hint: &str) -> Failure {
    Failure { hint: hint.to_owned(), ..crate::report::failure(class, message) }
}

#[cfg(test)]
mod tests;
