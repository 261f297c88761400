//! How soon a `Task` is at its agent, and what it costs, on a real cluster; a Job for each task beside it.
//! `make bench-k8s` runs it. It claims nothing: it prints what it saw.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod jobs;
mod report;
mod seen;
mod tasks;

use rota_e2e::{Audit, Space};
use serde_json::json;
use std::time::Duration;

/// What idle workers ask for is counted for so long.
const IDLE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures a cluster: make bench-k8s"]
async fn bench() {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let space = Space::new("bench").await;
    let tasks = tasks::measure(&space).await;
    let idle = Audit::start();
    tokio::time::sleep(IDLE).await;
    let idle = idle.map(|audit| {
        let calls = audit.calls();
        let workers = format!("system:serviceaccount:{}:", space.name);
        let by = |who: &str| calls.iter().filter(|call| call.user.username.starts_with(who)).count();
        json!({
            "seconds": IDLE.as_secs(),
            "requests_by_workers": by(&workers) + by("system:anonymous"),
            "requests_by_operator": by("system:serviceaccount:rota:rota-operator"),
        })
    });
    let image = space.pods.now()[0].spec.as_ref().unwrap().containers[0].image.clone().unwrap();
    let jobs = jobs::measure(&space, &image).await;
    report::tell(&json!({
        "processors": std::thread::available_parallelism().map_or(1, usize::from),
        "load_before": load.trim(),
        "optimised_bench": !cfg!(debug_assertions),
        "tasks": tasks,
        "idle": idle,
        "jobs": jobs,
    }));
}
