//! Measured values, serialized as JSON or shown by the CLI.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

/// Distribution of a latency.
#[derive(Debug, Clone)]
pub struct Latency(Histogram<u64>);

impl Latency {
    pub(crate) fn new() -> Self {
        // Microseconds up to a minute; longer times count as a minute.
        Self(Histogram::new_with_max(60_000_000, 3).unwrap_or_else(|_| unreachable_histogram()))
    }

    pub(crate) fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Returns a quantile in milliseconds.
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

/// Values of one round, measured one after the other on the same disk.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// Latency of a durable write of 4 KiB.
    pub fsync: Latency,
    /// Task lifecycles per second in the store alone, with as many concurrent callers as clients.
    pub raw_tasks_per_second: f64,
    /// Tasks completed per second over gRPC, while each client waits for the commit of its creation.
    pub completed_per_second: f64,
    /// Tasks created durably per second in the same time.
    pub created_per_second: f64,
    /// `completed_per_second / raw_tasks_per_second`.
    pub ratio: f64,
    /// Latency of the call that creates a task, under this load.
    pub creation: Latency,
    /// Time from the call that creates a task to the start of its attempt, on an idle system.
    pub dispatch_idle: Latency,
}

/// Cost of idle workers for the control plane.
#[derive(Debug, Clone, Serialize)]
pub struct Idle {
    /// Number of workers.
    pub workers: usize,
    /// Resident memory of the control plane's process.
    pub resident_bytes: u64,
    /// Share of one core that it used, from 0 to 1.
    pub core_share: f64,
    /// Duration of the measurement in seconds.
    pub seconds: f64,
}

/// All values of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Number of clients that create tasks.
    pub clients: usize,
    /// Number of workers.
    pub workers: usize,
    /// Slots per worker.
    pub slots: usize,
    /// Number of processors of this machine.
    pub processors: usize,
    /// Whether the program was built with optimizations.
    pub optimized: bool,
    /// Values of each round.
    pub rounds: Vec<Round>,
    /// Cost of idle workers, if it was measured.
    pub idle: Option<Idle>,
}
