//! Ages of resources that are submitted once: tasks and workflows. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rota_crds::{HumanDuration, Time};

/// Age of an object that could not be submitted at which its status reports it: a restart of the control plane takes less.
const FAILING_STATUS_DELAY: Duration = Duration::from_secs(20);

/// Returns whether the status of an object that was not submitted yet has to report that.
pub(crate) fn is_overdue(object: &ObjectMeta, now: Timestamp) -> bool {
    let created = object.creation_timestamp.as_ref().map_or(now, |created| created.0);
    let age = Duration::try_from(now.duration_since(created)).unwrap_or_default();
    age >= FAILING_STATUS_DELAY && object.deletion_timestamp.is_none()
}

/// Returns the remaining time to live of a finished resource: zero when expired, `None` if unlimited.
pub(crate) fn remaining(ttl: Option<HumanDuration>, ended: Option<Time>, now: Timestamp) -> Option<Duration> {
    let age = now.duration_since(ended?.0);
    Some(ttl?.0.saturating_sub(Duration::try_from(age).unwrap_or_default()))
}
