//! What was measured, for programs (JSON) and for people.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

/// A distribution of times.
#[derive(Debug, Clone)]
pub struct Latency(Histogram<u64>);

impl Latency {
    pub(crate) fn new() -> Self {
        // Microseconds up to a minute; what is longer counts as a minute.
        Self(Histogram::new_with_max(60_000_000, 3).unwrap_or_else(|_| unreachable_histogram()))
    }

    pub(crate) fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Milliseconds below which this share of all lies.
    pub fn millis(&self, quantile: f64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "microseconds of a minute fit")]
        let micros = self.0.value_at_quantile(quantile) as f64;
        micros / 1000.0
    }
}

fn unreachable_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 2, 1)
        .unwrap_or_else(|_| Histogram::new(1).unwrap_or_else(|_| std::process::abort()))
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut shape = serializer.serialize_struct("Latency", 3)?;
        shape.serialize_field("p50_ms", &self.millis(0.5))?;
        shape.serialize_field("p99_ms", &self.millis(0.99))?;
        shape.serialize_field("count", &self.0.len())?;
        shape.end()
    }
}

/// One round: everything once, one after the other, so that all of it met the same disk.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// The disk alone.
    pub fsync: Latency,
    /// Whole lives of tasks a second in the store alone, as many at a time as there are clients.
    pub raw_tasks_per_second: f64,
    /// Completed tasks a second over gRPC, each client waiting for its creation's commit.
    pub completed_per_second: f64,
    /// Durable creations a second while they were made.
    pub created_per_second: f64,
    /// `completed_per_second / raw_tasks_per_second`.
    pub ratio: f64,
    /// From the call that creates to its answer, under that load.
    pub creation: Latency,
    /// From the call that creates to the agent's first step, on an idle system.
    pub dispatch_idle: Latency,
}

/// What idle workers cost the control plane.
#[derive(Debug, Clone, Serialize)]
pub struct Idle {
    /// How many.
    pub workers: usize,
    /// Resident memory of the control plane's process.
    pub resident_bytes: u64,
    /// Its share of one core, from 0 to 1.
    pub core_share: f64,
    /// Over how long that was measured.
    pub seconds: f64,
}

/// Everything.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Clients that hand in tasks.
    pub clients: usize,
    /// Workers that do them.
    pub workers: usize,
    /// Slots of each.
    pub slots: usize,
    /// Processors of this machine.
    pub processors: usize,
    /// Whether the program was built with optimisations.
    pub optimised: bool,
    /// The rounds.
    pub rounds: Vec<Round>,
    /// Idle workers, where that was asked for.
    pub idle: Option<Idle>,
}
