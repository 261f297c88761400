//! Baseline: a Job, and so a pod, per task.

use futures::{StreamExt, stream};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Api, PostParams};
use rota_e2e::{Audit, Space, client};
use rota_telemetry::clock;
use serde_json::{Value, json};

use crate::report::{each, latency, rate};
use crate::seen::Seen;

const SEQUENTIAL: usize = 10;
const CONCURRENT: usize = 20;

/// Job that prints the time.
fn job(name: &str, image: &str) -> Job {
    serde_json::from_value(json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": { "name": name },
        "spec": { "backoffLimit": 0, "template": { "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [{
                "name": "task",
                "image": image,
                "command": ["date", "+%s%6N"],
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"] },
                },
            }],
        } } },
    }))
    .unwrap()
}

pub(crate) async fn measure(space: &Space, image: &str) -> Value {
    let jobs: Api<Job> = Api::namespaced(client().await, &space.name);
    let seen = Seen::start(jobs.clone(), |job| {
        job.status.as_ref().is_some_and(|status| status.completion_time.is_some())
    })
    .await;
    let create = async |name: &str| {
        let job = job(name, image);
        let called = clock::unix_micros();
        jobs.create(&PostParams::default(), &job).await.unwrap();
        (called, clock::unix_micros())
    };
    let audit = Audit::start();
    let (mut from_call, mut from_created, mut to_end) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..SEQUENTIAL {
        let name = format!("job-{number}");
        let (called, created) = create(&name).await;
        let ended = seen.until(std::slice::from_ref(&name)).await[0];
        let byte: i64 = space.kubectl(&format!("logs job/{name}")).await.success().trim().parse().unwrap();
        from_call.push(byte - called);
        from_created.push(byte - created);
        to_end.push(ended - created);
    }
    let writes = audit.map(|audit| {
        let calls = audit.calls().into_iter().filter(|call| call.object_ref.namespace == space.name);
        each(calls.filter(|call| call.writes() && call.kind() != "create jobs").count(), SEQUENTIAL)
    });
    let names: Vec<_> = (0..CONCURRENT).map(|number| format!("many-{number}")).collect();
    let began = clock::unix_micros();
    stream::iter(&names)
        .for_each_concurrent(32, async |name| {
            create(name).await;
        })
        .await;
    let ended = seen.until(&names).await.into_iter().max().unwrap();
    json!({
        "one_at_a_time": {
            "call_to_first_byte": latency(from_call),
            "created_to_first_byte": latency(from_created),
            "created_to_terminal": latency(to_end),
        },
        "writes_each": writes,
        "concurrent": { "count": CONCURRENT, "per_second": rate(CONCURRENT, ended - began) },
    })
}
