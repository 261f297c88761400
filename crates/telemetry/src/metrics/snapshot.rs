//! Conversion of a registry's current values to OTLP data. Names are those of the text format, so that a metric has
//! one name whichever way it was collected.

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum,
};
use prometheus_client::encoding::prometheus_protobuf::encode;
use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model as prometheus;
use prometheus_client::registry::Registry;

/// Time that cumulative values cover, in nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interval {
    pub(super) start: u64,
    pub(super) end: u64,
}

pub(super) fn take(registry: &Registry, interval: Interval) -> Result<Vec<Metric>, std::fmt::Error> {
    Ok(encode(registry)?.into_iter().filter_map(|family| metric(family, interval)).collect())
}

fn metric(family: prometheus::MetricFamily, interval: Interval) -> Option<Metric> {
    let aggregation_temporality = AggregationTemporality::Cumulative.into();
    let kind = family.r#type();
    let samples = family.metric.into_iter();
    let data = match kind {
        prometheus::MetricType::Counter => Data::Sum(Sum {
            data_points: samples
                .filter_map(|sample| Some(number(sample.counter?.value, sample.label, interval)))
                .collect(),
            aggregation_temporality,
            is_monotonic: true,
        }),
        prometheus::MetricType::Gauge => Data::Gauge(Gauge {
            data_points: samples
                .filter_map(|sample| Some(number(sample.gauge?.value, sample.label, interval)))
                .collect(),
        }),
        prometheus::MetricType::Histogram => Data::Histogram(Histogram {
            data_points: samples
                .filter_map(|sample| Some(histogram(&sample.histogram?, sample.label, interval)))
                .collect(),
            aggregation_temporality,
        }),
        _ => return None,
    };
    Some(Metric {
        name: family.name,
        description: family.help,
        unit: match family.unit.as_str() {
            "seconds" => "s".to_owned(),
            "bytes" => "By".to_owned(),
            "" => String::new(),
            other => format!("{{{other}}}"),
        },
        data: Some(data),
        ..Metric::default()
    })
}

fn number(value: f64, labels: Vec<prometheus::LabelPair>, interval: Interval) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(labels),
        start_time_unix_nano: interval.start,
        time_unix_nano: interval.end,
        value: Some(Value::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

/// Converts a histogram: Prometheus buckets are cumulative and the last one has the bound +Inf, OTLP buckets are
/// disjoint and the last one has no bound.
fn histogram(
    histogram: &prometheus::Histogram,
    labels: Vec<prometheus::LabelPair>,
    interval: Interval,
) -> HistogramDataPoint {
    let mut previous = 0;
    let count = |bucket: &prometheus::Bucket| {
        let below = std::mem::replace(&mut previous, bucket.cumulative_count);
        bucket.cumulative_count.saturating_sub(below)
    };
    let bounds = histogram.bucket.iter().map(|bucket| bucket.upper_bound);
    HistogramDataPoint {
        start_time_unix_nano: interval.start,
        time_unix_nano: interval.end,
        count: histogram.sample_count,
        sum: Some(histogram.sample_sum),
        explicit_bounds: bounds.take(histogram.bucket.len().saturating_sub(1)).collect(),
        bucket_counts: histogram.bucket.iter().map(count).collect(),
        attributes: attributes(labels),
        ..HistogramDataPoint::default()
    }
}

fn attributes(labels: Vec<prometheus::LabelPair>) -> Vec<KeyValue> {
    let pair = |label: prometheus::LabelPair| KeyValue {
        key: label.name,
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(label.value)) }),
        ..KeyValue::default()
    };
    labels.into_iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::histogram::Histogram as Observed;
    use prometheus_client::registry::Unit;

    use super::*;

    #[test]
    fn histogram_buckets_become_disjoint() {
        let (mut registry, times) = (Registry::default(), Observed::new([1.0, 5.0]));
        registry.register_with_unit("x", "Times", Unit::Seconds, times.clone());
        for time in [0.5, 0.7, 3.0, 9.0] {
            times.observe(time);
        }
        let metrics = take(&registry, Interval { start: 1, end: 2 }).unwrap();
        assert_eq!(metrics[0].name, "x_seconds");
        assert_eq!(metrics[0].unit, "s");
        let Some(Data::Histogram(histogram)) = &metrics[0].data else { panic!("{metrics:?}") };
        let point = &histogram.data_points[0];
        assert_eq!(point.count, 4);
        assert_eq!(point.sum, Some(13.2));
        assert_eq!(point.bucket_counts, [2, 1, 1]);
        assert_eq!(point.explicit_bounds, [1.0, 5.0]);
    }
}
