//! Side channel: a named pipe into which the program writes JSON lines. An unreadable line becomes a
//! notice and never fails the attempt.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use cap_std::fs::{OpenOptions, OpenOptionsExt};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use rota_proto::v1::{
    AgentMessage, MessageRole, Progress, Severity, TaskResult, ToolCall, ToolResult, Usage, event,
};
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio_util::codec::{AnyDelimiterCodec, Decoder};
use tokio_util::sync::CancellationToken;

use crate::layout::{EVENTS, Scratch};
use crate::program_dir;
use crate::report::notice;
use crate::runtimes::structs;

/// Maximum length of a line.
const MAX_LINE_BYTES: usize = 256 << 10;
/// Maximum number of notices about unreadable lines.
const MAX_NOTICES: usize = 10;

/// A line of the side channel. Unknown fields are ignored, for programs newer than the worker.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    progress: Option<f64>,
    step: String,
    result: Option<serde_json::Value>,
    usage: Option<Usage>,
    message: Option<String>,
    #[serde(alias = "toolCall")]
    tool_call: Option<ToolCall>,
    #[serde(alias = "toolResult")]
    tool_result: Option<ToolResult>,
}

/// Result and usage received, the last of each.
#[derive(Debug, Default)]
pub(super) struct SideChannelOutput {
    pub(super) result: Option<TaskResult>,
    pub(super) usage: Option<Usage>,
}

/// The worker's end of the pipe.
#[derive(Debug)]
pub(super) struct SideChannel {
    path: PathBuf,
    receiver: pipe::Receiver,
}

impl SideChannel {
    /// Creates the pipe, in place of what earlier programs of the attempt have put there.
    pub(super) fn open(scratch: &Path) -> io::Result<Self> {
        let folder = program_dir::open(scratch)?;
        program_dir::remove(&folder, Path::new(EVENTS))?;
        nix::unistd::mkfifoat(&folder, EVENTS, Mode::S_IRUSR | Mode::S_IWUSR)?;
        // Opened for writing too, so that it does not end between two writers.
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
        let receiver = pipe::Receiver::from_file(folder.open_with(EVENTS, &options)?.into_std())?;
        Ok(Self { path: Scratch(scratch).events(), receiver })
    }

    pub(super) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Reads lines until `closed` is cancelled, then the rest of the pipe.
    pub(super) async fn listen(
        mut self,
        events: &mpsc::Sender<event::Kind>,
        closed: &CancellationToken,
    ) -> SideChannelOutput {
        let mut lines = Lines::new();
        let mut buffer = BytesMut::with_capacity(8 << 10);
        while let Some(Ok(1..)) = closed.run_until_cancelled(self.receiver.read_buf(&mut buffer)).await {
            lines.take(&mut buffer, events).await;
        }
        // Read directly: the reactor may not have seen the last write yet.
        if let Ok(rest) = self.receiver.into_nonblocking_fd() {
            let (mut rest, mut piece) = (std::fs::File::from(rest), [0; 8 << 10]);
            while let Ok(read @ 1..) = rest.read(&mut piece) {
                buffer.extend_from_slice(&piece[..read]);
                lines.take(&mut buffer, events).await;
            }
        }
        // The last line may be unterminated.
        if let Ok(Some(line)) = lines.codec.decode_eof(&mut buffer) {
            lines.line(&line, events).await;
        }
        lines.output
    }
}

struct Lines {
    codec: AnyDelimiterCodec,
    output: SideChannelOutput,
    remarks: usize,
    /// Last progress; a step without `progress` repeats it.
    fraction: f64,
}

impl Lines {
    fn new() -> Self {
        let codec = AnyDelimiterCodec::new_with_max_length(b"\n".to_vec(), b"\n".to_vec(), MAX_LINE_BYTES);
        Self { codec, output: SideChannelOutput::default(), remarks: 0, fraction: 0.0 }
    }

    async fn take(&mut self, buffer: &mut BytesMut, events: &mpsc::Sender<event::Kind>) {
        loop {
            match self.codec.decode(buffer) {
                Ok(Some(line)) => self.line(&line, events).await,
                Ok(None) => return,
                // The codec skips the rest of that line.
                Err(_) => self.remark("the line is too long".to_owned(), events).await,
            }
        }
    }

    async fn line(&mut self, line: &Bytes, events: &mpsc::Sender<event::Kind>) {
        if line.trim_ascii().is_empty() {
            return;
        }
        let line: Line = match serde_json::from_slice(line) {
            Ok(line) => line,
            Err(error) => return self.remark(error.to_string(), events).await,
        };
        if let Some(result) = line.result {
            self.output.result = Some(result_of(result));
        }
        if let Some(usage) = line.usage {
            self.output.usage = Some(usage.clone());
            let _ = events.send(event::Kind::Usage(usage)).await;
        }
        if let Some(text) = line.message {
            let message = AgentMessage { role: MessageRole::Assistant.into(), text, number: 0 };
            let _ = events.send(event::Kind::Message(message)).await;
        }
        if let Some(call) = line.tool_call {
            let _ = events.send(event::Kind::ToolCall(call)).await;
        }
        if let Some(result) = line.tool_result {
            let _ = events.send(event::Kind::ToolResult(result)).await;
        }
        if line.progress.is_some() || !line.step.is_empty() {
            self.fraction = line.progress.unwrap_or(self.fraction).clamp(0.0, 1.0);
            let progress = Progress { fraction: self.fraction, step: line.step };
            let _ = events.send(event::Kind::Progress(progress)).await;
        }
    }

    async fn remark(&mut self, reason: String, events: &mpsc::Sender<event::Kind>) {
        self.remarks += 1;
        if self.remarks <= MAX_NOTICES {
            let text = format!("unreadable line in the side channel: {reason}");
            let _ = events.send(notice(Severity::Low, "side_channel", text)).await;
        }
    }
}

/// Converts a string to the result's text, and any other value to its data.
fn result_of(value: serde_json::Value) -> TaskResult {
    match value {
        serde_json::Value::String(text) => TaskResult { text, ..TaskResult::default() },
        other => TaskResult { data: structs::from_json(other), ..TaskResult::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn received_from(lines: &[u8]) -> (SideChannelOutput, Vec<event::Kind>) {
        let scratch = tempfile::tempdir().unwrap();
        let side = SideChannel::open(scratch.path()).unwrap();
        let mut pipe = pipe::OpenOptions::new().open_sender(side.path()).unwrap();
        let (events, mut received) = mpsc::channel(64);
        let closed = CancellationToken::new();
        let write = async {
            tokio::io::AsyncWriteExt::write_all(&mut pipe, lines).await.unwrap();
            closed.cancel();
        };
        let (output, ()) = tokio::join!(side.listen(&events, &closed), write);
        let mut seen = Vec::new();
        while let Ok(kind) = received.try_recv() {
            seen.push(kind);
        }
        (output, seen)
    }

    #[tokio::test]
    async fn what_is_in_the_way_of_the_pipe_is_replaced() {
        let scratch = tempfile::tempdir().unwrap();
        let victim = scratch.path().join("victim");
        nix::unistd::mkfifo(&victim, Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink(&victim, Scratch(scratch.path()).events()).unwrap();
        let side = SideChannel::open(scratch.path()).unwrap();
        assert!(!side.path().is_symlink());
        drop(side);
        std::fs::remove_file(Scratch(scratch.path()).events()).unwrap();
        std::fs::create_dir_all(Scratch(scratch.path()).events().join("deep")).unwrap();
        SideChannel::open(scratch.path()).unwrap();
    }

    #[tokio::test]
    async fn lines_become_events_and_result() {
        let text = br#"{"progress":0.4,"step":"half"}
{"usage":{"input_tokens":3,"outputTokens":"4"}}

{"message":"hello"}
{"toolCall":{"callId":"1","tool":"search","inputJson":"{}"}}
{"toolResult":{"callId":"1","output":"found","isError":true}}
{"result":{"n":1}}"#;
        let (output, seen) = received_from(text).await;
        assert!(matches!(&seen[0], event::Kind::Progress(p) if p.fraction == 0.4 && p.step == "half"));
        assert!(matches!(&seen[1], event::Kind::Usage(u) if u.input_tokens == 3 && u.output_tokens == 4));
        assert!(matches!(&seen[2], event::Kind::Message(m) if m.text == "hello"));
        assert!(
            matches!(&seen[3], event::Kind::ToolCall(call) if call.tool == "search" && call.call_id == "1")
        );
        assert!(
            matches!(&seen[4], event::Kind::ToolResult(result) if result.output == "found" && result.is_error)
        );
        assert_eq!(output.usage.unwrap().output_tokens, 4);
        assert_eq!(serde_json::to_value(output.result.unwrap().data).unwrap(), serde_json::json!({"n": 1.0}));
    }

    #[tokio::test]
    async fn unreadable_lines_become_notices() {
        let mut text = b"nonsense\n\xff\xfe\n".to_vec();
        text.extend(vec![b'x'; MAX_LINE_BYTES + 10]);
        text.extend(b"\n{\"result\":\"fine\"}\n");
        let (output, seen) = received_from(&text).await;
        assert_eq!(output.result.unwrap().text, "fine");
        assert_eq!(seen.len(), 3);
        assert!(seen.iter().all(|kind| matches!(kind, event::Kind::Notice(_))));
    }
}
