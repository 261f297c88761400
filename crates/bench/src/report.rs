//! Reports: measured values as JSON, from which tables, comparisons and plots are made. Knows no benchmark.

use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use serde::{Serialize, Serializer};

/// Longest recorded time; longer ones count as this.
const MAX_MICROS: u64 = 120_000_000;

/// Distribution of a latency, in microseconds.
#[derive(Debug, Clone)]
pub(crate) struct Latency(Histogram<u64>);

impl Latency {
    pub(crate) fn new() -> Self {
        // Valid bounds: the only error of this call is an invalid one.
        Self(Histogram::new_with_max(MAX_MICROS, 3).unwrap_or_else(|_| std::process::abort()))
    }

    pub(crate) fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Returns a quantile in milliseconds.
    pub(crate) fn millis(&self, quantile: f64) -> f64 {
        millis(self.0.value_at_quantile(quantile))
    }

    /// Adds the times of another distribution.
    pub(crate) fn merge(&mut self, other: &Self) -> Result<()> {
        self.0.add(&other.0).context("histograms of different ranges")
    }

    /// Returns quantiles with their latency in milliseconds, the denser the closer to the largest one.
    pub(crate) fn quantiles(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.0.iter_quantiles(5).map(|step| (step.quantile(), millis(step.value_iterated_to())))
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// Returns the histogram in the compressed V2 format of HdrHistogram, in base64.
    fn encode(&self) -> Result<String> {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&self.0, &mut bytes).context("failed to encode a histogram")?;
        Ok(BASE64_STANDARD.encode(bytes))
    }

    pub(crate) fn decode(text: &str) -> Result<Self> {
        let bytes = BASE64_STANDARD.decode(text).context("a histogram is not base64")?;
        let histogram =
            Deserializer::new().deserialize(&mut bytes.as_slice()).context("failed to decode a histogram")?;
        Ok(Self(histogram))
    }
}

fn millis(micros: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of two minutes fit")]
    let micros = micros as f64;
    micros / 1000.0
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::{Error as _, SerializeStruct};
        let mut shape = serializer.serialize_struct("Latency", 7)?;
        shape.serialize_field("p50_ms", &self.millis(0.5))?;
        shape.serialize_field("p90_ms", &self.millis(0.9))?;
        shape.serialize_field("p99_ms", &self.millis(0.99))?;
        shape.serialize_field("p999_ms", &self.millis(0.999))?;
        shape.serialize_field("max_ms", &millis(self.0.max()))?;
        shape.serialize_field("count", &self.0.len())?;
        shape.serialize_field("hdr", &self.encode().map_err(S::Error::custom)?)?;
        shape.end()
    }
}

/// Values of a run, with its options.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a, O, R> {
    pub(crate) benchmark: &'static str,
    #[serde(flatten)]
    pub(crate) options: &'a O,
    /// Number of processors of this machine.
    pub(crate) processors: usize,
    /// Whether the program was built with optimizations.
    pub(crate) optimized: bool,
    pub(crate) rounds: Vec<R>,
}

impl<'a, O, R> Report<'a, O, R> {
    pub(crate) fn new(benchmark: &'static str, options: &'a O, rounds: Vec<R>) -> Self {
        Self {
            benchmark,
            options,
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            optimized: !cfg!(debug_assertions),
            rounds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histogram_survives_its_encoding() {
        let mut latency = Latency::new();
        for millis in 1..=1000 {
            latency.record(Duration::from_millis(millis));
        }
        let json = serde_json::to_value(&latency).unwrap();
        let mut decoded = Latency::decode(json["hdr"].as_str().unwrap()).unwrap();
        assert_eq!((decoded.count(), decoded.millis(0.5)), (1000, latency.millis(0.5)));
        decoded.merge(&latency).unwrap();
        assert_eq!(decoded.count(), 2000);
        assert!(Latency::decode("no histogram").is_err());
    }
}
