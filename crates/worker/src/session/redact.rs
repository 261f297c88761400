//! What an attempt tells, without its secrets: the one way from a runtime to the outbox. Knows no runtime.

use bytes::Bytes;
use parking_lot::Mutex;
use rota_proto::texts;
use rota_proto::v1::{Output, OutputStream, event};
use rota_telemetry::redact::{Guard, Redactor, Stream};

use crate::runtimes::{Ending, Outcome, bounds};

/// Longest piece of output.
const PIECE: usize = 64 << 10;

/// Takes an attempt's secrets out of what it tells.
#[derive(Debug, Default)]
pub(super) struct Redaction(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    redactor: Redactor,
    stdout: Stream,
    stderr: Stream,
    /// This process's log keeps them secret as long as the attempt is there.
    _guard: Option<Guard>,
}

impl State {
    fn stream(&mut self, stream: OutputStream) -> &mut Stream {
        match stream {
            OutputStream::Stderr => &mut self.stderr,
            OutputStream::Stdout | OutputStream::Unspecified => &mut self.stdout,
        }
    }
}

impl Redaction {
    /// These are secret, from before anything is told that may hold them.
    pub(super) fn declare<'a>(&self, values: impl IntoIterator<Item = &'a String>) -> Redactor {
        let redactor = Redactor::new(values.into_iter().map(String::as_str));
        *self.0.lock() = State {
            stdout: Stream::new(redactor.clone()),
            stderr: Stream::new(redactor.clone()),
            _guard: Some(redactor.guard()),
            redactor: redactor.clone(),
        };
        redactor
    }

    /// What may be told of an event by now; output is held back while it may be the beginning of a
    /// secret.
    pub(super) fn event(&self, mut kind: event::Kind) -> Vec<event::Kind> {
        let mut state = self.0.lock();
        let event::Kind::Output(output) = &mut kind else {
            bounds::event(&state.redactor, &mut kind);
            return vec![kind];
        };
        let (which, dropped) = (output.stream(), output.dropped_bytes);
        let stream = state.stream(which);
        // What comes after a gap does not follow what is held.
        let before = if dropped > 0 { stream.end() } else { Vec::new() };
        let mut told = Bytes::from(stream.push(&output.data));
        let mut all: Vec<_> = piece(which, before.into()).into_iter().collect();
        output.data = told.split_to(told.len().min(PIECE));
        if dropped > 0 || !output.data.is_empty() {
            all.push(kind);
        }
        while !told.is_empty() {
            all.extend(piece(which, told.split_to(told.len().min(PIECE))));
        }
        all
    }

    /// What is still held back, at the end.
    pub(super) fn rest(&self) -> Vec<event::Kind> {
        let mut state = self.0.lock();
        let ends = [OutputStream::Stdout, OutputStream::Stderr];
        ends.into_iter().filter_map(|which| piece(which, state.stream(which).end().into())).collect()
    }

    /// How the attempt ended.
    pub(super) fn outcome(&self, outcome: &mut Outcome) {
        let state = self.0.lock();
        let redactor = &state.redactor;
        match &mut outcome.ending {
            Ending::Succeeded(result) => bounds::result(redactor, result),
            Ending::Failed(failure) => bounds::failure(redactor, failure),
            Ending::Stopped { .. } => {}
        }
        outcome.usage.iter_mut().for_each(|usage| texts::of_usage(usage, &mut |text| redactor.text(text)));
    }
}

fn piece(stream: OutputStream, data: Bytes) -> Option<event::Kind> {
    let output = Output { stream: stream.into(), data, dropped_bytes: 0 };
    (!output.data.is_empty()).then_some(event::Kind::Output(output))
}
