//! Metrics of a replica that stands by, which an owner has, too. Knows nothing of connections.

use std::sync::atomic::AtomicI64;

use prometheus_client::metrics::gauge::Gauge;
use rota_telemetry::metrics::Registry;

const OWNER_HELP: &str =
    "Whether this replica owns the records (1), or passes its connections on to the one that does (0)";
const PASSED_HELP: &str = "Connections that this replica passes on to the owner; 0 at the owner";

/// Returns the page of a replica that stands by and passes on so many connections.
pub(crate) fn page(passed: i64) -> String {
    format!(
        "# HELP rota_owner {OWNER_HELP}\n# TYPE rota_owner gauge\nrota_owner 0\n\
         # HELP rota_passed_connections {PASSED_HELP}\n# TYPE rota_passed_connections gauge\n\
         rota_passed_connections {passed}\n"
    )
}

/// Registers the metrics as an owner has them.
pub(super) fn register_owner(registry: &mut Registry) {
    let (owner, passed) = (Gauge::<i64, AtomicI64>::default(), Gauge::<i64, AtomicI64>::default());
    owner.set(1);
    registry.register("rota_owner", None, &[], OWNER_HELP, &owner);
    registry.register("rota_passed_connections", None, &[], PASSED_HELP, &passed);
}
