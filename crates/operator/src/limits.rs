//! Limits of manifests and of the control plane, held against each other: what `kubectl apply` accepts is not refused later, and
//! what it refuses would be.

use rota_client::Code;
use rota_crds::{Object, parse};
use rota_proto::limits::{MAX_TIMEOUT, TITLE_BYTES};
use rota_proto::v1;
use rota_testkit::{Backend, Cluster};

/// Returns what a manifest and the control plane refuse: whether there is a violation, and the fields of the request.
async fn refused(cluster: &Cluster, kind: &str, spec: &str) -> (bool, Vec<String>) {
    let text = format!("apiVersion: rota.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: a}}\nspec: {spec}\n");
    let object = parse("manifest", &text).unwrap().remove(0).object;
    let client = cluster.client();
    let answer = match &object {
        Object::Task(task) => {
            let request = v1::CreateTaskRequest {
                validate_only: true,
                ..task.to_request(rota_testkit::tasks::NAMESPACE, "")
            };
            client.create_task(request).await.map(drop)
        }
        Object::Agent(agent) => {
            let request = v1::CreateAgentRequest {
                parent: rota_proto::names::namespace(rota_testkit::tasks::NAMESPACE),
                agent_id: "a".to_owned(),
                agent: Some(agent.to_api(rota_testkit::tasks::NAMESPACE)),
                validate_only: true,
            };
            client.create_agent(request).await.map(drop)
        }
        other => panic!("{} is not of this test", other.kind()),
    };
    let fields = match answer {
        Ok(()) => Vec::new(),
        Err(error) if error.code == Code::InvalidArgument => {
            error.fields.into_iter().map(|field| field.field).collect()
        }
        Err(error) => panic!("{spec}: {error}"),
    };
    (!object.validate().is_empty(), fields)
}

#[tokio::test]
async fn manifests_and_requests_have_the_same_limits() {
    let cluster = Cluster::start(Backend::Memory).await.unwrap();
    // Two bytes each: the limits are of bytes.
    let (full, long) = ("ä".repeat(TITLE_BYTES / 2), "ä".repeat(TITLE_BYTES / 2 + 1));
    let seconds = MAX_TIMEOUT.as_secs();
    let limit = |name: &str, seconds: u64| format!("{{agent: b, limits: {{{name}: {seconds}s}}}}");
    let agent = |text: &str| format!("{{runtime: {{external: {{}}}}, description: {text}}}");
    let mut cases = vec![
        ("Agent", agent(&full), agent(&long), "agent.spec.description"),
        (
            "Task",
            format!("{{agent: b, parentTask: {}}}", uuid::Uuid::new_v4()),
            "{agent: b, parentTask: before}".to_owned(),
            "task.spec.parent_task",
        ),
    ];
    for (name, field) in [("title", "task.spec.title"), ("owner", "task.spec.owner")] {
        let task = |text: &str| format!("{{agent: b, {name}: {text}}}");
        cases.push(("Task", task(&full), task(&long), field));
    }
    for (name, field) in [
        ("timeout", "task.spec.limits.timeout"),
        ("silenceTimeout", "task.spec.limits.silence_timeout"),
        ("queueTimeout", "task.spec.limits.queue_timeout"),
    ] {
        cases.push(("Task", limit(name, seconds), limit(name, seconds + 1), field));
    }
    for (kind, largest, beyond, field) in cases {
        assert_eq!(refused(&cluster, kind, &largest).await, (false, vec![]), "{kind} {largest}");
        let both = (true, vec![field.to_owned()]);
        assert_eq!(refused(&cluster, kind, &beyond).await, both, "{kind} {beyond}");
    }
}
