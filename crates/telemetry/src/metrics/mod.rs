//! Metrics registry: what `/metrics` serves in both text formats and what is pushed over OTLP. Must not know what the
//! metrics count.
//!
//! The registry is prometheus-client's, and the OTLP sender converts its samples, instead of the OpenTelemetry SDK's
//! meter with its two exporters. The SDK would not do the same: its Prometheus exporter has no OpenMetrics format and
//! brings the registry of a second library, its synchronous gauges keep label sets that [`Family::clear`] removes
//! between scrapes, and its push exporter takes nothing but what its own meters collected (`ResourceMetrics` has no public
//! constructor). So only the conversion and one request are ours; transport, TLS and data types are the libraries'.
//!
//! [`Family::clear`]: prometheus_client::metrics::family::Family::clear

mod export;
mod process;
mod samples;
mod snapshot;
mod text;

pub use self::export::export_interval;
pub(crate) use self::export::{flush, start};
pub use self::samples::{Sample, SampleValue};

use prometheus_client::registry::{Metric, Registry as PrometheusRegistry, Unit};

/// Description of one registered metric, for generated documentation and tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Name as it is queried: with its unit, and with `_total` for a counter.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// Registry of the metrics of one process, with their descriptors.
#[derive(Debug, Default)]
pub struct Registry {
    metrics: PrometheusRegistry,
    descriptors: Vec<Descriptor>,
}

impl Registry {
    /// Creates an empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a metric. The unit is appended to its name.
    pub fn register<M: Metric + Clone>(
        &mut self,
        name: &str,
        unit: Option<Unit>,
        labels: &'static [&'static str],
        help: &'static str,
        metric: &M,
    ) {
        let kind = match metric.metric_type().as_str() {
            "counter" => "counter",
            "histogram" => "histogram",
            _ => "gauge",
        };
        self.describe(name, unit.as_ref(), kind, labels, help);
        match unit {
            Some(unit) => self.metrics.register_with_unit(name, help, unit, metric.clone()),
            None => self.metrics.register(name, help, metric.clone()),
        }
    }

    /// Registers the standard `process_*` metrics of this process.
    pub fn register_process_metrics(&mut self) {
        for metric in &process::METRICS {
            self.describe(metric.name, metric.unit.as_ref(), metric.kind, &[], metric.help);
        }
        self.metrics.register_collector(Box::new(process::ProcessCollector));
    }

    fn describe(
        &mut self,
        name: &str,
        unit: Option<&Unit>,
        kind: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) {
        let unit = unit.map(|unit| format!("_{}", unit.as_str())).unwrap_or_default();
        let total = if kind == "counter" { "_total" } else { "" };
        self.descriptors.push(Descriptor { name: format!("{name}{unit}{total}"), kind, labels, help });
    }

    /// Returns the descriptors in the order of registration.
    pub fn descriptors(&self) -> &[Descriptor] {
        &self.descriptors
    }

    /// Encodes all metrics in the format that an `Accept` header asks for, and returns its content type with the text.
    pub fn encode(&self, accept: Option<&str>) -> Result<(&'static str, String), std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.metrics)?;
        Ok(if accept.is_some_and(|accept| accept.contains(text::OPEN_METRICS_TYPE)) {
            (text::OPEN_METRICS, text)
        } else {
            (text::PLAIN, text::plain(&text))
        })
    }

    /// Returns the current values of the metrics with these names.
    pub fn samples(&self, names: &[&str]) -> Result<Vec<Sample>, std::fmt::Error> {
        samples::take(&self.metrics, names)
    }

    /// Pushes the current values to the collector, if one is configured. Never waits.
    pub fn export(&self) {
        let Some(interval) = export::snapshot_interval() else { return };
        match snapshot::take(&self.metrics, interval) {
            Ok(metrics) => export::export(metrics),
            Err(error) => tracing::warn!(%error, "failed to encode metrics for export"),
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn both_formats_have_the_same_metrics() {
        let (mut registry, counter) = (Registry::new(), Counter::<u64>::default());
        registry.register("x_waits", Some(Unit::Seconds), &[], "Time spent waiting", &counter);
        registry.register_process_metrics();
        counter.inc_by(3);
        let accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.1";
        let (content_type, open) = registry.encode(Some(accept)).unwrap();
        assert!(content_type.starts_with("application/openmetrics-text"));
        assert!(open.contains("# TYPE x_waits_seconds counter\n# UNIT x_waits_seconds seconds\n"), "{open}");
        assert!(open.ends_with("# EOF\n"));
        let (content_type, plain) = registry.encode(None).unwrap();
        assert!(content_type.starts_with("text/plain"));
        let expected = "# HELP x_waits_seconds_total Time spent waiting.\n\
                        # TYPE x_waits_seconds_total counter\nx_waits_seconds_total 3\n";
        assert!(plain.starts_with(expected), "{plain}");
        assert!(!plain.contains("# UNIT"));
        assert!(!plain.contains("# EOF"));
        for descriptor in registry.descriptors() {
            let line = format!("\n{} ", descriptor.name);
            assert!(plain.contains(&line), "{} is missing in {plain}", descriptor.name);
        }
    }
}
