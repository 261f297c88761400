//! Times in which Rota took no tasks: it was stopped, its machine slept, or its store took no writes. Queue timeouts do not
//! count them, since no worker could have taken a task, nor do deadlines of workflows. For deadlines on workers, which
//! are judged later instead, the server observes outages of writes itself, with the same threshold.

use std::collections::VecDeque;
use std::time::Duration;

use rota_core::{Namespace, Timestamp, WorkflowKey, workflow};

use super::Engine;
use crate::{Backend, Snapshot, Span, StepKey};

/// Spans that are kept; older ones count again. More of them mean that Rota was never up for long.
const MAX_SPANS: usize = 128;

/// Time after a span in which workers connect again, which does not count either.
pub(super) const RESUME_TIME: Duration = Duration::from_secs(30);

/// Shortest outage that is added; shorter ones delay no deadline noticeably.
pub const MIN_OUTAGE: Duration = Duration::from_secs(1);

/// The times that do not count, as disjoint spans, oldest first.
#[derive(Debug, Default)]
pub(super) struct Away {
    spans: VecDeque<Span>,
    /// Last write before the start, until [`Self::opened`].
    last_write: Option<Timestamp>,
    /// Whether they differ from the stored ones.
    changed: bool,
    /// When the writer was started.
    opened_at: Option<Timestamp>,
    /// When the last write failed, if none has succeeded since: the first time.
    failing_since: Option<Timestamp>,
}

impl Away {
    pub(super) fn load(snapshot: &Snapshot) -> Self {
        let spans = snapshot.away.iter().copied().collect();
        Self { spans, last_write: snapshot.written_at, ..Self::default() }
    }

    /// Adds the time since the last write before the start. Rota may have been up for a part of it, which is not known.
    pub(super) fn opened(&mut self, now: Timestamp) {
        self.opened_at = Some(now);
        if let Some(last) = self.last_write.take() {
            self.add(last, now);
        }
    }

    /// Adds a span, with the time in which workers connect again.
    pub(super) fn add(&mut self, from: Timestamp, until: Timestamp) {
        if until.since(from) < MIN_OUTAGE {
            return;
        }
        let mut span = Span { from, until: until + RESUME_TIME };
        while let Some(last) = self.spans.pop_back_if(|last| span.from <= last.until) {
            span = Span { from: last.from.min(span.from), until: last.until.max(span.until) };
        }
        self.spans.push_back(span);
        if self.spans.len() > MAX_SPANS {
            self.spans.pop_front();
        }
        self.changed = true;
    }

    /// Notes that a write failed.
    pub(super) fn failed(&mut self, now: Timestamp) {
        self.failing_since.get_or_insert(now);
    }

    /// Adds the time in which writes have failed up to now.
    pub(super) fn begin(&mut self, now: Timestamp) {
        if let Some(since) = self.failing_since {
            self.add(since, now);
        }
    }

    /// Returns the spans that a write must store.
    pub(super) fn to_store(&self) -> Option<Vec<Span>> {
        self.changed.then(|| self.spans.iter().copied().collect())
    }

    /// Notes that a write has succeeded.
    pub(super) fn written(&mut self) {
        (self.changed, self.failing_since) = (false, None);
    }

    pub(super) fn spans(&self) -> impl Iterator<Item = Span> {
        self.spans.iter().copied()
    }

    /// Returns how much of the time between two moments is known to be in the spans.
    pub(super) fn between(&self, from: Timestamp, until: Timestamp) -> Duration {
        total(self.spans().map(|span| Span { until: span.until.min(until), ..span }), from)
    }
}

impl<B: Backend> Engine<B> {
    /// Returns how much of the time since then does not count for the deadlines of a namespace's workflows. As long as workers
    /// have not come back after a start, that lasts: tasks that they have finished meanwhile may be all that is missing.
    pub(super) fn away_since(&self, namespace: &Namespace, then: Timestamp, now: Timestamp) -> Duration {
        let waits = self.absent.iter().any(|(of, _)| of == namespace);
        let open = self.away.opened_at.filter(|_| waits).map(|from| Span { from, until: now + RESUME_TIME });
        total(self.away.spans().chain(open), then)
    }

    /// Returns how long Rota was away since a step began to wait.
    pub(super) fn away_of_step(&self, key: StepKey, now: Timestamp) -> Duration {
        let set = &self.write_set.workflows;
        let waits = set.step(key).and_then(|step| Some((set.workflow(key.0)?, step.waits_since?)));
        waits.map(|(workflow, since)| self.away_since(&workflow.namespace, since, now)).unwrap_or_default()
    }

    /// Adds to a command on a workflow how long Rota was away.
    pub(super) fn with_away(
        &self,
        key: WorkflowKey,
        mut command: workflow::Command,
        now: Timestamp,
    ) -> workflow::Command {
        let Some(workflow) = self.write_set.workflows.workflow(key) else { return command };
        match &mut command {
            workflow::Command::Resume { away } => {
                let known = workflow.paused_at.map(|then| self.away.between(then, now));
                *away = known.unwrap_or_default();
            }
            workflow::Command::Tick { away, .. } => {
                *away = self.away_since(&workflow.namespace, workflow.began_at(), now);
            }
            _ => {}
        }
        command
    }
}

/// Returns the time since then that is in any of some spans.
pub(super) fn total(spans: impl Iterator<Item = Span>, then: Timestamp) -> Duration {
    let mut spans: Vec<_> = spans.filter(|span| span.until > then).collect();
    spans.sort_unstable_by_key(|span| span.from);
    let (mut counted, mut sum) = (then, Duration::ZERO);
    for span in spans {
        sum += span.until.since(span.from.max(counted));
        counted = counted.max(span.until);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Away {
        fn since(&self, then: Timestamp) -> Duration {
            total(self.spans(), then)
        }
    }

    fn at(second: u64) -> Timestamp {
        Timestamp(1_000_000_000_000) + Duration::from_secs(second)
    }

    fn seconds(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn spans_count_once_and_with_the_time_to_resume() {
        let mut away = Away::default();
        away.add(at(100), at(200));
        assert_eq!(away.since(at(0)), seconds(130));
        assert_eq!(away.since(at(150)), seconds(80));
        assert_eq!(away.since(at(230)), Duration::ZERO);
        away.add(at(150), at(220));
        assert_eq!(away.since(at(0)), seconds(150), "overlapping spans are one");
        away.add(at(1000), at(1001));
        assert_eq!(away.since(at(0)), seconds(150 + 31));
        away.add(at(2000), at(2000));
        assert_eq!(away.to_store().unwrap().len(), 2);
    }

    #[test]
    fn failed_writes_are_a_span_from_the_first_on() {
        let mut away = Away::default();
        for second in [100, 110, 160] {
            away.begin(at(second));
            away.failed(at(second));
        }
        away.begin(at(170));
        assert_eq!(away.since(at(0)), seconds(100));
        away.written();
        away.begin(at(500));
        assert_eq!((away.since(at(0)), away.to_store()), (seconds(100), None));
    }

    #[test]
    fn number_of_spans_is_bounded() {
        let mut away = Away::default();
        for hour in 0..1000 {
            away.add(at(hour * 3600), at(hour * 3600 + 10));
        }
        assert_eq!(away.to_store().unwrap().len(), MAX_SPANS);
    }
}
