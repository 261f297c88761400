//! Background task that measures the room of the store. A volume does not report by itself that it fills up.

use std::time::Duration;

use rota_telemetry::background_tasks::TaskMonitor;
use tokio_util::sync::CancellationToken;

use crate::store_client::StoreClient;

const INTERVAL: Duration = Duration::from_secs(5);

/// Measures now and then, until `stop`.
pub(super) async fn run(store: StoreClient, stop: CancellationToken, monitor: TaskMonitor) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let activation = monitor.activate();
        match store.measure_space().await {
            Ok(()) => activation.succeeded(),
            Err(error) => activation.failed(&error),
        }
    }
}
