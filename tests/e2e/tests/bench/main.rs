//! Benchmark of `Task` latency and cost on a real cluster, compared with a Job per task. `make bench-k8s` runs it and prints
//! the measurements.
#![expect(clippy::unwrap_used, reason = "test helpers are tests")]

mod bursts;
mod jobs;
mod report;
mod rules;
mod seen;
mod tasks;

use rota_e2e::{Audit, Space};
use serde_json::json;
use std::time::Duration;

/// Duration of the measurement of idle requests.
const IDLE_DURATION: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures a cluster: make bench-k8s"]
async fn bench() {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let space = Space::new("bench").await;
    let tasks = tasks::measure(&space).await;
    let idle = Audit::start();
    tokio::time::sleep(IDLE_DURATION).await;
    let idle = idle.map(|audit| {
        let calls = audit.calls();
        let workers = format!("system:serviceaccount:{}:", space.name);
        let by = |who: &str| calls.iter().filter(|call| call.user.username.starts_with(who)).count();
        json!({
            "seconds": IDLE_DURATION.as_secs(),
            "requests_by_workers": by(&workers) + by("system:anonymous"),
            "requests_by_operator": by("system:serviceaccount:rota:rota-operator"),
        })
    });
    let bursts = bursts::measure(&space).await;
    let rules = rules::measure(&space).await;
    let image = space.pods.now()[0].spec.as_ref().unwrap().containers[0].image.clone().unwrap();
    let jobs = jobs::measure(&space, &image).await;
    report::print(&json!({
        "processors": std::thread::available_parallelism().map_or(1, usize::from),
        "load_before": load.trim(),
        "optimized_bench": !cfg!(debug_assertions),
        "tasks": tasks,
        "bursts": bursts,
        "rules": rules,
        "idle": idle,
        "jobs": jobs,
    }));
}
