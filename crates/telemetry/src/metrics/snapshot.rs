//! A page at a moment, as OTLP data. The names are those of the text page, so that a figure is called the same however
//! it came to be stored.

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum,
};
use prometheus_client::encoding::prometheus_protobuf::encode;
use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model as page;
use prometheus_client::registry::Registry;

/// From when to when, in nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) began: u64,
    pub(super) now: u64,
}

/// Everything that a registry holds.
pub(super) fn take(registry: &Registry, span: Span) -> Result<Vec<Metric>, std::fmt::Error> {
    Ok(encode(registry)?.into_iter().filter_map(|family| metric(family, span)).collect())
}

fn metric(family: page::MetricFamily, span: Span) -> Option<Metric> {
    let cumulative = AggregationTemporality::Cumulative.into();
    let kind = family.r#type();
    let metrics = family.metric.into_iter();
    let data = match kind {
        page::MetricType::Counter => Data::Sum(Sum {
            data_points: metrics
                .filter_map(|metric| number(metric.counter?.value, metric.label, span))
                .collect(),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        page::MetricType::Gauge => Data::Gauge(Gauge {
            data_points: metrics
                .filter_map(|metric| number(metric.gauge?.value, metric.label, span))
                .collect(),
        }),
        page::MetricType::Histogram => Data::Histogram(Histogram {
            data_points: metrics
                .filter_map(|metric| Some(histogram(&metric.histogram?, metric.label, span)))
                .collect(),
            aggregation_temporality: cumulative,
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

fn number(value: f64, labels: Vec<page::LabelPair>, span: Span) -> Option<NumberDataPoint> {
    Some(NumberDataPoint {
        attributes: attributes(labels),
        start_time_unix_nano: span.began,
        time_unix_nano: span.now,
        value: Some(Value::AsDouble(value)),
        ..NumberDataPoint::default()
    })
}

/// The page counts in each bucket what is in those below it, too; and its last one has no bound.
fn histogram(seen: &page::Histogram, labels: Vec<page::LabelPair>, span: Span) -> HistogramDataPoint {
    let mut below = 0;
    let own = |bucket: &page::Bucket| {
        let before = std::mem::replace(&mut below, bucket.cumulative_count);
        bucket.cumulative_count.saturating_sub(before)
    };
    let bounds = seen.bucket.iter().map(|bucket| bucket.upper_bound);
    HistogramDataPoint {
        start_time_unix_nano: span.began,
        time_unix_nano: span.now,
        count: seen.sample_count,
        sum: Some(seen.sample_sum),
        explicit_bounds: bounds.take(seen.bucket.len().saturating_sub(1)).collect(),
        bucket_counts: seen.bucket.iter().map(own).collect(),
        attributes: attributes(labels),
        ..HistogramDataPoint::default()
    }
}

fn attributes(labels: Vec<page::LabelPair>) -> Vec<KeyValue> {
    let pair = |label: page::LabelPair| KeyValue {
        key: label.name,
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(label.value)) }),
        ..KeyValue::default()
    };
    labels.into_iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::histogram::Histogram as Counted;
    use prometheus_client::registry::Unit;

    use super::*;

    #[test]
    fn buckets_are_not_cumulative_and_the_last_has_the_rest() {
        let (mut registry, times) = (Registry::default(), Counted::new([1.0, 5.0]));
        registry.register_with_unit("x", "Times", Unit::Seconds, times.clone());
        for time in [0.5, 0.7, 3.0, 9.0] {
            times.observe(time);
        }
        let taken = take(&registry, Span { began: 1, now: 2 }).unwrap();
        assert_eq!((taken[0].name.as_str(), taken[0].unit.as_str()), ("x_seconds", "s"));
        let Some(Data::Histogram(histogram)) = &taken[0].data else { panic!("{taken:?}") };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum), (4, Some(13.2)));
        assert_eq!((&point.bucket_counts[..], &point.explicit_bounds[..]), (&[2, 1, 1][..], &[1.0, 5.0][..]));
    }
}
