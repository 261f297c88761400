//! The same with Kubernetes alone: a Job for each.

use k8s_openapi::api::batch::v1::Job;
use kube::api::{Api, PostParams};
use kube::runtime::{conditions, wait::await_condition};
use rota_e2e::{Space, client};
use rota_telemetry::clock;
use serde_json::json;

use crate::tasks::Times;

pub(crate) async fn run(space: &Space, image: &str, count: usize) -> Vec<Times> {
    let jobs: Api<Job> = Api::namespaced(client().await, &space.name);
    let mut all = Vec::new();
    for number in 0..count {
        let name = format!("job-{number}");
        let job: Job = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"template": {"spec": {
                "restartPolicy": "Never",
                "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "job", "image": image, "imagePullPolicy": "IfNotPresent",
                    "command": ["/bin/sh", "-c", "echo first"],
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                }],
            }}},
        }))
        .unwrap();
        let asked = clock::unix_micros();
        jobs.create(&PostParams::default(), &job).await.unwrap();
        let stored = clock::unix_micros();
        let done = await_condition(jobs.clone(), &name, conditions::is_job_completed());
        tokio::time::timeout(std::time::Duration::from_secs(120), done)
            .await
            .expect("it does not end")
            .unwrap();
        let terminal = clock::unix_micros();
        let log = space.kubectl(&format!("logs job/{name} --timestamps")).await.good();
        let at: jiff::Timestamp = log.split_whitespace().next().unwrap().parse().unwrap();
        all.push(Times { name, asked, stored, first: at.as_microsecond(), terminal });
    }
    all
}
