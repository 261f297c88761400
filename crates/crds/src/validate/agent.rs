//! Validation of `Agent` manifests.

use std::time::Duration;

use super::{Check, Violation};
use crate::Agent;

impl Agent {
    /// Returns all violations of the validation rules.
    pub fn validate(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        let mut check = Check { path: String::new(), found: &mut found };
        check.metadata(&self.metadata, false);
        let (spec, mut check) = (&self.spec, check.field("spec"));
        check.runtime("runtime", Some(&spec.runtime), true);
        check.capabilities(&spec.capabilities, 64);
        check.length("description", spec.description.as_deref(), rota_proto::limits::TITLE_BYTES);
        check.range("slots", spec.slots, 1, 64);
        check.range("replicas", Some(spec.replicas), 0, 10_000);
        check.range("maxReplicas", spec.max_replicas, 0, 10_000);
        check.range("spareWorkers", spec.spare_workers, 0, 10_000);
        if let Some(max) = spec.max_replicas.filter(|max| *max < spec.replicas) {
            check
                .field("maxReplicas")
                .fail(format!("must not be below replicas ({}), is {max}", spec.replicas));
        }
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(120));
        check.duration("reconnectGrace", spec.reconnect_grace, least, most);
        check.duration("idleTimeout", spec.idle_timeout, Duration::ZERO, Duration::from_hours(7 * 24));
        let week = Duration::from_hours(7 * 24);
        check.duration("releaseWaitingAfter", spec.release_waiting_after, Duration::ZERO, week);
        check.environment("environment", &spec.environment);
        check.limits("defaultLimits", spec.default_limits.as_ref());
        if let Some(budget) = &spec.budget {
            let limits = [budget.daily_usd, budget.monthly_usd];
            let limited = limits.iter().flatten().any(|usd| usd.micro > 0);
            let zero = limits.iter().flatten().any(|usd| usd.micro == 0);
            check
                .field("budget")
                .require(limited && !zero, "dailyUsd or monthlyUsd is required, and must be above 0");
        }
        check.workspace("workspace", spec.workspace.as_ref());
        let git = spec.workspace.as_ref().and_then(|workspace| workspace.git.as_ref());
        check.field("workspace").field("git").field("refFrom").require(
            git.is_none_or(|git| git.ref_from.is_none()),
            "is only for tasks, which have dependencies",
        );
        check.commands("setup", &spec.setup);
        check.setup_cache("setupCache", spec.setup_cache.as_ref());
        check.done_when("doneWhen", spec.done_when.as_ref());
        if let Some(max) =
            spec.max_replicas.filter(|max| spec.spare_workers.is_some_and(|spare| spare > *max))
        {
            check.field("spareWorkers").fail(format!("must not be above maxReplicas ({max})"));
        }
        check.secrets(&spec.secrets);
        if let Some(pod) = &spec.pod {
            check.field("pod").pod(pod);
        }
        found
    }
}
