//! Many tasks at the same time: how many end in a second, and the processor time that each costs the API server, the operator and
//! the control plane.

use futures::{StreamExt, stream};
use kube::api::{Api, PostParams};
use rota_crds::resource::Task;
use rota_e2e::{Component, Space, Usage, client};
use rota_telemetry::clock;
use serde_json::{Value, json};

use crate::report::rate;
use crate::seen::Seen;

/// Number of tasks of each burst.
const COUNTS: [usize; 3] = [100, 600, 2000];
const COMPONENTS: [(&str, Component); 3] = [
    ("api_server", Component::ApiServer),
    ("operator", Component::Operator),
    ("control_plane", Component::Server),
];

/// An agent of each runtime that is measured: without a program, and with a real one.
const AGENTS: &str = "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: scripted}
spec: {runtime: {scripted: {}}, replicas: 2, maxReplicas: 2, slots: 8}
---
apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: command}
spec: {runtime: {command: {shell: 'echo x'}}, replicas: 2, maxReplicas: 2, slots: 8}
";

async fn cpu_seconds() -> Vec<f64> {
    let mut all = Vec::new();
    for (_, component) in COMPONENTS {
        all.push(Usage::of(component).await.cpu_seconds);
    }
    all
}

/// Creates tasks of an agent, and waits until all have ended.
async fn burst(tasks: &Api<Task>, seen: &Seen, agent: &str, count: usize) -> Value {
    let names: Vec<_> = (0..count).map(|number| format!("{agent}-{count}-{number}")).collect();
    let before = cpu_seconds().await;
    let began = clock::unix_micros();
    stream::iter(&names)
        .for_each_concurrent(32, async |name| {
            let task = json!({
                "apiVersion": "rota.dev/v1alpha1",
                "kind": "Task",
                "metadata": { "name": name },
                "spec": { "agent": agent },
            });
            let task = serde_json::from_value(task).unwrap();
            tasks.create(&PostParams::default(), &task).await.unwrap();
        })
        .await;
    let ended = seen.until(&names).await.into_iter().max().unwrap();
    let after = cpu_seconds().await;
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    let millis = |(before, after): (&f64, &f64)| {
        let millis = (after - before) * 1000.0 / count as f64;
        json!((millis * 100.0).round() / 100.0)
    };
    let names = COMPONENTS.map(|(name, _)| name.to_owned());
    let cpu: serde_json::Map<_, _> = names.into_iter().zip(before.iter().zip(&after).map(millis)).collect();
    json!({ "runtime": agent, "count": count, "per_second": rate(count, ended - began), "cpu_ms_each": cpu })
}

pub(crate) async fn measure(space: &Space) -> Value {
    space.apply(AGENTS).await;
    let tasks: Api<Task> = Api::namespaced(client().await, &space.name);
    let seen = Seen::start(tasks.clone(), |task| {
        task.status.as_ref().is_some_and(|status| status.completion_time.is_some())
    })
    .await;
    let mut bursts = Vec::new();
    for agent in ["scripted", "command"] {
        space.wait(&format!("agent/{agent}"), "jsonpath={.status.readyWorkers}=2", "180s").await;
        // First connections and caches.
        burst(&tasks, &seen, agent, 10).await;
        for count in COUNTS {
            bursts.push(burst(&tasks, &seen, agent, count).await);
        }
    }
    json!(bursts)
}
