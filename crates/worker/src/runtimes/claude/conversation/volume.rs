//! Volume of an attempt's log: what an attempt may write to it in all, beyond which only the beginnings of texts are
//! logged. Knows nothing of their meaning.

use rota_proto::v1::{Output, Severity, event};
use rota_proto::{num, visit_strings};

use crate::report::notice;
use crate::sanitize;

/// Total size of the events of an attempt that are logged whole.
const MAX_EVENT_BYTES: usize = 64 << 20;
/// Total size of standard error that is logged: diagnostics of the CLI and of its MCP servers.
const MAX_STDERR_BYTES: usize = 4 << 20;
/// Size of texts beyond the total.
const MAX_EXCERPT_BYTES: usize = 200;

#[derive(Debug)]
pub(super) struct LogVolume {
    events: usize,
    stderr: usize,
}

impl Default for LogVolume {
    fn default() -> Self {
        Self { events: MAX_EVENT_BYTES, stderr: MAX_STDERR_BYTES }
    }
}

impl LogVolume {
    /// Takes an event into account, and cuts its texts once the volume is used up. Returns a notice of that, once.
    pub(super) fn take(&mut self, kind: &mut event::Kind) -> Option<event::Kind> {
        if let event::Kind::Output(output) = kind {
            return self.take_output(output);
        }
        let mut size = 0;
        visit_strings::in_event(kind, &mut |text| size += text.len());
        let exhausted = self.events == 0;
        self.events = self.events.saturating_sub(size);
        // A question must be shown whole; their number is bounded.
        if exhausted && !matches!(kind, event::Kind::InputRequest(_)) {
            visit_strings::in_event(kind, &mut |text| sanitize::truncate(text, MAX_EXCERPT_BYTES));
        }
        let text = "the attempt has logged 64 MiB; from here on, texts are cut";
        (!exhausted && self.events == 0).then(|| notice(Severity::Medium, "log_full", text))
    }

    fn take_output(&mut self, output: &mut Output) -> Option<event::Kind> {
        let exhausted = self.stderr == 0;
        self.stderr = self.stderr.saturating_sub(output.data.len());
        if exhausted {
            output.dropped_bytes = num::to_i64(output.data.len());
            output.data.clear();
        }
        let text = "standard error has 4 MiB; the rest is dropped";
        (!exhausted && self.stderr == 0).then(|| notice(Severity::Low, "stderr_full", text))
    }
}

#[cfg(test)]
mod tests {
    use rota_proto::v1::{InputRequest, OutputStream, ToolResult};

    use super::*;

    #[test]
    fn texts_beyond_the_volume_are_cut() {
        let mut volume = LogVolume::default();
        let mut logged = 0;
        let mut notices = 0;
        for _ in 0..10_000 {
            let result = ToolResult { output: "x".repeat(16 << 10), ..ToolResult::default() };
            let mut kind = event::Kind::ToolResult(result);
            notices += usize::from(volume.take(&mut kind).is_some());
            visit_strings::in_event(&mut kind, &mut |text| logged += text.len());
        }
        assert!(logged < MAX_EVENT_BYTES + 10_000 * MAX_EXCERPT_BYTES + (16 << 10), "{logged}");
        assert_eq!(notices, 1);
        let mut asked =
            event::Kind::InputRequest(InputRequest { prompt: "x".repeat(1000), ..InputRequest::default() });
        volume.take(&mut asked);
        assert!(matches!(asked, event::Kind::InputRequest(asked) if asked.prompt.len() == 1000));
    }

    #[test]
    fn standard_error_beyond_the_volume_is_dropped() {
        let mut volume = LogVolume::default();
        let (mut kept, mut dropped) = (0, 0);
        for _ in 0..100 {
            let data = vec![b'x'; 64 << 10].into();
            let mut kind =
                event::Kind::Output(Output { stream: OutputStream::Stderr.into(), data, dropped_bytes: 0 });
            volume.take(&mut kind);
            let event::Kind::Output(output) = kind else { panic!() };
            kept += output.data.len();
            dropped += output.dropped_bytes;
        }
        assert_eq!((kept, kept + dropped as usize), (MAX_STDERR_BYTES, 100 * (64 << 10)));
    }
}
