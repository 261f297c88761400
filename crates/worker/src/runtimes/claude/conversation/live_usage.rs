//! Usage while a turn runs: when the CLI is asked for it, and what its answers become. The requests are no sign of life.

use std::time::Duration;

use rota_proto::v1::{Severity, Usage, event};
use tokio::time::Instant;

use super::super::control::Response;
use super::super::lines::StreamEvent;
use super::super::{events, send};
use super::Conversation;

/// Time after which the CLI is asked again, if no message has ended since.
const INTERVAL: Duration = Duration::from_secs(20);
/// Consecutive requests without an answer after which the CLI is taken not to know them.
const MAX_UNANSWERED: u32 = 3;
/// Prefix of the ids of requests.
const REQUEST: &str = "rota-usage-";

#[derive(Debug)]
pub(super) struct LiveUsage {
    requests: u64,
    asked_at: Instant,
    /// Whether the CLI has not answered the last request yet.
    waits: bool,
    /// Consecutive requests that the CLI has not answered.
    unanswered: u32,
    /// Whether the CLI is not asked: it does not know the request, or has not answered several.
    refused: bool,
    /// What the last event has reported.
    sent: Option<Usage>,
}

impl Default for LiveUsage {
    fn default() -> Self {
        Self {
            requests: 0,
            asked_at: Instant::now(),
            waits: false,
            unanswered: 0,
            refused: false,
            sent: None,
        }
    }
}

impl LiveUsage {
    /// Returns when the CLI is asked next.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.refused).then_some(self.asked_at + INTERVAL)
    }
}

/// Whether a response is one to a request for usage.
pub(super) fn is_usage(response: &Response) -> bool {
    response.request_id.starts_with(REQUEST)
}

impl Conversation {
    pub(super) fn request_usage(&mut self) {
        let live = &mut self.live_usage;
        live.asked_at = Instant::now();
        live.unanswered += u32::from(live.waits);
        if live.unanswered >= MAX_UNANSWERED && !live.refused {
            live.refused = true;
            self.record.usage_totals.unanswered();
            self.report_usage();
        } else if !live.refused {
            live.requests += 1;
            live.waits = true;
            let id = format!("{REQUEST}{}", live.requests);
            self.send(&send::get_usage(&id));
        }
    }

    pub(super) fn usage_response(&mut self, response: Response) {
        (self.live_usage.waits, self.live_usage.unanswered) = (false, 0);
        let session = response.response.and_then(|answer| answer.session);
        match session.filter(|_| response.subtype == "success") {
            Some(session) => {
                // One that was only busy is asked again.
                self.live_usage.refused = false;
                self.record.usage_totals.session(session.model_usage);
            }
            None => {
                self.live_usage.refused = true;
                self.record.usage_totals.unanswered();
            }
        }
        self.report_usage();
    }

    /// Counts a streamed part of a message. At its end the CLI has added up what it cost.
    pub(super) fn count_streamed(&mut self, event: StreamEvent, agent: Option<&str>) {
        if !self.record.usage_totals.stream(event, agent) {
            return;
        }
        if self.live_usage.refused {
            self.report_usage();
        } else if !self.live_usage.waits {
            self.request_usage();
        }
    }

    /// Reports usage that has changed.
    fn report_usage(&mut self) {
        let usage = self.record.usage_totals.usage();
        if let Some(usage) = usage.filter(|usage| self.live_usage.sent.as_ref() != Some(usage)) {
            self.live_usage.sent = Some(usage.clone());
            self.emit([event::Kind::Usage(usage)]);
        }
        self.report_unpriced();
    }

    pub(super) fn report_unpriced(&mut self) {
        for model in self.record.usage_totals.unpriced() {
            let text = format!(
                "model {model} has no known price; it is counted as the dearest model until the worker's file of prices has it"
            );
            self.emit([events::notice(Severity::Medium, "model_without_price", text)]);
        }
    }
}
