//! Measures an installed Rota: from a Task object to the agent's first byte and to the object's terminal status,
//! one at a time and many at once; a Job per task beside it. `make bench-k8s` runs it. Figures go to standard output
//! as JSON and to standard error as a table. The clocks of node and client must be one.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program for people")]
#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on has nothing better to do")]

mod figures;
mod jobs;
mod tasks;

use rota_e2e::{Audit, Control, Space};
use serde_json::json;

use crate::figures::{Spread, table};

/// Tasks one after the other.
const SERIAL: usize = 200;
/// Tasks at once.
const BURST: usize = 100;
/// Jobs one after the other.
const JOBS: usize = 10;

#[tokio::main]
async fn main() {
    let space = Space::new("bench").await;
    space
        .apply(
            "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: actor}
spec: {runtime: {scripted: {}}, replicas: 2, maxReplicas: 2, slots: 8}
",
        )
        .await;
    space.wait("agent/actor", "jsonpath={.status.idleWorkers}=2", "180s").await;
    let control = Control::connect().await;
    let seen = tasks::Seen::start(&space.name).await;
    // The first ones find connections closed and caches empty.
    for number in 0..5 {
        seen.run(&format!("warm-{number}")).await;
    }

    let audit = Audit::start();
    let mut serial = Vec::new();
    for number in 0..SERIAL {
        serial.push(seen.run(&format!("serial-{number}")).await);
    }
    let audited = audit.as_ref().map(Audit::calls);
    tasks::first_bytes(&control, &space.name, &mut serial).await;
    let burst = tasks::burst(&seen, BURST).await;
    let image = space.pods.now()[0].spec.as_ref().unwrap().containers[0].image.clone().unwrap();
    let jobs = jobs::run(&space, &image, JOBS).await;

    let micros = |pick: &dyn Fn(&tasks::Times) -> i64| Spread::of(serial.iter().map(pick).collect());
    let rows = [
        ("task asked for → stored", micros(&|one| one.stored - one.asked)),
        ("task stored → first byte", micros(&|one| one.first - one.stored)),
        ("task asked for → first byte", micros(&|one| one.first - one.asked)),
        ("task stored → terminal status", micros(&|one| one.terminal - one.stored)),
        ("task asked for → terminal status", micros(&|one| one.terminal - one.asked)),
        ("job asked for → first byte", Spread::of(jobs.iter().map(|one| one.first - one.asked).collect())),
        ("job asked for → complete", Spread::of(jobs.iter().map(|one| one.terminal - one.asked).collect())),
    ];
    let a_second = BURST as f64 * 1e6 / burst.max(1) as f64;
    table(&rows);
    eprintln!("{BURST} tasks on two workers: {:.1} s, {a_second:.0} a second", burst as f64 / 1e6);
    let mut calls = json!(null);
    if let Some(all) = audited {
        let ours = |user: &str| {
            all.iter()
                .filter(|call| call.user.username.contains(user) && call.object_ref.namespace == space.name)
                .collect::<Vec<_>>()
        };
        let statuses =
            ours("rota-operator").iter().filter(|call| call.kind() == "patch tasks/status").count();
        let of_workers = ours(&format!("{}:", space.name)).len();
        eprintln!(
            "status writes a task: {:.2}; API calls by workers: {of_workers}",
            statuses as f64 / SERIAL as f64
        );
        calls = json!({"status_writes_per_task": statuses as f64 / SERIAL as f64, "calls_by_workers": of_workers});
    }
    let spreads: serde_json::Map<_, _> =
        rows.iter().map(|(name, spread)| ((*name).to_owned(), spread.json())).collect();
    println!(
        "{}",
        json!({
            "milliseconds": spreads,
            "serial_tasks": SERIAL, "burst_tasks": BURST, "burst_per_second": a_second, "jobs": JOBS, "api": calls,
        })
    );
}
