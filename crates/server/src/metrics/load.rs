//! Metrics of the limits of work, and of its delays.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use rota_telemetry::metrics::Registry;

use super::Metrics;
use super::labels::{Refusal, Resource};

#[derive(Debug, Default)]
pub(super) struct Load {
    refused: Family<Refusal, Counter>,
    ratio: Family<Resource, Gauge<f64, AtomicU64>>,
}

impl Load {
    pub(super) fn register(&self, registry: &mut Registry) {
        for reason in ["TOO_MANY_TASKS", "MEMORY_NEARLY_FULL"] {
            drop(self.refused.get_or_create(&Refusal { reason }));
        }
        let help = "New tasks and workflows that were refused since there is too much work, by reason";
        registry.register("rota_work_refused", None, &["reason"], help, &self.refused);
        let help = "Used part of the limits of work, by resource: tasks (that wait), tasks_of_namespace (of the fullest one) or memory; \
                    new work of low priority is refused from 0.8 on, and all at 1";
        registry.register("rota_load_ratio", None, &["resource"], help, &self.ratio);
    }

    pub(super) fn set(&self, ratios: impl IntoIterator<Item = (&'static str, f64)>) {
        for (resource, ratio) in ratios {
            self.ratio.get_or_create(&Resource { resource }).set(ratio);
        }
    }
}

impl Metrics {
    /// Returns the counter of refused work.
    pub(crate) fn refused(&self) -> Family<Refusal, Counter> {
        self.load.refused.clone()
    }

    /// Records how long after its time a run of a schedule was started.
    pub(crate) fn schedule_lag(&self, lag: Duration) {
        self.schedule_lag.observe(lag.as_secs_f64());
    }
}
