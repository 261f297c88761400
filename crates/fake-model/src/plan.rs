//! Plans the response to a request: status, headers, and the operations on the body. Pure: takes no time and sends
//! nothing, so that every fault can be inspected without a connection.

use std::time::Duration;

use axum::body::Bytes;
use serde_json::json;

use crate::api_error::{self, ApiError};
use crate::reply::Reply;
use crate::script::{FaultKind, Limit, Malformed, Slow, Step};
use crate::sse::{self, Frame};
use crate::stats::Outcome;

/// Complete response, ready for playback.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) status: u16,
    pub(crate) outcome: Outcome,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) delay: Duration,
    pub(crate) body: Vec<Op>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Send(Bytes),
    Wait(Duration),
    /// Sends nothing more until either side closes the connection.
    Hang,
    /// Closes the connection without a proper end.
    Cut,
}

/// Parameters of the request that the response depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplyTarget<'a> {
    pub(crate) request_id: &'a str,
    pub(crate) stream: bool,
    /// Unix time in seconds, from which the end of a limit is counted.
    pub(crate) now: u64,
}

impl Plan {
    pub(crate) fn error(error: &ApiError, request_id: &str) -> Self {
        Self {
            status: error.status,
            outcome: Outcome::Error,
            headers: vec![("content-type", "application/json".into())],
            delay: Duration::ZERO,
            body: vec![Op::Send(error.body(request_id).into())],
        }
    }

    /// Plans an answer without delays.
    pub(crate) fn answer(reply: &Reply, to: ReplyTarget<'_>) -> Self {
        Self::scripted(&Step::default(), None, reply, to)
    }

    /// Plans a step's answer, with its fault if there is one.
    pub(crate) fn scripted(
        step: &Step,
        fault: Option<&FaultKind>,
        reply: &Reply,
        to: ReplyTarget<'_>,
    ) -> Self {
        let delay = Duration::from_millis(step.delay_ms);
        if let Some(FaultKind::Status { status, retry_after, should_retry, message, limit }) = fault {
            let message = message.as_deref().unwrap_or(api_error::default_message(*status));
            let mut plan = Self::error(&ApiError::new(*status, message), to.request_id);
            plan.headers.extend(retry_after.map(|secs| ("retry-after", secs.to_string())));
            plan.headers.extend(limit.iter().flat_map(|limit| limit_headers(limit, to.now)));
            plan.headers.extend(should_retry.map(|retry| ("x-should-retry", retry.to_string())));
            return Self { delay, ..plan };
        }
        let content_type = match (fault, to.stream) {
            (Some(FaultKind::Malformed(Malformed::Html)), _) => "text/html",
            (_, true) => "text/event-stream; charset=utf-8",
            (_, false) => "application/json",
        };
        let (outcome, body) =
            if to.stream { streamed(step, fault, reply, to) } else { whole(step, fault, reply) };
        let headers =
            vec![("content-type", content_type.to_owned()), ("cache-control", "no-cache".to_owned())];
        Self { status: 200, outcome, headers, delay, body }
    }
}

/// Returns the headers by which the API reports that a limit of a subscription is reached.
fn limit_headers(limit: &Limit, now: u64) -> Vec<(&'static str, String)> {
    vec![
        ("anthropic-ratelimit-unified-status", "rejected".to_owned()),
        ("anthropic-ratelimit-unified-reset", (now + limit.resets_in).to_string()),
        ("anthropic-ratelimit-unified-representative-claim", limit.name.clone()),
    ]
}

fn streamed(
    step: &Step,
    fault: Option<&FaultKind>,
    reply: &Reply,
    to: ReplyTarget<'_>,
) -> (Outcome, Vec<Op>) {
    let frames = sse::frames(reply, step.slow.map_or_else(Slow::default_chars, |slow| slow.chars));
    let first = |count: usize| &frames[..count.min(frames.len())];
    match fault {
        None | Some(FaultKind::Status { .. }) => (Outcome::Answered, paced(step, &frames)),
        Some(FaultKind::DropAfter(count)) => (Outcome::Dropped, then(paced(step, first(*count)), Op::Cut)),
        Some(FaultKind::HangAfter(count)) => (Outcome::Hung, then(paced(step, first(*count)), Op::Hang)),
        Some(FaultKind::StreamError(kind)) => {
            let error = sse::frame(
                "error",
                &api_error::body(kind, "Failed by the fake model's script.", to.request_id),
            );
            (Outcome::StreamError, then(paced(step, first(1)), Op::Send(error.bytes)))
        }
        Some(FaultKind::Malformed(how)) => (Outcome::Malformed, malformed_stream(*how, &frames)),
    }
}

fn paced(step: &Step, frames: &[Frame]) -> Vec<Op> {
    let mut ops = Vec::with_capacity(frames.len() + 1);
    for (index, frame) in frames.iter().enumerate() {
        ops.extend(step.pause.filter(|pause| pause.after == index).map(|pause| wait(pause.ms)));
        ops.extend(step.slow.filter(|_| frame.piece).map(|slow| wait(slow.every_ms)));
        ops.push(Op::Send(frame.bytes.clone()));
    }
    ops
}

fn malformed_stream(how: Malformed, frames: &[Frame]) -> Vec<Op> {
    let send =
        |frames: &[Frame]| frames.iter().map(|frame| Op::Send(frame.bytes.clone())).collect::<Vec<_>>();
    match how {
        Malformed::Json => {
            let broken =
                Bytes::from_static(b"event: content_block_start\ndata: {\"type\":\"content_block_st\n\n");
            [send(&frames[..1]), vec![Op::Send(broken)], send(&frames[2..])].concat()
        }
        Malformed::Order => {
            let stray = sse::delta(7, json!({"type": "text_delta", "text": "stray"}));
            [send(&frames[..1]), vec![Op::Send(stray.bytes)], send(&frames[frames.len() - 2..])].concat()
        }
        Malformed::Truncated => send(&frames[..frames.len() - 2]),
        Malformed::Empty => Vec::new(),
        Malformed::Html => vec![Op::Send(HTML_BODY)],
    }
}

/// Plans the same faults for a request without `stream`, as far as they apply.
fn whole(step: &Step, fault: Option<&FaultKind>, reply: &Reply) -> (Outcome, Vec<Op>) {
    let json = Bytes::from(reply.to_json().to_string());
    let half = json.slice(..json.len() / 2);
    let ops = match fault {
        None | Some(FaultKind::Status { .. }) => {
            return (Outcome::Answered, [slowly(step, reply), vec![Op::Send(json)]].concat());
        }
        Some(FaultKind::DropAfter(_)) => return (Outcome::Dropped, vec![Op::Send(half), Op::Cut]),
        Some(FaultKind::HangAfter(_)) => return (Outcome::Hung, vec![Op::Hang]),
        Some(FaultKind::StreamError(_)) => return (Outcome::StreamError, vec![Op::Send(half), Op::Cut]),
        Some(FaultKind::Malformed(how)) => match how {
            Malformed::Json | Malformed::Truncated => vec![Op::Send(half)],
            Malformed::Order => {
                vec![Op::Send(Bytes::from_static(b"{\"type\":\"message\",\"role\":\"assistant\"}"))]
            }
            Malformed::Empty => Vec::new(),
            Malformed::Html => vec![Op::Send(HTML_BODY)],
        },
    };
    (Outcome::Malformed, ops)
}

/// Delays a whole answer by as much as the last event of its stream.
fn slowly(step: &Step, reply: &Reply) -> Vec<Op> {
    if step.slow.is_none() && step.pause.is_none() {
        return Vec::new();
    }
    let frames = sse::frames(reply, step.slow.map_or_else(Slow::default_chars, |slow| slow.chars));
    paced(step, &frames).into_iter().filter(|op| matches!(op, Op::Wait(_))).collect()
}

fn wait(ms: u64) -> Op {
    Op::Wait(Duration::from_millis(ms))
}

fn then(mut ops: Vec<Op>, last: Op) -> Vec<Op> {
    ops.push(last);
    ops
}

const HTML_BODY: Bytes = Bytes::from_static(b"<html><body><h1>Bad gateway</h1></body></html>");
