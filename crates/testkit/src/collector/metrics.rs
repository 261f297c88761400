//! Metric samples as received.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, metric::Data};

use super::texts;

/// Value of a metric at one time.
#[derive(Debug, Clone)]
pub struct MetricSample {
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    pub unit: String,
    pub labels: BTreeMap<String, String>,
    /// Value, or the number of observations of a histogram.
    pub value: f64,
    /// `service.name` of the sender.
    pub service: String,
    /// Protocol: `grpc`, `http/protobuf` or `http/json`.
    pub via: &'static str,
}

pub(super) fn read(request: ExportMetricsServiceRequest, via: &'static str) -> Vec<MetricSample> {
    let mut all = Vec::new();
    for resource in request.resource_metrics {
        let attributes = texts(resource.resource.map(|resource| resource.attributes).unwrap_or_default());
        let service = attributes.get("service.name").cloned().unwrap_or_default();
        let metrics = resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics);
        all.extend(metrics.flat_map(|metric| samples(metric, &service, via)));
    }
    all
}

fn samples(metric: Metric, service: &str, via: &'static str) -> Vec<MetricSample> {
    let (name, unit) = (metric.name, metric.unit);
    let sample = |kind, labels, value| MetricSample {
        name: name.clone(),
        kind,
        unit: unit.clone(),
        labels: texts(labels),
        value,
        service: service.to_owned(),
        via,
    };
    let number = |point: &NumberDataPoint| match point.value {
        Some(Value::AsDouble(value)) => value,
        #[expect(clippy::cast_precision_loss, reason = "values in tests are small")]
        Some(Value::AsInt(value)) => value as f64,
        None => f64::NAN,
    };
    match metric.data {
        Some(Data::Sum(sum)) => {
            let kind = if sum.is_monotonic { "counter" } else { "gauge" };
            let points = sum.data_points.into_iter();
            points.map(|point| sample(kind, point.attributes.clone(), number(&point))).collect()
        }
        Some(Data::Gauge(gauge)) => {
            let points = gauge.data_points.into_iter();
            points.map(|point| sample("gauge", point.attributes.clone(), number(&point))).collect()
        }
        #[expect(clippy::cast_precision_loss, reason = "values in tests are small")]
        Some(Data::Histogram(histogram)) => {
            let points = histogram.data_points.into_iter();
            points.map(|point| sample("histogram", point.attributes, point.count as f64)).collect()
        }
        _ => Vec::new(),
    }
}
