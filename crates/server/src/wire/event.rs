//! Entries of a task's log: reports of workers, which are stored encoded, and events as callers read them.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use rota_core::Timestamp;
use rota_core::task::{Body, Event, EventEffect, Item, Progress, State};
use rota_core::usage::Usage;
use rota_proto::limits::{CHOICES, EVENT_BYTES, QUESTION_BYTES, REQUEST_NAME_BYTES};
use rota_proto::notices::{WORKSPACE_BUSY, WORKSPACE_FREE};
use rota_proto::num;
use rota_proto::permission_rules as rules;
use rota_proto::v1::{self, event::Kind};
use rota_telemetry::redact;

use super::{clean, failure, time};

/// Age of the oldest time that a worker may report: entries wait in workers for the end of an outage.
const MAX_AGE: Duration = Duration::from_hours(30 * 24);
/// How far the clock of a worker may be ahead.
const MAX_AHEAD: Duration = Duration::from_hours(1);

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
        partial: false,
        input_tokens: usage.input_tokens,
        output_tokens: usage.output_tokens,
        cache_read_tokens: usage.cache_read_tokens,
        cache_write_tokens: usage.cache_write_tokens,
        cost_micro_usd: usage.cost_micro_usd,
        turns: usage.turns,
        model: usage.model.clone(),
    }
}

/// Converts usage that a worker reported. Negative values become zero.
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

/// Converts an entry that a worker reported; its position and attempt are assigned by the core. An entry that is too large,
/// or of a kind that only the server writes, is replaced by a notice. Its time is kept within what a sound clock can show.
pub(crate) fn item(mut event: v1::Event, now: Timestamp) -> Item {
    let reported = event.time.as_ref().map_or(now, time::from_timestamp);
    let at = reported.clamp(now - MAX_AGE, now + MAX_AHEAD);
    event.time = Some(time::timestamp(at));
    if event.encoded_len() > EVENT_BYTES
        || matches!(event.kind, None | Some(Kind::State(_) | Kind::Change(_)))
    {
        event.kind = Some(Kind::Notice(v1::Notice {
            severity: v1::Severity::Medium.into(),
            code: "report_dropped".to_owned(),
            message: "dropped a report of the worker that is too large or of a kind reserved for the server"
                .to_owned(),
        }));
    }
    if let Some(kind) = &mut event.kind {
        let asked = match kind {
            Kind::InputRequest(request) => request.input_json.clone(),
            _ => String::new(),
        };
        clean::event(kind);
        if let Kind::InputRequest(request) = kind {
            request.input_incomplete |= request.input_json != asked || asked.len() > QUESTION_BYTES;
            request.rules = std::mem::take(&mut request.rules).into_iter().filter_map(offered).collect();
            request.rules.truncate(rules::MAX_SUGGESTED);
        }
    }
    let effect = match &mut event.kind {
        Some(Kind::Progress(progress)) => {
            let known = progress.fraction.is_finite();
            progress.fraction = if known { progress.fraction.clamp(0.0, 1.0) } else { 0.0 };
            EventEffect::Progress(Progress {
                fraction: progress.fraction,
                step: failure::cut(progress.step.clone(), 256),
            })
        }
        Some(Kind::Usage(usage)) => EventEffect::Usage(from_usage(usage.clone())),
        Some(Kind::InputRequest(request)) => {
            let open = open_question(request);
            EventEffect::InputRequested { payload: open.encode_to_vec().into(), request: open.request_id }
        }
        Some(Kind::InputReceived(given)) => {
            let request = given.input.as_ref().map_or("", |input| &input.request_id);
            EventEffect::InputResolved(failure::cut(request.to_owned(), REQUEST_NAME_BYTES))
        }
        Some(Kind::WorkEnded(ended)) => {
            EventEffect::WorkEnded(ended.slot_released.then_some(ended.outlives_worker))
        }
        Some(Kind::Message(_) | Kind::ToolCall(_)) => EventEffect::ModelWorked,
        Some(Kind::Notice(notice)) => match notice.code.as_str() {
            WORKSPACE_BUSY => EventEffect::HeldUp,
            WORKSPACE_FREE => EventEffect::None,
            _ => EventEffect::Notice,
        },
        _ => EventEffect::None,
    };
    event.log_seq = 0;
    event.attempt = 0;
    Item { at, payload: event.encode_to_vec().into(), effect }
}

/// Returns a rule that a person may allow, with words that are ours; `None` for a text that is none, or has a secret in it.
fn offered(given: v1::PermissionRule) -> Option<v1::PermissionRule> {
    let mut clean = given.rule.clone();
    redact::text(&mut clean);
    let (tool, content) = rules::parse(&given.rule).filter(|_| clean == given.rule)?;
    Some(v1::PermissionRule { description: rules::describe(tool, content), rule: clean })
}

/// Returns a question as it is kept in its task's record while it is open: every list of tasks has it. The log has all of it.
fn open_question(request: &v1::InputRequest) -> v1::InputRequest {
    let cut = |text: &str, max: usize| {
        let kept = rota_core::text::prefix(text, max);
        if kept.len() < text.len() { format!("{kept} … (the log has all of it)") } else { text.to_owned() }
    };
    let choices = request.choices.iter().take(CHOICES);
    v1::InputRequest {
        request_id: failure::cut(request.request_id.clone(), REQUEST_NAME_BYTES),
        kind: request.kind,
        prompt: cut(&request.prompt, QUESTION_BYTES),
        tool: failure::cut(request.tool.clone(), REQUEST_NAME_BYTES),
        input_json: cut(&request.input_json, QUESTION_BYTES),
        choices: choices.map(|choice| failure::cut(choice.clone(), REQUEST_NAME_BYTES)).collect(),
        rules: request.rules.clone(),
        input_incomplete: request.input_incomplete,
    }
}

/// Converts an entry to the event that callers read.
pub(crate) fn to_wire(event: &Event) -> v1::Event {
    let kind = match &event.body {
        // An entry that cannot be decoded was written by a newer version; the rest of the log is still readable.
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
        Body::Input { seq, payload } => Some(Kind::InputReceived(v1::InputReceived {
            input_seq: num::to_i64(*seq),
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
        log_seq: num::to_i64(event.log_seq),
        time: Some(time::timestamp(event.at)),
        attempt: num::to_i32(event.attempt),
        kind,
    }
}

/// Decodes an input from the log.
pub(crate) fn input(payload: &Bytes) -> Option<v1::TaskInput> {
    v1::TaskInput::decode(&payload[..]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_workers_are_bounded() {
        let now = Timestamp(1_800_000_000_000_000);
        let seconds = now.0 / 1_000_000;
        let reported = |seconds, nanos| {
            let time = Some(pbjson_types::Timestamp { seconds, nanos });
            item(v1::Event { time, ..v1::Event::default() }, now)
        };
        let day = 24 * 3600;
        for (given, kept) in [(seconds - 7 * day, now - Duration::from_hours(7 * 24)), (seconds, now)] {
            assert_eq!(reported(given, 0).at, kept);
        }
        for early in [i64::MIN, -1, 0, seconds - 31 * day] {
            assert_eq!(reported(early, i32::MIN).at, now - MAX_AGE, "{early}");
        }
        for late in [seconds + 3601, 253_402_300_800, i64::MAX] {
            let item = reported(late, i32::MAX);
            assert_eq!(item.at, now + MAX_AHEAD, "{late}");
            let stored = v1::Event::decode(&item.payload[..]).unwrap();
            assert_eq!(stored.time, Some(time::timestamp(now + MAX_AHEAD)), "{late}");
        }
    }

    #[test]
    fn waits_for_workspaces_stop_the_clock() {
        let effect = |code: &str| {
            let notice = v1::Notice { code: code.to_owned(), ..v1::Notice::default() };
            let event = v1::Event { kind: Some(Kind::Notice(notice)), ..v1::Event::default() };
            item(event, Timestamp(1_800_000_000_000_000)).effect
        };
        assert_eq!(effect(WORKSPACE_BUSY), EventEffect::HeldUp);
        assert_eq!(effect(WORKSPACE_FREE), EventEffect::None);
        assert_eq!(effect("input_dropped"), EventEffect::Notice);
    }
}
