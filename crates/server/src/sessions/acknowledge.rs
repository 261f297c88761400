//! Acknowledgements of what a worker has sent. Pure.

use rota_core::{Fence, TaskId};
use rota_proto::num;
use rota_proto::worker::v1::{self as wire, session_response};

pub(super) fn ack(id: TaskId, fence: Fence, seq: u64, stale: bool) -> session_response::Kind {
    session_response::Kind::ReportAck(wire::ReportAck {
        task_id: id.to_string(),
        fence: num::to_i64(fence.0),
        attempt_seq: num::to_i64(seq),
        stale,
    })
}

pub(super) fn result_ack(id: TaskId, fence: Fence, accepted: bool) -> session_response::Kind {
    let (task_id, fence) = (id.to_string(), num::to_i64(fence.0));
    session_response::Kind::ResultAck(wire::ResultAck { task_id, fence, accepted })
}
