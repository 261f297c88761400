//! Playback of a plan; the only place that waits and sends. Every wait ends when the server stops.

use std::fmt;
use std::time::Duration;
use std::vec::IntoIter;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use futures::stream;
use tokio_util::sync::CancellationToken;

use crate::plan::{Op, Plan};
use crate::stats::Active;

/// Delay before a connection is cut. An error of the body discards what is not flushed, and a client that sees the
/// cut together with the last bytes may drop those, so they get a head start.
const CUT_DELAY: Duration = Duration::from_millis(50);

/// Waits for the plan's delay, then responds with a body that plays the rest.
pub(crate) async fn play(
    plan: Plan,
    request_id: &str,
    stop: CancellationToken,
    active: Option<Active>,
) -> Response {
    tokio::select! {
        () = tokio::time::sleep(plan.delay) => {}
        () = stop.cancelled() => {}
    }
    let mut response = Response::new(body(plan.body, stop, active));
    *response.status_mut() = StatusCode::from_u16(plan.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    for (name, value) in plan.headers.into_iter().chain([("request-id", request_id.to_owned())]) {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    response
}

fn body(ops: Vec<Op>, stop: CancellationToken, active: Option<Active>) -> Body {
    match ops.as_slice() {
        [] => Body::empty(),
        [Op::Send(bytes)] => Body::from(bytes.clone()),
        _ => Body::from_stream(stream::unfold(
            Playback { ops: ops.into_iter(), stop, _active: active },
            Playback::next,
        )),
    }
}

struct Playback {
    ops: IntoIter<Op>,
    stop: CancellationToken,
    // The answer counts as active until its body is dropped.
    _active: Option<Active>,
}

impl Playback {
    async fn next(mut self) -> Option<(Result<Bytes, Cut>, Self)> {
        loop {
            match self.ops.next()? {
                Op::Send(bytes) => return Some((Ok(bytes), self)),
                Op::Wait(time) => tokio::select! {
                    () = tokio::time::sleep(time) => {}
                    () = self.stop.cancelled() => return Some((Err(Cut), self)),
                },
                Op::Hang => {
                    self.stop.cancelled().await;
                    return Some((Err(Cut), self));
                }
                Op::Cut => {
                    tokio::time::sleep(CUT_DELAY).await;
                    return Some((Err(Cut), self));
                }
            }
        }
    }
}

/// Error of the body, which cuts the connection.
#[derive(Debug)]
struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connection cut by the script")
    }
}

impl std::error::Error for Cut {}
