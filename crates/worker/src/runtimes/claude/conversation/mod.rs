//! Conversation with one running CLI: reads its lines, answers its requests, forwards users' messages, and
//! closes its input when nothing more is to be sent. A single loop without tasks of its own; knows pipes, and
//! nothing of processes or of how an outcome is classified.

mod handlers;
mod live_usage;
mod streaming;
mod volume;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use rota_proto::v1::event;
use rota_telemetry::redact::Redactor;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_util::bytes::BytesMut;
use tokio_util::codec::FramedRead;

use self::live_usage::LiveUsage;
use self::volume::LogVolume;
use super::permission::PermissionQueue;
use super::process::Pipes;
use super::reader::{LineDecoder, MAX_LINE_BYTES};
use super::record::Record;
use super::send;
use crate::runtimes::Channels;
use crate::runtimes::deltas::Deltas;
use crate::supervise::{Stop, stopped};
use crate::tail::Tail;

/// Time after a result for the CLI to acknowledge a message.
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for an idle CLI to exit after its input was closed.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Minimum interval of progress events for lines that become no event, which show that the CLI is active.
const ACTIVITY_INTERVAL: Duration = Duration::from_secs(15);
/// Number of unreadable lines that become notices.
const MAX_UNREADABLE_NOTICES: u64 = 10;
/// Bytes of standard error kept for the failure message.
const STDERR_TAIL_BYTES: usize = 4 << 10;
/// Maximum number of queued events, reached only while an end is near and the consumer has stopped.
const MAX_QUEUED_EVENTS: usize = 1000;

/// Reason why a conversation ended.
#[derive(Debug)]
pub(super) enum ConversationEnd {
    /// The CLI closed its standard output.
    Closed,
    /// The CLI did not exit after its input was closed.
    StillRunning,
    /// A stop was requested, at this time.
    Stopped(Stop, Instant),
}

#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) record: Record,
    pub(super) stderr: Tail,
    redactor: Redactor,
    permissions: PermissionQueue,
    /// Bytes to be written to the CLI.
    out: BytesMut,
    /// Events to be consumed. While there are any, nothing more is read: backpressure.
    queue: VecDeque<event::Kind>,
    /// Messages sent, by id, whose completion the CLI has not reported.
    unacknowledged: BTreeSet<String>,
    /// Between a result and the next turn.
    idle: bool,
    /// No further message is sent; standard input is closed once `out` is written.
    closing: bool,
    stopping: Option<(Stop, Instant)>,
    timer: Option<(Timer, Instant)>,
    last_event: Instant,
    log: LogVolume,
    live_usage: LiveUsage,
    /// Whether a change of the repository's settings was reported.
    settings_changed: bool,
    deltas: Deltas,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timer {
    Unacknowledged,
    Exit,
    Stop,
}

impl Conversation {
    /// `keep_set_up`: the set-up of the repository stays what it was at the start.
    pub(super) fn new(
        record: Record,
        permissions: PermissionQueue,
        prompt: &str,
        keep_set_up: bool,
        redactor: Redactor,
    ) -> Self {
        let mut conversation = Self {
            record,
            stderr: Tail::new(&redactor, STDERR_TAIL_BYTES),
            redactor,
            permissions,
            out: BytesMut::new(),
            queue: VecDeque::new(),
            unacknowledged: BTreeSet::new(),
            idle: false,
            closing: false,
            stopping: None,
            timer: None,
            last_event: Instant::now(),
            log: LogVolume::default(),
            live_usage: LiveUsage::default(),
            settings_changed: false,
            deltas: Deltas::default(),
        };
        conversation.send(&send::initialize("rota-initialize", keep_set_up));
        // Before the first turn: the totals of a resumed session are those of earlier attempts.
        conversation.request_usage();
        conversation.send_message(prompt);
        conversation
    }

    /// Sets where messages are streamed to while the CLI receives them.
    #[must_use]
    pub(super) fn streaming(self, deltas: Deltas) -> Self {
        Self { deltas, ..self }
    }

    /// Runs the conversation to its end.
    pub(super) async fn run(&mut self, pipes: Pipes, channels: &mut Channels) -> ConversationEnd {
        let Pipes { stdin, stdout, mut stderr } = pipes;
        let mut stdin = Some(stdin);
        let mut lines = FramedRead::new(stdout, LineDecoder::new(MAX_LINE_BYTES));
        let (mut chunk, mut stderr_open, mut inputs_open) = (BytesMut::new(), true, true);
        let end = loop {
            self.update_timer(channels.inputs.is_empty());
            if self.closing && self.out.is_empty() {
                stdin = None;
            }
            let drained = self.queue.is_empty();
            let stopping = self.stopping.is_some();
            let usage_at = self.live_usage.due().filter(|_| !self.idle && !self.closing && !stopping);
            let wake_at = self.timer.map_or_else(Instant::now, |(_, at)| at);
            tokio::select! {
                piece = lines.next(), if drained || stopping => match piece {
                    Some(Ok(piece)) => self.handle_raw_line(piece),
                    Some(Err(_)) | None => break ConversationEnd::Closed,
                },
                permit = channels.events.reserve(), if !drained => match (permit, self.queue.pop_front()) {
                    (Ok(permit), Some(event)) => permit.send(event),
                    _ => self.queue.clear(),
                },
                written = write(&mut stdin, &mut self.out), if stdin.is_some() && !self.out.is_empty() => {
                    // The CLI does not read any more; its output shows why.
                    if written.is_err() {
                        self.out.clear();
                        self.closing = true;
                    }
                }
                read = stderr.read_buf(&mut chunk), if stderr_open && (drained || stopping) => {
                    stderr_open = read.is_ok_and(|read| read > 0);
                    self.forward_stderr(&mut chunk);
                }
                input = channels.inputs.recv(), if inputs_open && !stopping && !self.closing => match input {
                    Some(input) => self.input(&input),
                    None => inputs_open = false,
                },
                stop = stopped(&mut channels.stop), if !stopping => {
                    // Without standard input, only signals reach the CLI.
                    if self.stop(stop) && stdin.is_none() {
                        self.timer = Some((Timer::Stop, Instant::now()));
                    }
                }
                () = tokio::time::sleep_until(usage_at.unwrap_or_else(Instant::now)), if usage_at.is_some() => {
                    self.request_usage();
                }
                () = tokio::time::sleep_until(wake_at), if self.timer.is_some() => {
                    if let Some(end) = self.on_timer() {
                        break end;
                    }
                }
            }
        };
        drop(stdin);
        if matches!(end, ConversationEnd::Closed) && stderr_open {
            // The last lines usually name the cause.
            let rest = async { while stderr.read_buf(&mut chunk).await.is_ok_and(|read| read > 0) {} };
            let _ = tokio::time::timeout(Duration::from_secs(1), rest).await;
            self.forward_stderr(&mut chunk);
        }
        // Nothing waits for answers any more.
        let withdrawn = self.permissions.withdraw_all();
        self.apply(withdrawn);
        match self.stopping.take() {
            Some((stop, since)) => ConversationEnd::Stopped(stop, since),
            None => end,
        }
    }

    /// Delivers the remaining events. Returns early on a stop request.
    pub(super) async fn flush(&mut self, channels: &mut Channels) {
        while let Some(event) = self.queue.pop_front() {
            tokio::select! {
                sent = channels.events.send(event) => if sent.is_err() { return },
                _ = stopped(&mut channels.stop) => return,
            }
        }
    }

    /// Delivers the remaining events of a stopped attempt without waiting; those that do not fit are dropped.
    pub(super) fn flush_now(&mut self, channels: &Channels) {
        while let Some(event) = self.queue.pop_front() {
            if channels.events.try_send(event).is_err() {
                return;
            }
        }
    }

    /// Decides whether to close the input, and what to wait for until then.
    fn update_timer(&mut self, no_inputs: bool) {
        if self.stopping.is_some() {
            self.closing |= self.idle;
            return;
        }
        let timer = |timer, after| Some((timer, Instant::now() + after));
        match (self.idle, self.closing, self.timer) {
            (false, _, _) => self.timer = None,
            (true, true, Some((Timer::Exit, _))) => {}
            (true, true, _) => self.timer = timer(Timer::Exit, EXIT_TIMEOUT),
            (true, false, _) if self.unacknowledged.is_empty() && no_inputs => {
                self.closing = true;
                self.timer = timer(Timer::Exit, EXIT_TIMEOUT);
            }
            (true, false, None) => self.timer = timer(Timer::Unacknowledged, UNACKNOWLEDGED_TIMEOUT),
            (true, false, Some(_)) => {}
        }
    }

    fn on_timer(&mut self) -> Option<ConversationEnd> {
        match self.timer.take()?.0 {
            Timer::Unacknowledged => {
                self.unacknowledged.clear();
                None
            }
            Timer::Exit => Some(ConversationEnd::StillRunning),
            // `stopping` takes precedence.
            Timer::Stop => Some(ConversationEnd::StillRunning),
        }
    }

    /// Interrupts the CLI's turn, with a third of the grace period. False if there is none to interrupt.
    fn stop(&mut self, stop: Stop) -> bool {
        let now = Instant::now();
        self.timer = Some((Timer::Stop, now + stop.grace / 3));
        self.stopping = Some((stop, now));
        if !self.idle {
            self.send(&send::interrupt("rota-interrupt"));
        }
        !self.idle
    }
}

/// Writes a part of `out`. Cancel safe.
async fn write(
    stdin: &mut Option<Box<dyn AsyncWrite + Send + Unpin>>,
    out: &mut BytesMut,
) -> std::io::Result<()> {
    match stdin {
        Some(stdin) => stdin.write_buf(out).await.map(drop),
        None => std::future::pending().await,
    }
}
