//! Figures, as a collector was sent them.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, metric::Data};

use super::texts;

/// One figure at a moment.
#[derive(Debug, Clone)]
pub struct Figure {
    /// Its name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its unit.
    pub unit: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value; a histogram's is how often something was observed.
    pub value: f64,
    /// Which service sent it.
    pub service: String,
    /// By which protocol it came.
    pub via: &'static str,
}

pub(super) fn read(request: ExportMetricsServiceRequest, via: &'static str) -> Vec<Figure> {
    let mut all = Vec::new();
    for resource in request.resource_metrics {
        let attributes = texts(resource.resource.map(|resource| resource.attributes).unwrap_or_default());
        let service = attributes.get("service.name").cloned().unwrap_or_default();
        let metrics = resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics);
        all.extend(metrics.flat_map(|metric| figures(metric, &service, via)));
    }
    all
}

fn figures(metric: Metric, service: &str, via: &'static str) -> Vec<Figure> {
    let (name, unit) = (metric.name, metric.unit);
    let figure = |kind, labels, value| Figure {
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
        #[expect(clippy::cast_precision_loss, reason = "figures of tests are small")]
        Some(Value::AsInt(value)) => value as f64,
        None => f64::NAN,
    };
    match metric.data {
        Some(Data::Sum(sum)) => {
            let kind = if sum.is_monotonic { "counter" } else { "gauge" };
            let points = sum.data_points.into_iter();
            points.map(|point| figure(kind, point.attributes.clone(), number(&point))).collect()
        }
        Some(Data::Gauge(gauge)) => {
            let points = gauge.data_points.into_iter();
            points.map(|point| figure("gauge", point.attributes.clone(), number(&point))).collect()
        }
        #[expect(clippy::cast_precision_loss, reason = "figures of tests are small")]
        Some(Data::Histogram(histogram)) => {
            let points = histogram.data_points.into_iter();
            points.map(|point| figure("histogram", point.attributes, point.count as f64)).collect()
        }
        _ => Vec::new(),
    }
}
