//! A task's log as text: output as it was written, and a line for each other entry.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use rota_proto::{HttpBody, v1};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::streams::{Streams, send_in_time};
use crate::store_client::{LOG_PAGE, StoreClient};
use crate::wire::{event, names, time};

const CONTENT_TYPE: &str = "text/plain; charset=utf-8";

/// Streams the log of a task, up to its end at the time of the call, a page of it at a time.
pub(super) async fn download(
    store: &StoreClient,
    streams: &Streams,
    name: &str,
) -> Result<ReceiverStream<Result<HttpBody, Status>>, Status> {
    let (namespace, named) = names::task("name", name)?;
    let task = store.task(&namespace, named).await?;
    let store = store.clone();
    Ok(streams.serve("download-log", 1, |outbox| async move {
        let (mut text, mut seen) = (LogText::default(), 0);
        while seen < task.log_seq {
            let events = store.events(&task, seen, LOG_PAGE).await?;
            let Some(last) = events.last() else { break };
            seen = last.log_seq;
            let kept = events.iter().filter(|entry| entry.log_seq <= task.log_seq);
            kept.for_each(|entry| text.add(&event::to_wire(entry)));
            let part = HttpBody { content_type: CONTENT_TYPE.to_owned(), data: text.take() };
            send_in_time(&outbox, part).await?;
        }
        Ok(())
    }))
}

/// Text of the entries of a log that were added since it was taken.
#[derive(Default)]
struct LogText {
    text: BytesMut,
    /// Whether the last output was cut off within a line.
    is_open: bool,
    /// Entry up to which the log is complete.
    seen: i64,
}

impl LogText {
    fn add(&mut self, entry: &v1::Event) {
        let missing = entry.log_seq - self.seen - 1;
        self.seen = entry.log_seq;
        if missing > 0 {
            self.line(&format!("[{missing} entries of the log are missing here]"));
        }
        if let Some(v1::event::Kind::Output(output)) = &entry.kind {
            if output.dropped_bytes > 0 {
                self.line(&format!("[{} bytes of output were left out here]", output.dropped_bytes));
            }
            self.text.put(output.data.as_ref());
            self.is_open = output.data.last().map_or(self.is_open, |last| *last != b'\n');
        } else if let Some(text) = text_of(entry) {
            let at = entry.time.as_ref().map(|at| time::rfc3339(time::from_timestamp(at)));
            self.line(&format!("[{}] {text}", at.unwrap_or_default()));
        }
    }

    fn line(&mut self, line: &str) {
        if std::mem::take(&mut self.is_open) {
            self.text.put_u8(b'\n');
        }
        self.text.put(line.as_bytes());
        self.text.put_u8(b'\n');
    }

    fn take(&mut self) -> Bytes {
        self.text.split().freeze()
    }
}

/// Returns the text of an entry that is no output; of most kinds, it is what a person reads of it.
pub(super) fn text_of(entry: &v1::Event) -> Option<Cow<'_, str>> {
    use v1::event::Kind;
    Some(match entry.kind.as_ref()? {
        Kind::Message(message) => message.text.as_str().into(),
        Kind::ToolCall(call) => format!("{} {}", call.tool, call.input_json).into(),
        Kind::ToolResult(result) => result.output.as_str().into(),
        Kind::State(state) if state.message.is_empty() => state.reason.as_str().into(),
        Kind::State(state) => format!("{}: {}", state.reason, state.message).into(),
        Kind::Notice(notice) => notice.message.as_str().into(),
        Kind::Progress(progress) => progress.step.as_str().into(),
        Kind::InputRequest(request) if request.prompt.is_empty() => request.tool.as_str().into(),
        Kind::InputRequest(request) => request.prompt.as_str().into(),
        Kind::InputReceived(received) => received.input.as_ref().map_or("", |input| &input.text).into(),
        Kind::Change(change) => change.fields.join(", ").into(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(log_seq: i64, kind: v1::event::Kind) -> v1::Event {
        v1::Event { log_seq, kind: Some(kind), ..Default::default() }
    }

    fn output(log_seq: i64, data: &'static str, dropped_bytes: i64) -> v1::Event {
        let output = v1::Output { data: data.into(), dropped_bytes, ..Default::default() };
        entry(log_seq, v1::event::Kind::Output(output))
    }

    #[test]
    fn output_is_as_written_and_gaps_are_named() {
        let mut text = LogText::default();
        text.add(&output(1, "one\ntw", 0));
        text.add(&output(2, "o", 0));
        let notice = v1::Notice { message: "a notice".to_owned(), ..Default::default() };
        text.add(&entry(3, v1::event::Kind::Notice(notice)));
        text.add(&output(6, "six\n", 7));
        let expected = "one\ntwo\n[] a notice\n[2 entries of the log are missing here]\n\
                        [7 bytes of output were left out here]\nsix\n";
        assert_eq!(text.take(), expected);
        text.add(&output(7, "", 0));
        assert_eq!(text.take(), "");
    }
}
