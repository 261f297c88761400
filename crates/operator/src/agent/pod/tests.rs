//! Pods of various agents and tasks.

use super::*;

pub(crate) fn agent(spec: &str) -> Agent {
    let text = format!(
        "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {{name: coder, namespace: team, uid: u1}}
spec: {spec}
"
    );
    serde_saphyr::from_str(&text).unwrap()
}

fn options() -> WorkerOptions {
    WorkerOptions {
        image: "rota:1".into(),
        program_image: "program:1".into(),
        image_pull_policy: None,
        endpoint: "https://rota.r.svc:7420".into(),
        class: crate::Class::default(),
        user_id: Some(65532),
        pod_template: PodTemplateSpec::default(),
        egress: rota_crds::Egress::default(),
        egress_is_limit: false,
        control_namespace: "rota".into(),
        collector: vec![("OTEL_EXPORTER_OTLP_ENDPOINT".into(), "http://collector:4318".into())],
    }
}

fn build(agent: &Agent, task: Option<TaskPod<'_>>) -> Pod {
    PodSpecInput { agent, options: &options(), task }.pod().unwrap()
}

#[test]
fn pod_is_confined_and_identifies_itself() {
    let agent = agent("{runtime: {scripted: {}}, slots: 3}");
    let pod = build(&agent, None);
    assert_eq!(pod.metadata.generate_name.as_deref(), Some("coder-"));
    assert_eq!(pod.owner_references()[0].uid, "u1");
    let spec = pod.spec.unwrap();
    assert_eq!(spec.automount_service_account_token, Some(false));
    assert_eq!(spec.restart_policy.as_deref(), Some("Never"));
    assert_eq!(spec.termination_grace_period_seconds, Some(600));
    let container = &spec.containers[0];
    let arguments = container.args.clone().unwrap().join(" ");
    assert_eq!(
        arguments,
        "worker --worker $(POD_NAME) --instance $(POD_UID) --agent coder --slots 3 --state-dir /var/lib/rota \
             --drain-timeout 555s"
    );
    let context = container.security_context.clone().unwrap();
    assert_eq!(context.read_only_root_filesystem, Some(true));
    assert_eq!(context.capabilities.unwrap().drop.unwrap(), ["ALL"]);
}

#[test]
fn pod_follows_the_agents_template() {
    let agent = agent(
            "{runtime: {scripted: {}}, secrets: [{name: KEY, secretName: model, key: k}],
              pod: {image: 'mine:2', imagePullPolicy: Never, labels: {team: x, rota.dev/agent: evil},
                    nodeSelector: {a: b}, tolerations: [{key: gpu, operator: Exists}], runtimeClassName: gvisor,
                    resources: {limits: {memory: 1Gi}}, terminationGracePeriod: 30s,
                    volumes: [{name: cache, emptyDir: {}}], volumeMounts: [{name: cache, mountPath: /cache}]}}",
        );
    let pod = build(&agent, None);
    assert_eq!(pod.labels()["team"], "x");
    assert_eq!(pod.labels()[AGENT], "coder", "labels of the operator win");
    let spec = pod.spec.unwrap();
    let container = &spec.containers[0];
    assert_eq!(container.image.as_deref(), Some("mine:2"));
    let arguments = container.args.clone().unwrap().join(" ");
    assert!(arguments.contains("--drain-timeout 15s --secrets-dir"), "{arguments}");
    assert!(arguments.ends_with("--allow-write /cache"), "attempts may use it: {arguments}");
    assert_eq!(spec.runtime_class_name.as_deref(), Some("gvisor"));
    assert_eq!(spec.tolerations.unwrap().len(), 1);
    assert_eq!(spec.volumes.unwrap().len(), 7);
}

#[test]
fn templates_are_merged_by_name() {
    let defaults = "{metadata: {labels: {cost: shared, team: none}}, spec: {
        tolerations: [{key: agents}], nodeSelector: {pool: agents}, terminationGracePeriodSeconds: 60,
        containers: [{name: worker, env: [{name: REGION, value: here}], resources: {requests: {cpu: 100m}}}]}}";
    let options = WorkerOptions { pod_template: serde_saphyr::from_str(defaults).unwrap(), ..options() };
    let agent = agent(
        "{runtime: {scripted: {}}, pod: {labels: {team: x}, volumes: [{name: cache, emptyDir: {}}], template: {
            metadata: {annotations: {note: mine}},
            spec: {
                initContainers: [{name: prepare, image: 'busybox:1'}], volumes: [{name: more, emptyDir: {}}],
                containers: [
                    {name: proxy, image: 'proxy:1'},
                    {name: worker, env: [{name: REGION, value: there}, {name: MORE, value: '1'}],
                     volumeMounts: [{name: more, mountPath: /more, readOnly: true}]}],
                topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}],
                securityContext: {runAsUser: 1000}}}}}",
    );
    let pod = PodSpecInput { agent: &agent, options: &options, task: None }.pod().unwrap();
    assert_eq!((pod.labels()["cost"].as_str(), pod.labels()["team"].as_str()), ("shared", "x"));
    assert_eq!(pod.annotations()["note"], "mine");
    assert_eq!(pod.annotations()["kubectl.kubernetes.io/default-container"], "worker");
    let spec = pod.spec.unwrap();
    assert_eq!(spec.termination_grace_period_seconds, Some(60));
    assert_eq!(spec.node_selector.unwrap()["pool"], "agents");
    assert_eq!((spec.tolerations.unwrap().len(), spec.topology_spread_constraints.unwrap().len()), (1, 1));
    let security = spec.security_context.unwrap();
    assert_eq!((security.run_as_user, security.run_as_non_root), (Some(1000), Some(true)));
    let names: Vec<_> = spec.containers.iter().map(|container| container.name.as_str()).collect();
    assert_eq!((names, spec.init_containers.unwrap().len()), (vec!["worker", "proxy"], 1));
    let volumes: Vec<_> = spec.volumes.unwrap().into_iter().map(|volume| volume.name).collect();
    assert_eq!(volumes, ["rota-ca", "rota-token", "rota-state", "rota-tmp", "cache", "more"]);
    let worker = &spec.containers[0];
    assert_eq!(worker.image.as_deref(), Some("rota:1"));
    let environment = worker.env.clone().unwrap();
    let value =
        |name: &str| environment.iter().find(|one| one.name == name).and_then(|one| one.value.clone());
    assert_eq!((value("REGION").as_deref(), value("MORE").as_deref()), (Some("there"), Some("1")));
    assert_eq!(value("ROTA_ENDPOINT").as_deref(), Some("https://rota.r.svc:7420"));
    assert!(worker.resources.is_some());
    let arguments = worker.args.clone().unwrap().join(" ");
    assert!(arguments.ends_with("--drain-timeout 30s --allow-read /more"), "{arguments}");
}

#[test]
fn overrides_of_a_task_are_applied_to_the_template() {
    let agent = agent(
        "{runtime: {scripted: {}}, pod: {template: {spec: {
            nodeSelector: {pool: agents}, tolerations: [{key: agents}],
            containers: [{name: worker, resources: {limits: {memory: 1Gi}}}]}}}}",
    );
    let task: Task = serde_saphyr::from_str(
        "{apiVersion: rota.dev/v1alpha1, kind: Task, metadata: {name: t, namespace: team, uid: u2},
          spec: {agent: coder, isolation: Pod, podOverrides: {
            nodeSelector: {gpu: 'yes'}, tolerations: [{key: gpu}], resources: {limits: {memory: 8Gi}},
            volumes: [{name: data, emptyDir: {}}], volumeMounts: [{name: data, mountPath: /data}]}}}",
    )
    .unwrap();
    let spec = build(&agent, Some(TaskPod { id: "u2", resource: Some(&task) })).spec.unwrap();
    assert_eq!(spec.node_selector.unwrap().len(), 2);
    assert_eq!(spec.tolerations.unwrap().len(), 2);
    let worker = &spec.containers[0];
    assert_eq!(worker.resources.clone().unwrap().limits.unwrap()["memory"].0, "8Gi");
    assert!(worker.args.clone().unwrap().join(" ").ends_with("--allow-write /data"));
}

#[test]
fn program_is_injected_into_foreign_images() {
    let pod = |pod: &str| {
        build(&agent(&format!("{{runtime: {{scripted: {{}}}}, pod: {pod}}}")), None).spec.unwrap()
    };
    let spec = pod("{image: 'mine:2', resources: {limits: {memory: 1Gi}}}");
    let install = &spec.init_containers.as_ref().unwrap()[0];
    assert_eq!((install.name.as_str(), install.image.as_deref()), ("rota-install", Some("program:1")));
    assert_eq!(install.resources, spec.containers[0].resources);
    assert_eq!(install.security_context, spec.containers[0].security_context);
    assert_eq!(spec.containers[0].command.as_deref().unwrap(), ["/opt/rota/bin/rota"]);
    let mount = spec.containers[0].volume_mounts.clone().unwrap().pop().unwrap();
    assert_eq!((mount.mount_path.as_str(), mount.read_only), ("/opt/rota", Some(true)));
    // Images with a program of their own.
    for own in ["{image: 'mine:2', command: [rota]}", "{image: 'rota:1'}", "{}"] {
        let spec = pod(own);
        assert_eq!(
            (spec.init_containers, spec.containers[0].command.as_deref()),
            (None, Some(&["rota".to_owned()][..]))
        );
    }
}

#[test]
fn cluster_may_assign_the_user() {
    let options = WorkerOptions { user_id: None, ..options() };
    let agent = agent("{runtime: {scripted: {}}}");
    let pod = PodSpecInput { agent: &agent, options: &options, task: None }.pod().unwrap();
    let security = pod.spec.unwrap().security_context.unwrap();
    assert_eq!((security.run_as_user, security.fs_group, security.run_as_non_root), (None, None, Some(true)));
}

#[test]
fn hash_covers_only_what_pods_see() {
    let hash =
        |spec: &str| PodSpecInput { agent: &agent(spec), options: &options(), task: None }.hash().unwrap();
    let first = hash("{runtime: {scripted: {}}}");
    assert_eq!(first, hash("{runtime: {scripted: {seed: 1}}, replicas: 3, maxReplicas: 9}"));
    assert_ne!(first, hash("{runtime: {scripted: {}}, slots: 2}"));
    assert_ne!(first, hash("{runtime: {scripted: {}}, pod: {image: 'x:1'}}"));
    assert_ne!(first, hash("{runtime: {scripted: {}}, pod: {labels: {a: b}}}"));
    assert_ne!(first, hash("{runtime: {scripted: {}}, pod: {template: {spec: {schedulerName: x}}}}"));
}

#[test]
fn task_pod_applies_overrides() {
    let agent =
        agent("{runtime: {scripted: {}}, slots: 9, pod: {nodeSelector: {a: b}, serviceAccountName: s}}");
    let task: Task = serde_saphyr::from_str(
        "apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: t, namespace: team, uid: u2}
spec: {agent: coder, isolation: Pod, podOverrides: {nodeSelector: {c: d}}}
",
    )
    .unwrap();
    let pod = build(&agent, Some(TaskPod { id: "u2", resource: Some(&task) }));
    assert_eq!(pod.owner_references()[0].kind, "Task");
    assert_eq!(pod.labels()[TASK_UID], "u2");
    let spec = pod.spec.unwrap();
    assert_eq!(spec.node_selector.unwrap().len(), 2);
    assert_eq!(spec.service_account_name.as_deref(), Some("s"));
    let arguments = spec.containers[0].args.clone().unwrap().join(" ");
    assert!(arguments.contains("--slots 1") && arguments.ends_with("--isolated-task u2"), "{arguments}");
}

#[test]
fn invalid_kubernetes_fields_are_named() {
    let agent = agent("{runtime: {scripted: {}}, pod: {resources: {limits: 3}}}");
    let error = PodSpecInput { agent: &agent, options: &options(), task: None }.pod().unwrap_err();
    assert!(error.0.starts_with("spec.pod.resources: "), "{}", error.0);
}

#[test]
fn name_prefix_leaves_room_for_suffix() {
    let long = "a".repeat(63);
    assert_eq!(name_prefix(&long).len() + 5, 63);
    assert_eq!(name_prefix("a.b-"), "a.b-");
}

#[test]
fn workers_outlast_the_loss_of_the_control_planes_node() {
    let timeout = |agent: &Agent| {
        let worker = build(agent, None).spec.unwrap().containers.remove(0);
        let found = worker.env.unwrap().into_iter().filter(|one| one.name == "ROTA_WORKER_ORPHAN_TIMEOUT");
        found.map(|one| one.value.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(timeout(&agent("{runtime: {scripted: {}}}")), ["2h"]);
    let own = "{runtime: {scripted: {}}, pod: {template: {spec: {containers: [
        {name: worker, env: [{name: ROTA_WORKER_ORPHAN_TIMEOUT, value: 10m}]}]}}}}";
    assert_eq!(timeout(&agent(own)), ["10m"]);
}

/// Workers refuse settings that they do not know, and an image may have a `rota` of an earlier version.
#[test]
fn pods_have_no_settings_of_later_versions() {
    let own = agent("{runtime: {scripted: {}}, pod: {image: x, command: [rota]}}");
    let environment = build(&own, None).spec.unwrap().containers.remove(0).env.unwrap();
    let settings: Vec<_> = environment
        .iter()
        .map(|one| one.name.as_str())
        .filter(|name| name.starts_with("ROTA_WORKER_"))
        .collect();
    assert_eq!(settings, ["ROTA_WORKER_ORPHAN_TIMEOUT"]);
}
