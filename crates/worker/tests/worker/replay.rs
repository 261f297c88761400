//! A control plane of an earlier version, from its recorded responses: the worker must understand each of them, and report
//! what the worker of that version did. `scripts/compat --record` records them.
//!
//! The worker drives the replay: a response is sent once the worker has sent what the recorded one had sent before it.

use std::collections::{BTreeMap, VecDeque};
use std::mem::discriminant;

use bytes::Bytes;
use prost::Message;
use rota_proto::v1::{Event, event};
use rota_proto::worker::v1::session_request::Kind as FromWorker;
use rota_proto::worker::v1::{Hello, Result as AttemptResult, SessionRequest, result};
use rota_testkit::bytes_grpc;
use rota_testkit::recording::{self, Call, Entry, Recording};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Code;

use crate::control_plane::Worker;
use crate::support::TEST_TIMEOUT;

/// Agent and name of the recorded worker.
const NAME: &str = "echo";

/// Attempt by the id of its task and its fence.
type Attempt = (String, i64);

/// What a worker has sent about its attempts.
#[derive(Default)]
struct Sent {
    events: BTreeMap<Attempt, Vec<Event>>,
    results: BTreeMap<Attempt, AttemptResult>,
}

impl Sent {
    fn add(&mut self, kind: &FromWorker) {
        match kind {
            FromWorker::Report(report) => {
                let events = self.events.entry((report.task_id.clone(), report.fence)).or_default();
                assert_eq!(report.first_attempt_seq, count(events) + 1, "{report:?}");
                events.extend(report.events.iter().cloned());
            }
            FromWorker::Result(result) => {
                let attempt = (result.task_id.clone(), result.fence);
                assert!(self.results.insert(attempt, *result.clone()).is_none(), "{result:?}");
            }
            _ => {}
        }
    }

    fn last(&self, attempt: &Attempt) -> i64 {
        self.events.get(attempt).map_or(0, |events| count(events))
    }

    /// Returns the id of the last question.
    fn question(&self) -> Option<&str> {
        self.events.values().flatten().rev().find_map(|event| match event.kind.as_ref()? {
            event::Kind::InputRequest(request) => Some(request.request_id.as_str()),
            _ => None,
        })
    }

    /// Returns the events without times and ids of questions, which differ each time.
    fn comparable(&self) -> BTreeMap<&Attempt, Vec<event::Kind>> {
        let comparable = |event: &Event| {
            let mut kind = event.kind.clone()?;
            if let event::Kind::InputRequest(request) = &mut kind {
                request.request_id.clear();
            }
            assert!(event.time.is_some(), "{event:?}");
            Some(kind)
        };
        self.events
            .iter()
            .map(|(attempt, events)| (attempt, events.iter().filter_map(comparable).collect()))
            .collect()
    }
}

fn count(events: &[Event]) -> i64 {
    i64::try_from(events.len()).unwrap()
}

fn decode(message: &Bytes) -> FromWorker {
    SessionRequest::decode(message.clone()).unwrap().kind.unwrap()
}

/// Recorded control plane, with what the recorded worker and this one have sent so far.
struct Replay {
    calls: mpsc::UnboundedReceiver<bytes_grpc::Call>,
    recorded: Sent,
    sent: Sent,
    /// Received requests that the replay has not come to.
    pending: VecDeque<FromWorker>,
}

impl Replay {
    async fn call(&mut self) -> (bytes_grpc::Call, Hello) {
        let mut call = timeout(TEST_TIMEOUT, self.calls.recv()).await.expect("a session").unwrap();
        match self.receive(&mut call).await {
            Some(FromWorker::Hello(hello)) => (call, *hello),
            other => panic!("not a Hello: {other:?}"),
        }
    }

    /// Receives a message, `None` at the end of the worker's half of the call.
    async fn receive(&mut self, call: &mut bytes_grpc::Call) -> Option<FromWorker> {
        let message = timeout(TEST_TIMEOUT, call.requests.message()).await.expect("a message").unwrap()?;
        let kind = decode(&message);
        self.sent.add(&kind);
        Some(kind)
    }

    /// Returns the next message of the same kind as a recorded one.
    async fn like(&mut self, call: &mut bytes_grpc::Call, recorded: &FromWorker) -> FromWorker {
        let is_like = |kind: &FromWorker| discriminant(kind) == discriminant(recorded);
        loop {
            let place = self.pending.iter().position(is_like);
            if let Some(found) = place.and_then(|place| self.pending.remove(place)) {
                return found;
            }
            let kind =
                self.receive(call).await.unwrap_or_else(|| panic!("the call ended before {recorded:?}"));
            self.keep(kind);
        }
    }

    fn keep(&mut self, kind: FromWorker) {
        match kind {
            // Reports are in `sent`; the others an earlier control plane receives as well.
            FromWorker::Report(_) | FromWorker::Heartbeat(_) | FromWorker::Status(_) => {}
            kind => self.pending.push_back(kind),
        }
    }

    /// Waits until the worker has sent what the recorded one sent.
    async fn request(&mut self, call: &mut bytes_grpc::Call, recorded: &FromWorker) {
        self.recorded.add(recorded);
        match recorded {
            FromWorker::Heartbeat(_) => {}
            FromWorker::Report(report) => {
                let attempt = (report.task_id.clone(), report.fence);
                while self.sent.last(&attempt) < self.recorded.last(&attempt) {
                    let kind = self.receive(call).await.unwrap_or_else(|| panic!("no end before {report:?}"));
                    self.keep(kind);
                }
            }
            recorded => assert_eq!(self.like(call, recorded).await, *recorded),
        }
    }

    /// Returns a recorded response as it is sent: with a deadline that is not over, and the id of this worker's question.
    fn response(&self, message: &Bytes) -> Bytes {
        let soon = rota_telemetry::clock::unix_micros().cast_unsigned() / 1_000_000 + 3600;
        let message = recording::replace_varints(message, &[2, 4, 1], &mut |_| soon).unwrap();
        match (self.recorded.question(), self.sent.question()) {
            (Some(recorded), Some(sent)) => recording::replace_text(&message, recorded, sent).unwrap(),
            _ => message,
        }
    }

    async fn run(&mut self, recorded: &Call, refusal: &tonic::Status) {
        // Each session begins with the newest version: the control plane may have been upgraded.
        let (call, hello) = self.call().await;
        assert_eq!((call.path.as_str(), hello.protocol_version), (recorded.path.as_str(), 2));
        call.responses.send(Err(refusal.clone())).unwrap();
        let (mut call, hello) = self.call().await;
        let mut hello = Some(hello);
        for entry in &recorded.entries {
            match entry {
                Entry::FromWorker(message) => match (decode(message), hello.take()) {
                    (FromWorker::Hello(recorded), Some(hello)) => assert_hello(hello, *recorded),
                    (kind, _) => self.request(&mut call, &kind).await,
                },
                Entry::ToWorker(message) => call.responses.send(Ok(self.response(message))).unwrap(),
                Entry::HalfClosed => {
                    while let Some(kind) = self.receive(&mut call).await {
                        self.keep(kind);
                    }
                }
                Entry::Ended(status) if status.code() == Code::Ok => {}
                Entry::Ended(status) => call.responses.send(Err(status.clone())).unwrap(),
            }
        }
        assert!(self.pending.is_empty(), "not in the recording: {:?}", self.pending);
    }
}

/// Compares what an earlier control plane reads of a Hello.
fn assert_hello(hello: Hello, recorded: Hello) {
    let wanted = Hello {
        instance: hello.instance.clone(),
        version: hello.version.clone(),
        isolated: hello.isolated,
        not_isolated_reason: hello.not_isolated_reason.clone(),
        delivers: true,
        ..recorded
    };
    assert_eq!(hello, wanted);
}

#[tokio::test]
async fn recorded_control_plane_is_served_as_before() {
    let recording = Recording::dc61eb4().unwrap();
    let refusal = recording.refusal().unwrap();
    let (addr, calls) = bytes_grpc::serve().await.unwrap();
    let worker = Worker::start_at(&format!("http://{addr}"), |options| {
        (options.agent, options.worker, options.slots) = (NAME.to_owned(), NAME.to_owned(), 4);
    });
    let (recorded, sent, pending) = Default::default();
    let mut replay = Replay { calls, recorded, sent, pending };
    for session in recording.sessions() {
        replay.run(session, &refusal).await;
    }
    worker.ended().await.unwrap();

    assert_eq!(replay.sent.comparable(), replay.recorded.comparable());
    // As crates/cli/tests/processes/compat/record.rs has them.
    let outputs = replay.sent.events.values().flatten().filter_map(|event| match event.kind.as_ref()? {
        event::Kind::Output(output) => Some(String::from_utf8_lossy(&output.data).into_owned()),
        _ => None,
    });
    let mut outputs: Vec<_> = outputs.collect();
    let results = replay.sent.results.values().map(|result| match result.kind.as_ref().unwrap() {
        result::Kind::Succeeded(succeeded) => succeeded.text.clone(),
        result::Kind::Failed(failure) => failure.class().as_str_name().to_owned(),
        result::Kind::Cancelled(cancelled) => format!("cancelled by {}", cancelled.by),
    });
    let mut results: Vec<_> = results.collect();
    outputs.sort();
    results.sort();
    let lines = ["line 1 of 1\n", "line 1 of 2\n", "line 1 of 2\n", "line 2 of 2\n"];
    let program = "Good day, 9 characters, answered";
    assert_eq!(outputs, [&[&format!("{program}\n"), "begun\n"][..], &lines].concat());
    let others = ["answered", "cancelled by interrupt", "in two attempts"];
    assert_eq!(results, [&["FAILURE_CLASS_CRASH", program][..], &others].concat());
}
