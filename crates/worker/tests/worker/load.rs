//! Load: many empty scripts over one session. Prints the duration; asserts only that none is lost.

use std::collections::HashSet;

use rota_proto::worker::v1::ResultAck;
use rota_proto::worker::v1::session_request::Kind as FromWorker;
use rota_proto::worker::v1::session_response::Kind as ToWorker;
use tokio::time::Instant;

use crate::control_plane::{FakeControlPlane, Worker, assign, script};

const SLOTS: i64 = 256;

#[tokio::test(flavor = "multi_thread")]
async fn empty_scripts_all_succeed() {
    let tasks: i64 = option_env!("ROTA_LOAD_TASKS").and_then(|n| n.parse().ok()).unwrap_or(5_000);
    let mut plane = FakeControlPlane::start().await;
    let _worker = Worker::start_with(&plane, |options| options.slots = SLOTS as usize);
    let mut session = plane.welcomed().await;
    let began = Instant::now();
    let (mut next, mut accepted, mut ended) = (1, HashSet::new(), HashSet::new());
    while next <= SLOTS.min(tasks) {
        session.send(ToWorker::Assign(Box::new(assign(next, script([]))))).await;
        next += 1;
    }
    while i64::try_from(ended.len()).unwrap() < tasks {
        match session.next().await.unwrap() {
            FromWorker::Accept(accept) => assert!(accepted.insert(accept.fence)),
            FromWorker::Result(result) => {
                assert!(accepted.contains(&result.fence) && ended.insert(result.fence));
                let ack = ResultAck { task_id: result.task_id, fence: result.fence, accepted: true };
                session.send(ToWorker::ResultAck(ack)).await;
                if next <= tasks {
                    session.send(ToWorker::Assign(Box::new(assign(next, script([]))))).await;
                    next += 1;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    println!("{tasks} empty scripts in {:?}", began.elapsed());
}
