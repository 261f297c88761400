//! Current values of a registry, for callers that keep their history.

use prometheus_client::encoding::prometheus_protobuf::encode;
use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model as prometheus;
use prometheus_client::registry::Registry;

/// Value of one metric with one set of labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Name as it is queried: with its unit, and with `_total` for a counter.
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub value: SampleValue,
}

#[derive(Debug, Clone, PartialEq)]
pub enum SampleValue {
    Number(f64),
    /// Sum of what was observed, and the number of observations in each bucket: none is counted twice.
    Histogram {
        sum: f64,
        counts: Vec<u64>,
    },
}

impl Sample {
    /// Returns the value of a label; empty without one.
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(label, _)| label == name).map_or("", |(_, value)| value)
    }
}

pub(super) fn take(registry: &Registry, names: &[&str]) -> Result<Vec<Sample>, std::fmt::Error> {
    let families = encode(registry)?.into_iter().filter(|family| names.contains(&family.name.as_str()));
    let samples = families.flat_map(|prometheus::MetricFamily { name, metric, .. }| {
        metric.into_iter().filter_map(move |metric| sample(&name, metric))
    });
    Ok(samples.collect())
}

fn sample(name: &str, metric: prometheus::Metric) -> Option<Sample> {
    let value = match (metric.counter, metric.gauge, metric.histogram) {
        (Some(counter), ..) => SampleValue::Number(counter.value),
        (_, Some(gauge), _) => SampleValue::Number(gauge.value),
        (.., Some(histogram)) => histogram_value(&histogram),
        _ => return None,
    };
    let labels = metric.label.into_iter().map(|label| (label.name, label.value)).collect();
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Converts a histogram, whose buckets are cumulative.
fn histogram_value(histogram: &prometheus::Histogram) -> SampleValue {
    let mut below = 0;
    let counts = histogram.bucket.iter().map(|bucket| {
        let before = std::mem::replace(&mut below, bucket.cumulative_count);
        bucket.cumulative_count.saturating_sub(before)
    });
    SampleValue::Histogram { sum: histogram.sample_sum, counts: counts.collect() }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::histogram::Histogram;

    use super::*;

    #[test]
    fn samples_have_disjoint_buckets() {
        let (mut registry, times) = (Registry::default(), Histogram::new([1.0, 5.0]));
        let counter = Counter::<u64>::default();
        registry.register("times", "Times", times.clone());
        registry.register("other", "Others", counter.clone());
        registry.register("ends", "Ends", counter.clone());
        for time in [0.5, 0.75, 3.0, 9.0] {
            times.observe(time);
        }
        counter.inc_by(3);
        let samples = take(&registry, &["ends_total", "times"]).unwrap();
        let values: Vec<_> = samples.iter().map(|one| (one.name.as_str(), &one.value)).collect();
        let histogram = SampleValue::Histogram { sum: 13.25, counts: vec![2, 1, 1] };
        assert_eq!(values, [("times", &histogram), ("ends_total", &SampleValue::Number(3.0))]);
    }
}
