//! Entries of a task's log: what workers report (kept as they are, encoded), and what callers read.

use bytes::Bytes;
use prost::Message;
use rota_core::Timestamp;
use rota_core::task::{Body, Event, Item, Meaning, Progress, State};
use rota_core::usage::Usage;
use rota_proto::v1::{self, event::Kind};

use super::{clean, failure, time};

/// Bytes that one reported entry may have.
const MAX_REPORT: usize = 256 << 10;

pub(crate) fn state(state: State) -> v1::TaskState {
    match state {
        State::Pending => v1::TaskState::Pending,
        State::Queued => v1::TaskState::Queued,
        State::Assigned => v1::TaskState::Assigned,
        State::Running => v1::TaskState::Running,
        State::InputRequired => v1::TaskState::InputRequired,
        State::Succeeded => v1::TaskState::Succeeded,
        State::Failed => v1::TaskState::Failed,
        State::Cancelled => v1::TaskState::Cancelled,
    }
}

pub(crate) fn from_state(state: v1::TaskState) -> Option<State> {
    State::ALL.into_iter().find(|known| self::state(*known) == state)
}

pub(crate) fn usage(usage: &Usage) -> v1::Usage {
    v1::Usage {
        input_tokens: usage.input_tokens,
        output_tokens: usage.output_tokens,
        cache_read_tokens: usage.cache_read_tokens,
        cache_write_tokens: usage.cache_write_tokens,
        cost_micro_usd: usage.cost_micro_usd,
        turns: usage.turns,
        model: usage.model.clone(),
    }
}

/// A worker's word on usage: never negative.
pub(crate) fn from_usage(usage: v1::Usage) -> Usage {
    Usage {
        input_tokens: usage.input_tokens.max(0),
        output_tokens: usage.output_tokens.max(0),
        cache_read_tokens: usage.cache_read_tokens.max(0),
        cache_write_tokens: usage.cache_write_tokens.max(0),
        cost_micro_usd: usage.cost_micro_usd.max(0),
        turns: usage.turns.max(0),
        model: failure::cut(usage.model, 128),
    }
}

/// One reported entry for the core. Its number and attempt are the control plane's to give.
/// An entry that is too large or of a kind that is not a worker's becomes a notice that says so.
pub(crate) fn item(mut event: v1::Event, now: Timestamp) -> Item {
    let at = event.time.as_ref().map_or(now, time::from_timestamp);
    if event.encoded_len() > MAX_REPORT || matches!(event.kind, None | Some(Kind::State(_) | Kind::Change(_)))
    {
        event.kind = Some(Kind::Notice(v1::Notice {
            severity: v1::Severity::Medium.into(),
            code: "report_dropped".to_owned(),
            message: "the worker reported something that is too large or not its to say; it was dropped"
                .to_owned(),
        }));
    }
    if let Some(kind) = &mut event.kind {
        clean::event(kind);
    }
    let meaning = match &mut event.kind {
        Some(Kind::Progress(progress)) => {
            let known = progress.fraction.is_finite();
            progress.fraction = if known { progress.fraction.clamp(0.0, 1.0) } else { 0.0 };
            Meaning::Progress(Progress {
                fraction: progress.fraction,
                step: failure::cut(progress.step.clone(), 256),
            })
        }
        Some(Kind::Usage(usage)) => Meaning::Usage(from_usage(usage.clone())),
        Some(Kind::InputRequest(request)) => {
            Meaning::Asks { request: request.request_id.clone(), payload: request.encode_to_vec().into() }
        }
        Some(Kind::InputGiven(given)) => {
            let request = given.input.as_ref().map_or("", |input| &input.request_id);
            Meaning::Settles(request.to_owned())
        }
        _ => Meaning::Plain,
    };
    event.log_seq = 0;
    event.attempt = 0;
    Item { at, payload: event.encode_to_vec().into(), meaning }
}

/// An entry as callers read it.
pub(crate) fn to_wire(event: &Event) -> v1::Event {
    let kind = match &event.body {
        // What cannot be decoded was written by a newer version; the rest of the log is still worth reading.
        Body::Report(bytes) => v1::Event::decode(&bytes[..]).ok().and_then(|event| event.kind),
        Body::State(change) => Some(Kind::State(v1::StateChange {
            from: change.from.map(state).unwrap_or_default().into(),
            to: state(change.to).into(),
            reason: change.reason.to_string(),
            message: change.message.clone(),
            worker: change.worker.as_ref().map(ToString::to_string).unwrap_or_default(),
            failure: change.failure.as_ref().map(failure::to_wire),
            retry_time: change.retry_at.map(time::timestamp),
        })),
        Body::Input { seq, payload } => Some(Kind::InputGiven(v1::InputGiven {
            input_seq: i64::try_from(*seq).unwrap_or(i64::MAX),
            input: input(payload),
        })),
        Body::Change { fields, message } => Some(Kind::Change(v1::Change {
            fields: fields.iter().map(ToString::to_string).collect(),
            message: message.clone(),
        })),
        Body::Notice { severity, code, message } => Some(Kind::Notice(v1::Notice {
            severity: failure::severity(*severity).into(),
            code: code.to_string(),
            message: message.clone(),
        })),
    };
    v1::Event {
        log_seq: i64::try_from(event.log_seq).unwrap_or(i64::MAX),
        time: Some(time::timestamp(event.at)),
        attempt: i32::try_from(event.attempt).unwrap_or(i32::MAX),
        kind,
    }
}

/// A kept input.
pub(crate) fn input(payload: &Bytes) -> Option<v1::TaskInput> {
    v1::TaskInput::decode(&payload[..]).ok()
}
