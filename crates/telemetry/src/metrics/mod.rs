//! What every `/metrics` page shares: a registry that knows what it holds, the two text formats, the way to a collector,
//! figures of the process. Knows nothing of what is counted.

mod process;
mod send;
mod snapshot;
mod text;

pub use self::send::interval;
pub(crate) use self::send::{flush, start};

use prometheus_client::registry::{Metric, Registry, Unit};

/// One metric, as a page about metrics tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its name as it is asked for, so a counter's with `_total`.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub help: &'static str,
}

/// A page of metrics that were registered once, and can tell what they are.
#[derive(Debug, Default)]
pub struct Page {
    registry: Registry,
    described: Vec<Described>,
}

impl Page {
    /// An empty page.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a metric. A unit is appended to the name.
    pub fn add<M: Metric + Clone>(
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
            Some(unit) => self.registry.register_with_unit(name, help, unit, metric.clone()),
            None => self.registry.register(name, help, metric.clone()),
        }
    }

    /// Adds what the operating system tells of this process.
    pub fn add_process(&mut self) {
        for figure in process::FIGURES {
            self.describe(figure.name, figure.unit().as_ref(), figure.kind(), &[], figure.help);
        }
        self.registry.register_collector(Box::new(process::Process));
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
        self.described.push(Described { name: format!("{name}{unit}{total}"), kind, labels, help });
    }

    /// What is on it, in order.
    pub fn described(&self) -> &[Described] {
        &self.described
    }

    /// The page in the format that fits an `Accept` header, with its content type.
    pub fn write(&self, accept: Option<&str>) -> Result<(&'static str, String), std::fmt::Error> {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.registry)?;
        Ok(if accept.is_some_and(|accept| accept.contains(text::OPEN_METRICS_TYPE)) {
            (text::OPEN_METRICS, page)
        } else {
            (text::PLAIN, text::plain(&page))
        })
    }

    /// Sends the page as it is to the collector, if there is one. Does not wait.
    pub fn send(&self) {
        let Some(span) = send::span() else { return };
        match snapshot::take(&self.registry, span) {
            Ok(metrics) => send::send(metrics),
            Err(error) => tracing::warn!(%error, "figures cannot be sent"),
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn both_formats_tell_the_same() {
        let (mut page, counter) = (Page::new(), Counter::<u64>::default());
        page.add("x_waits", Some(Unit::Seconds), &[], "How long it waited", &counter);
        page.add_process();
        counter.inc_by(3);
        let (kind, open) =
            page.write(Some("application/openmetrics-text;version=1.0.0,text/plain;q=0.1")).unwrap();
        assert!(kind.starts_with("application/openmetrics-text"));
        assert!(open.contains("# TYPE x_waits_seconds counter\n# UNIT x_waits_seconds seconds\n"), "{open}");
        assert!(open.ends_with("# EOF\n"));
        let (kind, plain) = page.write(None).unwrap();
        assert!(kind.starts_with("text/plain"));
        let told = "# HELP x_waits_seconds_total How long it waited.\n# TYPE x_waits_seconds_total counter\n\
                    x_waits_seconds_total 3\n";
        assert!(plain.starts_with(told), "{plain}");
        assert!(!plain.contains("# UNIT") && !plain.contains("# EOF"));
        for described in page.described() {
            assert!(
                plain.contains(&format!("\n{} ", described.name)),
                "{} is missing in {plain}",
                described.name
            );
        }
    }
}
