//! Standard Prometheus metrics of this process (`process_cpu_seconds_total` and so on), sampled on each scrape.

use metrics_process::collector::{Metrics, collect};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// A process metric and where a sample has its value.
pub(super) struct ProcessMetric {
    /// Without unit and suffix.
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) unit: Option<Unit>,
    pub(super) help: &'static str,
    value: fn(&Metrics) -> Option<f64>,
}

pub(super) static METRICS: [ProcessMetric; 7] = [
    ProcessMetric {
        name: "process_cpu",
        kind: "counter",
        unit: Some(Unit::Seconds),
        help: "Total user and system CPU time",
        value: |sample| sample.cpu_seconds_total,
    },
    ProcessMetric {
        name: "process_resident_memory",
        kind: "gauge",
        unit: Some(Unit::Bytes),
        help: "Resident memory",
        value: |sample| sample.resident_memory_bytes.map(float),
    },
    ProcessMetric {
        name: "process_virtual_memory",
        kind: "gauge",
        unit: Some(Unit::Bytes),
        help: "Virtual memory",
        value: |sample| sample.virtual_memory_bytes.map(float),
    },
    ProcessMetric {
        name: "process_start_time",
        kind: "gauge",
        unit: Some(Unit::Seconds),
        help: "Start time of the process since the Unix epoch",
        value: |sample| sample.start_time_seconds.map(float),
    },
    ProcessMetric {
        name: "process_threads",
        kind: "gauge",
        unit: None,
        help: "Operating system threads",
        value: |sample| sample.threads.map(float),
    },
    ProcessMetric {
        name: "process_open_fds",
        kind: "gauge",
        unit: None,
        help: "Open file descriptors",
        value: |sample| sample.open_fds.map(float),
    },
    ProcessMetric {
        name: "process_max_fds",
        kind: "gauge",
        unit: None,
        help: "Maximum number of open file descriptors",
        // The library has 0 for a process without a limit.
        value: |sample| sample.max_fds.map(|max| if max == 0 { f64::INFINITY } else { float(max) }),
    },
];

#[expect(clippy::cast_precision_loss, reason = "metric values need not be exact beyond 2^53")]
fn float(value: u64) -> f64 {
    value as f64
}

/// Samples the process on each scrape. Values that the operating system does not provide are left out.
#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let sample = collect();
        for metric in &METRICS {
            let Some(value) = (metric.value)(&sample) else { continue };
            let (counter, gauge) = (ConstCounter::new(value), ConstGauge::new(value));
            let value: &dyn EncodeMetric = if metric.kind == "counter" { &counter } else { &gauge };
            let help = format!("{}.", metric.help);
            let unit = metric.unit.as_ref();
            value.encode(encoder.encode_descriptor(metric.name, &help, unit, value.metric_type())?)?;
        }
        Ok(())
    }
}
