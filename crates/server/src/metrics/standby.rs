//! Metrics of a replica that stands by, which an owner has, too. Knows nothing of connections.

use std::sync::atomic::AtomicI64;

use prometheus_client::metrics::gauge::Gauge;
use rota_telemetry::metrics::Registry;

const OWNER_HELP: &str =
    "Whether this replica owns the records (1), or passes its connections on to the one that does (0)";
const PASSED_HELP: &str = "Connections that this replica passes on to the owner; 0 at the owner";

/// Returns the page of a replica that stands by and passes on so many connections, with its content type.
pub(crate) fn page(passed: i64, accept: Option<&str>) -> Result<(&'static str, String), std::fmt::Error> {
    let mut registry = Registry::new();
    register(&mut registry, 0, passed);
    registry.encode(accept)
}

/// Registers the metrics as an owner has them.
pub(super) fn register_owner(registry: &mut Registry) {
    register(registry, 1, 0);
}

fn register(registry: &mut Registry, owner: i64, passed: i64) {
    for (name, help, value) in
        [("rota_owner", OWNER_HELP, owner), ("rota_passed_connections", PASSED_HELP, passed)]
    {
        let gauge = Gauge::<i64, AtomicI64>::default();
        gauge.set(value);
        registry.register(name, None, &[], help, &gauge);
    }
}
