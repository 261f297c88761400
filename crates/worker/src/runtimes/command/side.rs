//! The side channel: a named pipe into which the program writes JSON lines. A line that cannot be
//! read is remarked upon and never fails anything.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
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

use crate::runtimes::{context, notice};

/// Longest line.
const MAX_LINE: usize = 256 << 10;
/// Remarks on unreadable lines, at most.
const MAX_REMARKS: usize = 10;

/// A line. Unknown fields are let through, for programs newer than the worker.
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

/// What the program said for its end.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) result: Option<TaskResult>,
    pub(super) usage: Option<Usage>,
}

/// The worker's end of the pipe.
#[derive(Debug)]
pub(super) struct Side {
    path: PathBuf,
    receiver: pipe::Receiver,
}

impl Side {
    pub(super) fn open(scratch: &Path) -> io::Result<Self> {
        let path = scratch.join("events");
        nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        // Also open for writing, so that it does not end between two writers.
        let receiver = pipe::OpenOptions::new().read_write(true).open_receiver(&path)?;
        Ok(Self { path, receiver })
    }

    pub(super) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Reads until `over`, then what is still there.
    pub(super) async fn listen(
        mut self,
        events: &mpsc::Sender<event::Kind>,
        over: &CancellationToken,
    ) -> Said {
        let mut lines = Lines::new();
        let mut buffer = BytesMut::with_capacity(8 << 10);
        while let Some(Ok(1..)) = over.run_until_cancelled(self.receiver.read_buf(&mut buffer)).await {
            lines.take(&mut buffer, events).await;
        }
        // Straight from the pipe: the event loop may not have heard of what was written last.
        if let Ok(rest) = self.receiver.into_nonblocking_fd() {
            let (mut rest, mut piece) = (std::fs::File::from(rest), [0; 8 << 10]);
            while let Ok(read @ 1..) = rest.read(&mut piece) {
                buffer.extend_from_slice(&piece[..read]);
                lines.take(&mut buffer, events).await;
            }
        }
        // The last line may lack its end.
        if let Ok(Some(line)) = lines.codec.decode_eof(&mut buffer) {
            lines.line(&line, events).await;
        }
        lines.said
    }
}

struct Lines {
    codec: AnyDelimiterCodec,
    said: Said,
    remarks: usize,
    /// A step that comes without a figure leaves the last one as it is.
    fraction: f64,
}

impl Lines {
    fn new() -> Self {
        let codec = AnyDelimiterCodec::new_with_max_length(b"\n".to_vec(), b"\n".to_vec(), MAX_LINE);
        Self { codec, said: Said::default(), remarks: 0, fraction: 0.0 }
    }

    async fn take(&mut self, buffer: &mut BytesMut, events: &mpsc::Sender<event::Kind>) {
        loop {
            match self.codec.decode(buffer) {
                Ok(Some(line)) => self.line(&line, events).await,
                Ok(None) => return,
                // The codec leaves out the rest of that line.
                Err(_) => self.remark("a line is too long".to_owned(), events).await,
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
            self.said.result = Some(result_of(result));
        }
        if let Some(usage) = line.usage {
            self.said.usage = Some(usage.clone());
            let _ = events.send(event::Kind::Usage(usage)).await;
        }
        if let Some(text) = line.message {
            let said = AgentMessage { role: MessageRole::Assistant.into(), text };
            let _ = events.send(event::Kind::Message(said)).await;
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

    async fn remark(&mut self, why: String, events: &mpsc::Sender<event::Kind>) {
        self.remarks += 1;
        if self.remarks <= MAX_REMARKS {
            let text = format!("a line of the side channel cannot be read: {why}");
            let _ = events.send(notice(Severity::Low, "side_channel", text)).await;
        }
    }
}

/// A text, or data.
fn result_of(value: serde_json::Value) -> TaskResult {
    match value {
        serde_json::Value::String(text) => TaskResult { text, ..TaskResult::default() },
        other => TaskResult { data: context::data(other), ..TaskResult::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn heard(lines: &[u8]) -> (Said, Vec<event::Kind>) {
        let scratch = tempfile::tempdir().unwrap();
        let side = Side::open(scratch.path()).unwrap();
        let mut pipe = pipe::OpenOptions::new().open_sender(side.path()).unwrap();
        let (events, mut received) = mpsc::channel(64);
        let over = CancellationToken::new();
        let write = async {
            tokio::io::AsyncWriteExt::write_all(&mut pipe, lines).await.unwrap();
            over.cancel();
        };
        let (said, ()) = tokio::join!(side.listen(&events, &over), write);
        let mut seen = Vec::new();
        while let Ok(kind) = received.try_recv() {
            seen.push(kind);
        }
        (said, seen)
    }

    #[tokio::test]
    async fn lines_become_events_and_a_result() {
        let text = br#"{"progress":0.4,"step":"half"}
{"usage":{"input_tokens":3,"outputTokens":"4"}}

{"message":"hello"}
{"toolCall":{"callId":"1","tool":"search","inputJson":"{}"}}
{"toolResult":{"callId":"1","output":"found","isError":true}}
{"result":{"n":1}}"#;
        let (said, seen) = heard(text).await;
        assert!(matches!(&seen[0], event::Kind::Progress(p) if p.fraction == 0.4 && p.step == "half"));
        assert!(matches!(&seen[1], event::Kind::Usage(u) if u.input_tokens == 3 && u.output_tokens == 4));
        assert!(matches!(&seen[2], event::Kind::Message(m) if m.text == "hello"));
        assert!(
            matches!(&seen[3], event::Kind::ToolCall(call) if call.tool == "search" && call.call_id == "1")
        );
        assert!(
            matches!(&seen[4], event::Kind::ToolResult(result) if result.output == "found" && result.is_error)
        );
        assert_eq!(said.usage.unwrap().output_tokens, 4);
        assert_eq!(serde_json::to_value(said.result.unwrap().data).unwrap(), serde_json::json!({"n": 1.0}));
    }

    #[tokio::test]
    async fn bad_lines_are_remarked_upon_and_the_next_is_read() {
        let mut text = b"nonsense\n\xff\xfe\n".to_vec();
        text.extend(vec![b'x'; MAX_LINE + 10]);
        text.extend(b"\n{\"result\":\"fine\"}\n");
        let (said, seen) = heard(&text).await;
        assert_eq!(said.result.unwrap().text, "fine");
        assert_eq!(seen.len(), 3);
        assert!(seen.iter().all(|kind| matches!(kind, event::Kind::Notice(_))));
    }
}
