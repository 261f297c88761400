//! Rules for pods: templates of agents, and overrides of tasks.

use super::{assert_violation, violations};

#[test]
fn templates_do_not_change_what_makes_a_pod_a_worker() {
    let agent = |template: &str| format!("{{runtime: {{claude: {{}}}}, pod: {{template: {template}}}}}");
    let fine = "{metadata: {labels: {a: b}}, spec: {volumes: [{name: a, emptyDir: {}}], hostUsers: false,
                 containers: [{name: worker, env: [{name: A, value: b}, {name: ROTA_WORKER_ORPHAN_TIMEOUT, value: 2h}], volumeMounts: [{name: a, mountPath: /a}]},
                              {name: proxy, image: 'x:1', ports: [{containerPort: 80}]}]}}";
    assert_eq!(violations("Agent", "{name: a}", &agent(fine)), [""; 0]);
    for (template, field, word) in [
        ("{spec: 3}", "", "expected"),
        ("{kind: Pod}", ".kind", "no field"),
        ("{metadata: {name: x}}", ".metadata.name", "not for templates"),
        ("{metadata: {labels: {rota.dev/agent: x}}}", ".metadata.labels.rota.dev/agent", "reserved"),
        ("{spec: {nodes: []}}", ".spec.nodes", "no field"),
        ("{spec: {restartPolicy: Always}}", ".spec", "restartPolicy"),
        ("{spec: {volumes: [{name: rota-x, emptyDir: {}}]}}", ".spec.volumes[0].name", "reserved"),
        ("{spec: {containers: [{name: rota-x}]}}", ".spec.containers[0].name", "reserved"),
        ("{spec: {initContainers: [{name: worker}]}}", ".spec.initContainers[0].name", "worker"),
        ("{spec: {containers: [{name: x, picture: y}]}}", ".spec.containers[0].picture", "no field"),
        ("{metadata: {ownerReferences: []}}", ".metadata.ownerReferences", "not for templates"),
        (
            "{metadata: {annotations: {rota.dev/traceparent: x}}}",
            ".metadata.annotations.rota.dev/traceparent",
            "reserved",
        ),
        (
            "{spec: {containers: [{name: worker, envFrom: [{configMapRef: {name: x}}]}]}}",
            ".spec.containers[0]",
            "envFrom",
        ),
        (
            "{spec: {containers: [{name: worker, env: [{name: POD_UID, value: x}]}]}}",
            ".spec.containers[0].env.POD_UID",
            "reserved",
        ),
        (
            "{spec: {containers: [{name: worker, env: [{name: HOME, value: x}]}]}}",
            ".spec.containers[0].env.HOME",
            "reserved",
        ),
        (
            "{spec: {containers: [{name: worker, volumeMounts: [{name: a, mountPath: /opt/rota}]}]}}",
            ".spec.containers[0].volumeMounts[0].mountPath",
            "reserved",
        ),
        ("{spec: {containers: [{name: worker, args: [x]}]}}", ".spec.containers[0]", "args"),
        (
            "{spec: {containers: [{name: worker, env: [{name: ROTA_CA, value: x}]}]}}",
            ".spec.containers[0].env.ROTA_CA",
            "reserved",
        ),
        (
            "{spec: {containers: [{name: worker, volumeMounts: [{name: a, mountPath: /var/lib/rota/x}]}]}}",
            ".spec.containers[0].volumeMounts[0].mountPath",
            "reserved",
        ),
        (
            "{spec: {containers: [{name: x, volumeMounts: [{name: rota-token, mountPath: /x}]}]}}",
            ".spec.containers[0].volumeMounts",
            "reserved",
        ),
    ] {
        assert_violation("Agent", "{name: a}", &agent(template), &format!("spec.pod.template{field}"), word);
    }
    // Misspelled fields of Kubernetes' own types elsewhere.
    let resources = "{runtime: {claude: {}}, pod: {resources: {wishes: {cpu: 1}}}}";
    assert_violation("Agent", "{name: a}", resources, "spec.pod.resources.wishes", "no field");
}

#[test]
fn tasks_mount_their_own_volumes_only() {
    let mounts = |volumes: &str| {
        format!(
            "{{isolation: Pod, podOverrides: {{volumes: [{volumes}], volumeMounts: [{{name: keys, mountPath: /keys}}]}}}}"
        )
    };
    assert_eq!(violations("Task", "{name: a}", &mounts("{name: keys, emptyDir: {}}")), [""; 0]);
    assert_violation(
        "Task",
        "{name: a}",
        &mounts(""),
        "spec.podOverrides.volumeMounts[0].name",
        "own volumes",
    );
}

#[test]
fn volumes_of_tasks_begin_empty() {
    let task =
        |volume: &str| format!("{{isolation: Pod, podOverrides: {{volumes: [{{name: v, {volume}}}]}}}}");
    let claim = |more: &str| {
        let resources = "resources: {requests: {storage: 1Gi}}";
        let spec = format!("{{accessModes: [ReadWriteOnce], {resources}{more}}}");
        task(&format!("ephemeral: {{volumeClaimTemplate: {{spec: {spec}}}}}"))
    };
    let downward = task("downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}");
    for fine in [task("emptyDir: {sizeLimit: 1Gi}"), claim(", storageClassName: fast"), downward] {
        assert_eq!(violations("Task", "{name: a}", &fine), [""; 0], "{fine}");
    }
    for (field, value) in [
        ("dataSource", "{kind: PersistentVolumeClaim, name: rota-data}"),
        ("dataSourceRef", "{kind: PersistentVolumeClaim, name: rota-data}"),
        ("selector", "{matchLabels: {a: b}}"),
        ("volumeName", "of-another"),
    ] {
        let at = format!("spec.podOverrides.volumes[0].ephemeral.volumeClaimTemplate.spec.{field}");
        assert_violation("Task", "{name: a}", &claim(&format!(", {field}: {value}")), &at, "another volume");
    }
    let spec = "{accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}";
    let with = |metadata: &str| {
        task(&format!("ephemeral: {{volumeClaimTemplate: {{metadata: {metadata}, spec: {spec}}}}}"))
    };
    assert_eq!(violations("Task", "{name: a}", &with("{labels: {a: b}}")), [""; 0]);
    let at = "spec.podOverrides.volumes[0].ephemeral.volumeClaimTemplate.metadata.annotations";
    let annotated = with("{annotations: {nfs.io/storage-path: of-another}}");
    assert_violation("Task", "{name: a}", &annotated, at, "spec.pod");
}
