//! A worker of an earlier version, from its recorded messages: this control plane must understand each of them, and
//! respond as the one that the worker knew. `scripts/compat --record` records them.
//!
//! The responses that the worker waited for drive the replay: an assignment follows the creation of its task, an input the
//! answer to a question. Ids, fences and epochs of this control plane replace the recorded ones.

use std::collections::{HashMap, VecDeque};
use std::mem::discriminant;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use prost::Message;
use rota_proto::names;
use rota_proto::v1::{self, TaskState, event::Kind as Event};
use rota_proto::worker::v1::session_request::Kind as FromWorker;
use rota_proto::worker::v1::session_response::Kind as ToWorker;
use rota_proto::worker::v1::{Assign, SessionRequest, SessionResponse, Welcome, resume_attempt};
use rota_testkit::recording::{self, Call, Entry, Recording};
use rota_testkit::tasks::{self, NAMESPACE, WAIT_TIMEOUT};
use rota_testkit::{Backend, Cluster, Setup, bytes_grpc, history};
use tokio::sync::mpsc;
use tonic::{Code, Streaming};

/// Agent of the recorded worker.
const AGENT: &str = "echo";

/// Attempt by the recorded id of its task and the recorded fence.
type Attempt = (String, i64);

/// Open session, and the responses that were received on it.
struct Session {
    requests: Option<mpsc::UnboundedSender<Bytes>>,
    responses: Streaming<Bytes>,
    /// Received responses that the replay has not come to.
    pending: VecDeque<ToWorker>,
    /// Number of the last acknowledged event, by task and fence of this control plane.
    acked: HashMap<Attempt, i64>,
}

impl Session {
    /// Opens a call with its first message.
    async fn open(cluster: &Cluster, path: &str, first: Bytes) -> Result<Self> {
        let (requests, queue) = mpsc::unbounded_channel();
        requests.send(first)?;
        let responses = bytes_grpc::open(cluster.addr(), path.parse()?, None, queue).await?;
        let (pending, acked) = (VecDeque::new(), HashMap::new());
        Ok(Self { requests: Some(requests), responses, pending, acked })
    }

    /// Receives a response, `None` at the end of the call.
    async fn receive(&mut self) -> Result<Option<ToWorker>> {
        let message = tokio::time::timeout(WAIT_TIMEOUT, self.responses.message()).await;
        let Some(message) = message.context("no response in time")?? else { return Ok(None) };
        Ok(Some(SessionResponse::decode(message)?.kind.context("an empty response")?))
    }

    /// Returns the next response of the same kind as a recorded one.
    async fn like(&mut self, recorded: &ToWorker) -> Result<ToWorker> {
        let is_like = |kind: &ToWorker| discriminant(kind) == discriminant(recorded);
        loop {
            let place = self.pending.iter().position(is_like);
            if let Some(found) = place.and_then(|place| self.pending.remove(place)) {
                return Ok(found);
            }
            let kind = self.receive().await?.context("the call has ended")?;
            self.keep(kind)?;
        }
    }

    fn keep(&mut self, kind: ToWorker) -> Result<()> {
        match kind {
            ToWorker::Heartbeat(_) => {}
            ToWorker::ReportAck(ack) => {
                ensure!(!ack.stale, "a stale attempt: {ack:?}");
                self.acked.insert((ack.task_id, ack.fence), ack.attempt_seq);
            }
            kind => self.pending.push_back(kind),
        }
        Ok(())
    }

    /// Waits for the acknowledgement of an event, alone or with later ones.
    async fn acked(&mut self, attempt: &Attempt, seq: i64) -> Result<()> {
        while self.acked.get(attempt).is_none_or(|acked| *acked < seq) {
            let kind = self.receive().await?.context("the call ended before an acknowledgement")?;
            self.keep(kind)?;
        }
        Ok(())
    }
}

/// Recorded worker, and what this control plane has in place of what was recorded.
struct Replay {
    cluster: Cluster,
    tasks: HashMap<String, v1::Task>,
    fences: HashMap<Attempt, i64>,
    epoch: i64,
}

impl Replay {
    fn client(&self) -> &rota_testkit::client::Client {
        self.cluster.client()
    }

    fn task(&self, recorded: &str) -> Result<&v1::Task> {
        self.tasks.get(recorded).with_context(|| format!("no task in place of {recorded}"))
    }

    fn attempt(&self, recorded_task: &str, recorded_fence: i64) -> Result<Attempt> {
        let fence = self.fences.get(&(recorded_task.to_owned(), recorded_fence));
        Ok((self.task(recorded_task)?.uid.clone(), *fence.context("no such assignment")?))
    }

    /// Replaces the recorded ids of tasks by those of this control plane.
    fn with_ids(&self, message: &[u8]) -> Result<Bytes> {
        let mut message = Bytes::copy_from_slice(message);
        for (recorded, task) in &self.tasks {
            message = recording::replace_text(&message, recorded, &task.uid)?;
        }
        Ok(message)
    }

    /// Returns a recorded message of the worker as it is sent.
    fn request(&self, message: &Bytes) -> Result<Bytes> {
        let kind = SessionRequest::decode(message.clone())?.kind.context("an unknown kind of message")?;
        let mut replaced = self.with_ids(message)?;
        let (field, task, fence) = match kind {
            FromWorker::Hello(hello) => {
                let running = hello.running.iter().map(|one| Ok(self.attempt(&one.task_id, one.fence)?.1));
                let mut fences = running.collect::<Result<VecDeque<_>>>()?;
                let mut next = |fence| fences.pop_front().map_or(fence, i64::cast_unsigned);
                replaced = recording::replace_varints(&replaced, &[1, 8, 2], &mut next)?;
                let epoch = self.epoch.cast_unsigned();
                return recording::replace_varints(&replaced, &[1, 13], &mut |_| epoch);
            }
            FromWorker::Heartbeat(_) | FromWorker::Draining(_) => return Ok(message.clone()),
            FromWorker::Accept(accept) => (2, accept.task_id, accept.fence),
            FromWorker::Report(report) => (4, report.task_id, report.fence),
            FromWorker::Result(result) => (5, result.task_id, result.fence),
            other => bail!("not in the recording: {other:?}"),
        };
        let fence = self.attempt(&task, fence)?.1.cast_unsigned();
        recording::replace_varints(&replaced, &[field, 2], &mut |_| fence)
    }

    /// Does what made the control plane send a recorded response, waits for one of that kind, and compares both.
    async fn response(&mut self, session: &mut Session, message: &Bytes) -> Result<()> {
        let recorded =
            SessionResponse::decode(message.clone())?.kind.context("an unknown kind of response")?;
        match &recorded {
            ToWorker::Heartbeat(_) => return Ok(()),
            ToWorker::ReportAck(ack) => {
                let attempt = self.attempt(&ack.task_id, ack.fence)?;
                return session.acked(&attempt, ack.attempt_seq).await;
            }
            ToWorker::Assign(assign) if assign.attempt == 1 => {
                let task = self.create(assign).await?;
                self.tasks.insert(assign.task_id.clone(), task);
            }
            ToWorker::Cancel(cancel) => {
                let (name, reason) = (self.task(&cancel.task_id)?.name.clone(), cancel.reason.clone());
                self.client().cancel_task(v1::CancelTaskRequest { name, reason }).await?;
            }
            ToWorker::Input(input) => {
                let (name, input) = (self.task(&input.task_id)?.name.clone(), input.input.clone());
                self.client().send_task_input(v1::SendTaskInputRequest { name, input }).await?;
            }
            ToWorker::Drain(_) => {
                let name = names::agent(NAMESPACE, AGENT);
                self.client().drain_agent(v1::DrainAgentRequest { name, ..Default::default() }).await?;
            }
            ToWorker::Welcome(_) | ToWorker::Assign(_) | ToWorker::ResultAck(_) | ToWorker::Follow(_) => {}
        }
        let received = session.like(&recorded).await?;
        match (recorded, received) {
            (ToWorker::Welcome(recorded), ToWorker::Welcome(welcome)) => {
                self.welcomed(&recorded, &welcome)?
            }
            (ToWorker::Assign(recorded), ToWorker::Assign(assign)) => {
                self.assigned(&recorded, *assign, message)?;
            }
            (ToWorker::ResultAck(mut wanted), ToWorker::ResultAck(ack)) => {
                (wanted.task_id, wanted.fence) = self.attempt(&wanted.task_id, wanted.fence)?;
                assert_eq!(ack, wanted);
            }
            (ToWorker::Cancel(mut wanted), ToWorker::Cancel(cancel)) => {
                (wanted.task_id, wanted.fence) = self.attempt(&wanted.task_id, wanted.fence)?;
                assert_eq!(cancel, wanted);
            }
            (ToWorker::Input(mut wanted), ToWorker::Input(input)) => {
                (wanted.task_id, wanted.fence) = self.attempt(&wanted.task_id, wanted.fence)?;
                assert_eq!(input, wanted);
            }
            // The reason of a drain is for the log.
            (_, _) => {}
        }
        Ok(())
    }

    fn welcomed(&mut self, recorded: &Welcome, welcome: &Welcome) -> Result<()> {
        ensure!(welcome.epoch > self.epoch, "{welcome:?}");
        self.epoch = welcome.epoch;
        let mut resume = recorded.resume.clone();
        for one in &mut resume {
            (one.task_id, one.fence) = self.attempt(&one.task_id, one.fence)?;
            ensure!(matches!(one.kind, Some(resume_attempt::Kind::ContinueAfter(1))), "{one:?}");
        }
        assert_eq!(welcome.resume, resume);
        assert_eq!(welcome.on_disconnect, recorded.on_disconnect);
        let durations = [&welcome.heartbeat_interval, &welcome.heartbeat_timeout, &welcome.reconnect_grace];
        ensure!(durations.iter().all(|one| one.is_some()), "{welcome:?}");
        Ok(())
    }

    /// Creates a task as the recorded assignment has it.
    async fn create(&self, recorded: &Assign) -> Result<v1::Task> {
        let mut spec = recorded.spec.clone().context("an assignment without a spec")?;
        spec.secrets = recorded.secrets.clone();
        let task =
            v1::Task { alias: recorded.alias.clone(), spec: Some(Box::new(spec)), ..Default::default() };
        tasks::create(self.client(), task).await
    }

    /// Compares an assignment with the recorded one, in all that a worker of that version reads.
    fn assigned(&mut self, recorded: &Assign, assign: Assign, message: &Bytes) -> Result<()> {
        self.fences.insert((recorded.task_id.clone(), recorded.fence), assign.fence);
        ensure!(assign.traceparent.len() == recorded.traceparent.len(), "{assign:?}");
        let now = rota_telemetry::clock::unix_micros() / 1_000_000;
        let deadline = assign.deadline.as_ref().context("an assignment without a deadline")?.seconds;
        ensure!((now..now + 3700).contains(&deadline), "{deadline} at {now}");
        let Some(ToWorker::Assign(mut wanted)) = SessionResponse::decode(self.with_ids(message)?)?.kind
        else {
            bail!("not an assignment");
        };
        wanted.fence = assign.fence;
        wanted.deadline = assign.deadline;
        wanted.time_left = assign.time_left;
        wanted.checkpoints = assign.checkpoints.clone();
        wanted.credential_key = assign.credential_key.clone();
        wanted.own_credentials = assign.own_credentials;
        wanted.release_after = assign.release_after;
        wanted.traceparent = assign.traceparent.clone();
        assert_eq!(assign, *wanted);
        Ok(())
    }

    async fn run(&mut self, call: &Call) -> Result<()> {
        let mut session = None;
        for entry in &call.entries {
            match entry {
                Entry::FromWorker(message) => {
                    let request = self.request(message)?;
                    match &session {
                        None => session = Some(Session::open(&self.cluster, &call.path, request).await?),
                        Some(Session { requests, .. }) => {
                            requests.as_ref().context("the worker's half is closed")?.send(request)?;
                        }
                    }
                }
                Entry::ToWorker(message) => {
                    let session = session.as_mut().context("a response before the first request")?;
                    let place = || format!("instead of {:?}", SessionResponse::decode(message.clone()));
                    self.response(session, message).await.with_context(place)?;
                }
                Entry::HalfClosed => session.as_mut().context("no call")?.requests = None,
                Entry::Ended(status) => {
                    let mut session = session.take().context("no call")?;
                    if status.code() == Code::Ok {
                        while let Some(kind) = session.receive().await? {
                            session.keep(kind)?;
                        }
                    }
                    ensure!(session.pending.is_empty(), "not in the recording: {:?}", session.pending);
                }
            }
        }
        Ok(())
    }
}

/// Events of a worker in the log of a task, in words.
fn reported(log: &[v1::Event]) -> Vec<(i32, String)> {
    let text = |kind: &Event| match kind {
        Event::Output(output) => Some(format!("output {}", String::from_utf8_lossy(&output.data).trim())),
        Event::Progress(progress) => Some(format!("progress {}", progress.fraction)),
        Event::Message(message) => Some(format!("message {}", message.text)),
        Event::Usage(usage) => {
            let v1::Usage { input_tokens, output_tokens, cost_micro_usd, .. } = usage;
            Some(format!("usage {input_tokens} {output_tokens} {cost_micro_usd}"))
        }
        Event::InputRequest(request) => Some(format!("question {}", request.prompt)),
        Event::InputReceived(given) => Some(format!("answer {}", given.input.as_ref()?.text)),
        Event::Notice(notice) => Some(format!("notice {}", notice.code)),
        _ => None,
    };
    let events = log.iter().filter_map(|event| Some((event.attempt, text(event.kind.as_ref()?)?)));
    events.collect()
}

#[tokio::test]
async fn recorded_worker_is_served_as_before() -> Result<()> {
    let mut setup = Setup::new(Backend::Sqlite);
    // The recording has one heartbeat, whatever the machine is busy with.
    setup.timing.heartbeat_timeout = Duration::from_secs(120);
    setup.timing.reconnect_grace = Duration::from_secs(120);
    let cluster = Cluster::start_with(setup).await?;
    tasks::agent(cluster.client(), AGENT, tasks::script([]), &[]).await?;
    let mut replay = Replay { cluster, tasks: HashMap::new(), fences: HashMap::new(), epoch: 0 };
    let recording = Recording::dc61eb4()?;
    for call in recording.sessions() {
        replay.run(call).await?;
    }

    // As crates/cli/tests/processes/compat/record.rs has them.
    let client = replay.client();
    let mut ended = Vec::new();
    for task in replay.tasks.values() {
        let status = tasks::ended(client, &task.name).await?.status.unwrap_or_default();
        let text = status.result.as_ref().map(|result| result.text.clone()).unwrap_or_default();
        let tokens = status.usage.as_ref().map_or(0, |usage| usage.input_tokens);
        let events = reported(&tasks::log(client, &task.name).await?);
        let events = events.into_iter().map(|(attempt, text)| format!("{attempt}: {text}"));
        ended.push((text, status.state(), status.attempt, tokens, events.collect::<Vec<_>>()));
    }
    ended.sort_by_key(|(text, ..)| text.clone());
    let first = ["1: output line 1 of 2", "1: progress 0.5", "1: message Half of it", "1: usage 10 5 7"];
    let second = first.map(|event| event.replace("1: ", "2: "));
    let retried =
        first.map(str::to_owned).into_iter().chain(second).chain(["2: output line 2 of 2".to_owned()]);
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let asking = texts(&["1: question Go on?", "1: answer yes", "1: output line 1 of 1"]);
    let program = "Good day, 9 characters, answered";
    let wanted = [
        (String::new(), TaskState::Cancelled, 1, 0, texts(&["1: output begun"])),
        (program.to_owned(), TaskState::Succeeded, 1, 0, texts(&[&format!("1: output {program}")])),
        ("answered".to_owned(), TaskState::Succeeded, 1, 0, asking),
        ("in two attempts".to_owned(), TaskState::Succeeded, 2, 20, retried.collect()),
    ];
    assert_eq!(ended, wanted);
    history::check(client, true).await?.check()
}
