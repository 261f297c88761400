//! Redaction of everything that an attempt emits; the only way from a runtime to the outbox. Knows no runtime.

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use rota_proto::v1::{Delivery, Failure, FailureClass, Output, OutputStream, event};
use rota_telemetry::redact::{RedactionGuard, Redactor, StreamRedactor};

use crate::runtimes::{RunOutcome, RunReport};
use crate::sanitize;

/// Maximum size of one output event.
const MAX_CHUNK_BYTES: usize = 64 << 10;

/// Size up to which a report is redacted on the runtime's threads.
const MAX_INLINE_BYTES: usize = 64 << 10;

/// Maximum size of the id of a runtime's session.
const MAX_SESSION_BYTES: usize = 256;

/// Removes an attempt's secrets from its events and its report.
#[derive(Debug, Default)]
pub(super) struct Redaction(Mutex<RedactionState>);

#[derive(Debug, Default)]
struct RedactionState {
    redactor: Redactor,
    stdout: StreamRedactor,
    stderr: StreamRedactor,
    /// Redacts them in this process's log too, for as long as the attempt exists.
    _guard: Option<RedactionGuard>,
}

impl RedactionState {
    fn stream(&mut self, stream: OutputStream) -> &mut StreamRedactor {
        match stream {
            OutputStream::Stderr => &mut self.stderr,
            OutputStream::Stdout | OutputStream::Unspecified => &mut self.stdout,
        }
    }
}

impl Redaction {
    /// Declares the attempt's secrets, before any event may contain one.
    pub(super) fn declare<'a>(&self, values: impl IntoIterator<Item = &'a String>) -> Redactor {
        let redactor = Redactor::new(values.into_iter().map(String::as_str));
        *self.0.lock() = RedactionState {
            stdout: StreamRedactor::new(redactor.clone()),
            stderr: StreamRedactor::new(redactor.clone()),
            _guard: Some(redactor.register()),
            redactor: redactor.clone(),
        };
        redactor
    }

    /// Redacts an event. Output is held back while it may be the beginning of a secret, so an event may become
    /// none or several.
    pub(super) fn event(&self, mut kind: event::Kind) -> Vec<event::Kind> {
        let mut state = self.0.lock();
        let event::Kind::Output(output) = &mut kind else {
            sanitize::event(&state.redactor, &mut kind);
            return vec![kind];
        };
        let (which, dropped) = (output.stream(), output.dropped_bytes);
        let stream = state.stream(which);
        // Output after a gap does not continue what is held back.
        let before = if dropped > 0 { stream.end() } else { Vec::new() };
        let mut clean = Bytes::from(stream.push(&output.data));
        let mut all: Vec<_> = piece(which, before.into()).into_iter().collect();
        output.data = clean.split_to(clean.len().min(MAX_CHUNK_BYTES));
        if dropped > 0 || !output.data.is_empty() {
            all.push(kind);
        }
        while !clean.is_empty() {
            all.extend(piece(which, clean.split_to(clean.len().min(MAX_CHUNK_BYTES))));
        }
        all
    }

    /// Returns the output still held back, at the end of the attempt.
    pub(super) fn flush(&self) -> Vec<event::Kind> {
        let mut state = self.0.lock();
        let streams = [OutputStream::Stdout, OutputStream::Stderr];
        streams.into_iter().filter_map(|which| piece(which, state.stream(which).end().into())).collect()
    }

    /// Redacts a report, a large one on a thread for blocking work: heartbeats and other attempts go on meanwhile.
    pub(super) async fn report(&self, report: RunReport) -> RunReport {
        let redactor = self.0.lock().redactor.clone();
        let is_large = match &report.outcome {
            RunOutcome::Succeeded(result) => result.encoded_len() > MAX_INLINE_BYTES,
            RunOutcome::Failed(failure) => failure.encoded_len() > MAX_INLINE_BYTES,
            RunOutcome::Stopped { .. } => false,
        };
        if !is_large {
            return redacted(&redactor, report);
        }
        let redacted = tokio::task::spawn_blocking(move || redacted(&redactor, report)).await;
        redacted.unwrap_or_else(|_| {
            RunReport::failed(FailureClass::Crash, "the redaction of the result panicked")
        })
    }

    /// Redacts why the files of an attempt could not be stored or delivered.
    pub(super) fn failure(&self, failure: &mut Failure) {
        sanitize::failure(&self.0.lock().redactor, failure);
    }

    pub(super) fn delivery(&self, delivery: &mut Delivery) {
        sanitize::delivery(&self.0.lock().redactor, delivery);
    }
}

fn redacted(redactor: &Redactor, mut report: RunReport) -> RunReport {
    match &mut report.outcome {
        RunOutcome::Succeeded(result) => {
            sanitize::result(redactor, result);
            if let Some(failed) = sanitize::too_large(result) {
                report.outcome = RunOutcome::Failed(failed);
            }
        }
        RunOutcome::Failed(failure) => sanitize::failure(redactor, failure),
        RunOutcome::Stopped { .. } => {}
    }
    report.usage.iter_mut().for_each(|usage| sanitize::usage(redactor, usage));
    // The control plane keeps no more of it.
    report.runtime_session.truncate(report.runtime_session.floor_char_boundary(MAX_SESSION_BYTES));
    report
}

fn piece(stream: OutputStream, data: Bytes) -> Option<event::Kind> {
    let output = Output { stream: stream.into(), data, dropped_bytes: 0 };
    (!output.data.is_empty()).then_some(event::Kind::Output(output))
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::TaskResult;

    use super::*;

    fn report(text: String) -> RunReport {
        RunReport::new(RunOutcome::Succeeded(TaskResult { text, ..TaskResult::default() }))
    }

    #[tokio::test]
    async fn large_results_are_not_scanned_on_runtime_threads() {
        let redaction = Redaction::default();
        redaction.declare(&["hunter2hunter2".to_owned()]);
        let mut small = std::pin::pin!(redaction.report(report("hunter2hunter2".to_owned())));
        assert!(futures::poll!(&mut small).is_ready(), "a thread costs more");
        let mut large = std::pin::pin!(redaction.report(report("hunter2hunter2 ".repeat(60_000))));
        assert!(futures::poll!(&mut large).is_pending());
        let RunOutcome::Succeeded(result) = large.await.outcome else { panic!("it is not too large") };
        assert!(!result.text.contains("hunter2"));
    }
}
