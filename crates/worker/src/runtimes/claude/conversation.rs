//! Holds the conversation with one running CLI: reads its lines, answers its requests, hands it what people
//! say, and sees that its input is closed when nothing more is to be said. It is one loop without tasks
//! of its own; knows pipes, and nothing of processes or of how an end is judged.

mod hear;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use rota_proto::v1::event;
use rota_telemetry::redact::Redactor;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_util::bytes::BytesMut;
use tokio_util::codec::FramedRead;

use super::permission::Desk;
use super::process::Pipes;
use super::reader::{LONGEST, Lines};
use super::record::Record;
use super::send;
use crate::runtimes::tail::Tail;
use crate::runtimes::{Channels, Stop, stopped};

/// After a result, how long a message that was sent may stay without a word on it.
const UNHEARD: Duration = Duration::from_secs(3);
/// After its input was closed, how long an idle CLI may take to go.
const LINGER: Duration = Duration::from_secs(10);
/// Lines that lead to no event still show life: at most this often, that is passed on.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// Unreadable lines that are told one by one.
const TOLD: u64 = 10;
/// Bytes kept of what is printed to stderr.
const STDERR: usize = 4 << 10;
/// Events kept while an end is near and nobody takes them.
const KEPT: usize = 1000;

/// How the conversation ended.
#[derive(Debug)]
pub(super) enum End {
    /// The CLI closed its output.
    Closed,
    /// It does not go though all is said.
    Lingers,
    /// It was told to stop, at this time.
    Stopped(Stop, Instant),
}

/// The state of one conversation.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) record: Record,
    pub(super) stderr: Tail,
    redactor: Redactor,
    desk: Desk,
    /// What the CLI is yet to read.
    out: BytesMut,
    /// Events that are yet to be taken. While there are any, nothing more is read: that is the back-pressure.
    queue: VecDeque<event::Kind>,
    /// Messages whose end the CLI has not told yet.
    open: BTreeSet<String>,
    /// Between a result and the next turn.
    idle: bool,
    /// Nothing more will be said to the CLI.
    closing: bool,
    stopping: Option<(Stop, Instant)>,
    timer: Option<(Timer, Instant)>,
    last_event: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timer {
    Unheard,
    Linger,
    Stop,
}

impl Conversation {
    pub(super) fn new(record: Record, desk: Desk, prompt: &str, redactor: Redactor) -> Self {
        let mut conversation = Self {
            record,
            stderr: Tail::new(&redactor, STDERR),
            redactor,
            desk,
            out: BytesMut::new(),
            queue: VecDeque::new(),
            open: BTreeSet::new(),
            idle: false,
            closing: false,
            stopping: None,
            timer: None,
            last_event: Instant::now(),
        };
        conversation.send(&send::initialize("rota-initialize"));
        conversation.say(prompt);
        conversation
    }

    /// Talks until one of the ends is reached.
    pub(super) async fn run(&mut self, pipes: Pipes, channels: &mut Channels) -> End {
        let Pipes { stdin, stdout, mut stderr } = pipes;
        let mut stdin = Some(stdin);
        let mut lines = FramedRead::new(stdout, Lines::new(LONGEST));
        let (mut chunk, mut stderr_open, mut inputs_open) = (BytesMut::new(), true, true);
        let end = loop {
            self.settle(channels.inputs.is_empty());
            if self.closing && self.out.is_empty() {
                stdin = None;
            }
            let taken = self.queue.is_empty();
            let stopping = self.stopping.is_some();
            let alarm = self.timer.map_or_else(Instant::now, |(_, at)| at);
            tokio::select! {
                piece = lines.next(), if taken || stopping => match piece {
                    Some(Ok(piece)) => self.piece(piece),
                    Some(Err(_)) | None => break End::Closed,
                },
                permit = channels.events.reserve(), if !taken => match (permit, self.queue.pop_front()) {
                    (Ok(permit), Some(event)) => permit.send(event),
                    _ => self.queue.clear(),
                },
                written = write(&mut stdin, &mut self.out), if stdin.is_some() && !self.out.is_empty() => {
                    // It reads no more; what it prints says why.
                    if written.is_err() {
                        self.out.clear();
                        self.closing = true;
                    }
                }
                read = stderr.read_buf(&mut chunk), if stderr_open && (taken || stopping) => {
                    stderr_open = read.is_ok_and(|read| read > 0);
                    self.printed(&mut chunk);
                }
                input = channels.inputs.recv(), if inputs_open && !stopping && !self.closing => match input {
                    Some(input) => self.input(&input),
                    None => inputs_open = false,
                },
                stop = stopped(&mut channels.stop), if !stopping => {
                    // Without its input, only signals reach it.
                    if self.stop(stop) && stdin.is_none() {
                        self.timer = Some((Timer::Stop, Instant::now()));
                    }
                }
                () = tokio::time::sleep_until(alarm), if self.timer.is_some() => {
                    if let Some(end) = self.alarm() {
                        break end;
                    }
                }
            }
        };
        drop(stdin);
        if matches!(end, End::Closed) && stderr_open {
            // What was printed last says most.
            let rest = async { while stderr.read_buf(&mut chunk).await.is_ok_and(|read| read > 0) {} };
            let _ = tokio::time::timeout(Duration::from_secs(1), rest).await;
            self.printed(&mut chunk);
        }
        match self.stopping.take() {
            Some((stop, since)) => End::Stopped(stop, since),
            None => end,
        }
    }

    /// Hands out the events that are left. Ends early when it is told to stop.
    pub(super) async fn flush(&mut self, channels: &mut Channels) {
        while let Some(event) = self.queue.pop_front() {
            tokio::select! {
                sent = channels.events.send(event) => if sent.is_err() { return },
                _ = stopped(&mut channels.stop) => return,
            }
        }
    }

    /// The same for an attempt that is told to stop: what is not taken at once is lost.
    pub(super) fn flush_at_once(&mut self, channels: &Channels) {
        while let Some(event) = self.queue.pop_front() {
            if channels.events.try_send(event).is_err() {
                return;
            }
        }
    }

    /// Sees whether all is said, and what is waited for.
    fn settle(&mut self, no_inputs: bool) {
        if self.stopping.is_some() {
            self.closing |= self.idle;
            return;
        }
        let timer = |timer, after| Some((timer, Instant::now() + after));
        match (self.idle, self.closing, self.timer) {
            (false, _, _) => self.timer = None,
            (true, true, Some((Timer::Linger, _))) => {}
            (true, true, _) => self.timer = timer(Timer::Linger, LINGER),
            (true, false, _) if self.open.is_empty() && no_inputs => {
                self.closing = true;
                self.timer = timer(Timer::Linger, LINGER);
            }
            (true, false, None) => self.timer = timer(Timer::Unheard, UNHEARD),
            (true, false, Some(_)) => {}
        }
    }

    fn alarm(&mut self) -> Option<End> {
        match self.timer.take()?.0 {
            Timer::Unheard => {
                self.open.clear();
                None
            }
            Timer::Linger => Some(End::Lingers),
            // The end is told by `stopping`.
            Timer::Stop => Some(End::Lingers),
        }
    }

    /// Asks the CLI to end its turn, and gives it a third of the grace for that. False if all is done anyway.
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

/// Writes some of `out`. Nothing is lost when it is dropped in between.
async fn write(
    stdin: &mut Option<Box<dyn AsyncWrite + Send + Unpin>>,
    out: &mut BytesMut,
) -> std::io::Result<()> {
    match stdin {
        Some(stdin) => stdin.write_buf(out).await.map(drop),
        None => std::future::pending().await,
    }
}
