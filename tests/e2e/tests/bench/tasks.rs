//! Tasks on a warm pool of two workers.

use futures::{StreamExt, stream};
use kube::api::{Api, PostParams};
use rota_crds::resource::Task;
use rota_e2e::{Audit, Control, Space, client};
use rota_telemetry::clock;
use serde_json::{Value, json};

use crate::report::{each, latency, rate};
use crate::seen::Seen;

const SEQUENTIAL: usize = 200;
const CONCURRENT: usize = 100;
const ROUNDS: usize = 3;
const SLOTS: usize = 8;

fn task(name: &str) -> Task {
    let steps = json!([{ "output": "x" }, { "succeed": "done" }]);
    serde_json::from_value(json!({
        "apiVersion": "rota.dev/v1alpha1",
        "kind": "Task",
        "metadata": { "name": name },
        "spec": { "agent": "actor", "runtime": { "scripted": { "steps": steps } } },
    }))
    .unwrap()
}

/// Creates a task. Returns the times before and after the call.
async fn create(tasks: &Api<Task>, name: &str) -> (i64, i64) {
    let task = task(name);
    let called = clock::unix_micros();
    tasks.create(&PostParams::default(), &task).await.unwrap();
    (called, clock::unix_micros())
}

/// Returns the time of the first output, as recorded by the worker.
async fn first_byte(control: &Control, space: &Space, name: &str) -> i64 {
    let log = control.rota(&format!("logs {name} --namespace {} -o jsonl", space.name)).await.success();
    let mut events = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let output = events.find(|event| event.get("output").is_some()).expect(&log);
    output["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_microsecond()
}

pub(crate) async fn measure(space: &Space) -> Value {
    space
        .apply(&format!(
            "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {{name: actor}}
spec: {{runtime: {{scripted: {{}}}}, replicas: 2, maxReplicas: 2, slots: {SLOTS}}}
"
        ))
        .await;
    space.wait("agent/actor", "jsonpath={.status.readyWorkers}=2", "180s").await;
    let control = Control::connect().await;
    let tasks: Api<Task> = Api::namespaced(client().await, &space.name);
    let seen = Seen::start(tasks.clone(), |task| {
        task.status.as_ref().is_some_and(|status| status.completion_time.is_some())
    })
    .await;

    // Warm-up: first connections and caches.
    let warm: Vec<_> = (0..10).map(|number| format!("warm-{number}")).collect();
    for name in &warm {
        create(&tasks, name).await;
    }
    seen.until(&warm).await;

    let audit = Audit::start();
    let mut times = Vec::new();
    for number in 0..SEQUENTIAL {
        let name = format!("one-{number}");
        let (called, created) = create(&tasks, &name).await;
        let ended = seen.until(std::slice::from_ref(&name)).await[0];
        times.push((name, called, created, ended));
    }
    let writes = audit.map(|audit| writes(&audit, space));
    let mut bytes = Vec::new();
    for (name, ..) in &times {
        bytes.push(first_byte(&control, space, name).await);
    }
    let to_byte = |from: fn(&(String, i64, i64, i64)) -> i64| {
        latency(times.iter().zip(&bytes).map(|(times, byte)| byte - from(times)))
    };
    let terminal = latency(times.iter().map(|(_, _, created, ended)| ended - created));

    let (mut rates, mut status_writes) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let audit = Audit::start();
        let names: Vec<_> = (0..CONCURRENT).map(|number| format!("many-{round}-{number}")).collect();
        let began = clock::unix_micros();
        stream::iter(&names)
            .for_each_concurrent(32, async |name| {
                create(&tasks, name).await;
            })
            .await;
        let ended = seen.until(&names).await.into_iter().max().unwrap();
        rates.push(rate(CONCURRENT, ended - began));
        status_writes.push(audit.map(|audit| each(self::writes(&audit, space).1, CONCURRENT)));
    }
    json!({
        "workers": 2,
        "slots": SLOTS,
        "one_at_a_time": {
            "call_to_first_byte": to_byte(|times| times.1),
            "created_to_first_byte": to_byte(|times| times.2),
            "created_to_terminal": terminal,
        },
        "writes_each": writes.map(|(all, _)| each(all, SEQUENTIAL)),
        "status_writes_each": writes.map(|(_, status)| each(status, SEQUENTIAL)),
        "concurrent": { "count": CONCURRENT, "per_second": rates, "status_writes_each": status_writes },
    })
}

/// Returns the writes in the namespace other than task creations, and how many of them are status writes.
fn writes(audit: &Audit, space: &Space) -> (usize, usize) {
    let calls: Vec<_> =
        audit.calls().into_iter().filter(|call| call.object_ref.namespace == space.name).collect();
    let all = calls.iter().filter(|call| call.writes() && call.kind() != "create tasks").count();
    (all, calls.iter().filter(|call| call.kind() == "patch tasks/status").count())
}
