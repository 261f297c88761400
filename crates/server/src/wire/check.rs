//! Limits of what callers send. Each error names the field.

use std::collections::BTreeMap;

use rota_proto::claude::Problem;
use rota_proto::v1;
use tonic::Status;

use super::status::invalid;

pub(crate) const MAX_PROMPT: usize = 1 << 20;
pub(crate) const MAX_TITLE: usize = rota_proto::limits::TITLE_BYTES;
pub(crate) const MAX_TEXT: usize = 64 << 10;
const MAX_ENTRIES: usize = 256;
const MAX_VALUE: usize = 32 << 10;
/// Bytes of all variables. Those of task and agent, their secrets and the arguments fit into the 2 MiB that Linux takes.
const MAX_ENVIRONMENT: usize = 256 << 10;
const MAX_ARGUMENTS: usize = 4096;
/// Bytes of one argument; Linux takes 128 KiB, with the variable that has its name.
const MAX_ARGUMENT: usize = 96 << 10;
const MAX_COMMAND: usize = 512 << 10;
const MAX_LABELS: usize = 64;
const MAX_LABEL: usize = 256;

/// Returns the beginning of a text, for use in error messages.
pub(crate) fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

/// With what keys of the control plane begin, so that no caller takes one.
pub(crate) const OWN_KEYS: &str = "rota:";

/// Checks an idempotency key of a caller: a text that every store can keep as a name.
pub(crate) fn idempotency_key(key: &str, max: usize) -> Result<(), Status> {
    length("idempotency_key", key, max)?;
    if key.contains('\0') {
        return Err(invalid("idempotency_key", "must not contain a NUL byte"));
    }
    if key.starts_with(OWN_KEYS) {
        return Err(invalid("idempotency_key", format!("must not begin with {OWN_KEYS}")));
    }
    Ok(())
}

pub(crate) fn length(field: &str, text: &str, most: usize) -> Result<(), Status> {
    if text.len() > most {
        return Err(invalid(field, format!("is {} bytes long; at most {most} are allowed", text.len())));
    }
    Ok(())
}

pub(crate) fn count(field: &str, count: usize, most: usize) -> Result<(), Status> {
    if count > most {
        return Err(invalid(field, format!("has {count} entries; at most {most} are allowed")));
    }
    Ok(())
}

/// Checks environment variables: the syntax of their names, and the size of their values.
pub(crate) fn environment(field: &str, variables: &BTreeMap<String, String>) -> Result<(), Status> {
    count(field, variables.len(), MAX_ENTRIES)?;
    for (name, value) in variables {
        let at = format!("{field}[{:?}]", shorten(name));
        let begins = name.bytes().next().is_some_and(|c| c.is_ascii_alphabetic() || c == b'_');
        if !begins || name.len() > 128 || !name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_') {
            return Err(invalid(at, "is not a variable's name: use letters, digits and '_'"));
        }
        if value.contains('\0') {
            return Err(invalid(at, "must not contain a zero byte"));
        }
        length(&at, value, MAX_VALUE)?;
    }
    total(field, variables.iter().map(|(name, value)| name.len() + value.len()).sum(), MAX_ENVIRONMENT)
}

/// Checks the size of a program's arguments: those that no machine starts are not the worker's failure.
pub(crate) fn runtime(field: &str, runtime: Option<&v1::Runtime>) -> Result<(), Status> {
    let command = match runtime.and_then(|runtime| runtime.kind.as_ref()) {
        Some(v1::runtime::Kind::Command(command)) => command,
        Some(v1::runtime::Kind::Claude(claude)) => return claude_runtime(field, claude),
        _ => return Ok(()),
    };
    let field = format!("{field}.command");
    count(&format!("{field}.argv"), command.argv.len(), MAX_ARGUMENTS)?;
    let arguments = command.argv.iter().enumerate().map(|(at, word)| (format!("{field}.argv[{at}]"), word));
    for (at, argument) in arguments.chain([(format!("{field}.shell"), &command.shell)]) {
        if argument.contains('\0') {
            return Err(invalid(at, "must not contain a zero byte"));
        }
        length(&at, argument, MAX_ARGUMENT)?;
    }
    total(&format!("{field}.argv"), command.argv.iter().map(String::len).sum(), MAX_COMMAND)
}

fn claude_runtime(field: &str, claude: &v1::ClaudeRuntime) -> Result<(), Status> {
    let Some(Problem { field: name, index, message }) = claude.problem() else { return Ok(()) };
    let entry = index.map(|index| format!("[{index}]")).unwrap_or_default();
    Err(invalid(format!("{field}.claude.{name}{entry}"), message))
}

fn total(field: &str, bytes: usize, most: usize) -> Result<(), Status> {
    if bytes > most {
        return Err(invalid(field, format!("has {bytes} bytes in all; at most {most} are allowed")));
    }
    Ok(())
}

pub(crate) fn labels(field: &str, labels: &BTreeMap<String, String>) -> Result<(), Status> {
    count(field, labels.len(), MAX_LABELS)?;
    for (key, value) in labels {
        let at = format!("{field}[{:?}]", shorten(key));
        if key.is_empty() {
            return Err(invalid(at, "must not be empty"));
        }
        length(&at, key, MAX_LABEL)?;
        length(&at, value, MAX_LABEL)?;
    }
    Ok(())
}

/// Checks the syntax of capabilities.
pub(crate) fn words(field: &str, words: &[String], most: usize) -> Result<(), Status> {
    count(field, words.len(), most)?;
    for (index, word) in words.iter().enumerate() {
        let fine = !word.is_empty()
            && word.len() <= 63
            && word.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.' | b'/'));
        if !fine {
            let why = "is not a capability: use 1 to 63 letters, digits, '_', '-', '.' or '/'";
            return Err(invalid(format!("{field}[{index}]"), why));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_take_no_key_of_the_control_plane() {
        let key = format!("{OWN_KEYS}follow-1");
        assert!(idempotency_key(&key, 100).unwrap_err().message().contains("must not begin with rota:"));
        for own in ["follow-1", "my-rota:1", ""] {
            idempotency_key(own, 100).unwrap();
        }
    }
}
