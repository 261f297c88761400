//! A second release, of another class, with replicas on PostgreSQL. The owner is killed, and the release is upgraded, while 200
//! tasks run: no attempt is lost, and a watcher sees each change of a task once. The chart's database for trials keeps its records.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use kube::ResourceExt;
use rota_e2e::{Control, RELEASE, Space, run, until};
use serde_json::Value;

use super::delivery::SITE;
use super::phases::PhaseWatch;
use super::{TEST_TIMEOUT, workers};

/// Name of the second release, its class and its objects.
const SECOND: &str = "rota-replicas";
const CLASS: &str = "replicas";
const TASKS: usize = 200;
const PASSWORD: &str = "in-this-test-alone";

const DATABASE: &str = "apiVersion: v1
kind: Pod
metadata: {name: database, labels: {app: database}}
spec:
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: postgres
      image: rota-postgres:dev
      args: [/data/main, /secrets]
      ports: [{containerPort: 5432}]
      readinessProbe: {tcpSocket: {port: 5432}, periodSeconds: 1}
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: data, mountPath: /data}, {name: tmp, mountPath: /tmp}, {name: secrets, mountPath: /secrets}]
  volumes:
    - {name: data, emptyDir: {}}
    - {name: tmp, emptyDir: {}}
    - {name: secrets, secret: {secretName: database-server}}
---
apiVersion: v1
kind: Service
metadata: {name: database}
spec: {selector: {app: database}, ports: [{port: 5432}]}
";

/// The second release: its tasks, which its operator has to end, and the release itself go when this is dropped.
struct Installed(String);

impl Drop for Installed {
    fn drop(&mut self) {
        let namespace = &self.0;
        for (program, line) in [
            ("kubectl", format!("-n {namespace} delete tasks.rota.dev,agents.rota.dev --all --timeout=120s")),
            ("helm", format!("-n {namespace} uninstall {SECOND} --wait --timeout 2m")),
        ] {
            match Command::new(program).args(line.split_whitespace()).output() {
                Ok(output) if output.status.success() => {}
                other => eprintln!("failed to clean up: {program} {line}: {other:?}"),
            }
        }
    }
}

/// Secrets of the database and of the release: a URL whose certificate is verified, a key, an object store.
fn secrets(namespace: &str) -> String {
    let host = format!("database.{namespace}.svc");
    let made = rcgen::generate_simple_self_signed(vec![host.clone()]).unwrap();
    let indented = |text: String| text.trim_end().replace('\n', "\n    ");
    let (certificate, key) = (indented(made.cert.pem()), indented(made.signing_key.serialize_pem()));
    let url = format!("postgres://rota:{PASSWORD}@{host}/postgres?sslrootcert=/var/run/rota/store/ca.crt");
    let seal: String = uuid::Uuid::new_v4().simple().to_string();
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: database-server}}
stringData:
  password: {PASSWORD}
  tls.crt: |
    {certificate}
  tls.key: |
    {key}
---
apiVersion: v1
kind: Secret
metadata: {{name: database-client}}
stringData:
  url: {url}
  ca.crt: |
    {certificate}
---
apiVersion: v1
kind: Secret
metadata: {{name: seal}}
stringData: {{key: '{seal}'}}
---
{}",
        object_store(namespace)
    )
}

/// Secret of the object store.
fn object_store(namespace: &str) -> String {
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: objects}}
stringData:
  AWS_ACCESS_KEY_ID: {}
  AWS_SECRET_ACCESS_KEY: {}
  AWS_REGION: us-east-1
  AWS_ENDPOINT: http://site.{namespace}:9000
  AWS_ALLOW_HTTP: 'true'
",
        rota_testkit::s3_server::ACCESS_KEY,
        rota_testkit::s3_server::SECRET_KEY,
    )
}

/// Arguments of helm for the second release in its namespace, with the images of the first, whose values are written to `folder`.
async fn release(namespace: &str, folder: &Path, settings: &str) -> String {
    let values = folder.join("values.yaml");
    let first = run(&format!("helm -n {RELEASE} get values {RELEASE} -o yaml")).await.success();
    std::fs::write(&values, first).unwrap();
    format!(
        "charts/rota --namespace {namespace} -f {} --set backup.schedule= --set class={CLASS} \
         --set server.artifacts.url=s3://rota/replicas --set server.artifacts.existingSecret=objects \
         --set operator.watchNamespaces={{{namespace}}} {settings} --wait --timeout 5m",
        values.display()
    )
}

fn tasks() -> String {
    let agent = format!(
        "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {{name: steady, labels: {{rota.dev/class: {CLASS}}}}}
spec:
  runtime: {{command: {{shell: 'echo begin; until [ -e /tmp/go ]; do sleep 2; done; echo end'}}}}
  slots: 50
  replicas: 4
  maxReplicas: 4
"
    );
    let task = |number| {
        format!(
            "---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {{name: job-{number}, labels: {{rota.dev/class: {CLASS}}}}}
spec: {{agent: steady}}
"
        )
    };
    agent + &(0..TASKS).map(task).collect::<String>()
}

/// Pod that follows all tasks of the namespace through the Service of the second release.
fn watcher(namespace: &str, image: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: watcher}}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
  containers:
    - name: rota
      image: {image}
      imagePullPolicy: IfNotPresent
      args: [watch, --namespace, {namespace}]
      env:
        - {{name: ROTA_ENDPOINT, value: 'https://{SECOND}.{namespace}.svc:7420'}}
        - {{name: ROTA_CA, value: /tls/ca.crt}}
        - {{name: ROTA_TOKEN, valueFrom: {{secretKeyRef: {{name: rota-admin-token, key: token}}}}}}
      securityContext: {{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {{drop: [ALL]}}}}
      volumeMounts: [{{name: tls, mountPath: /tls}}]
  volumes: [{{name: tls, secret: {{secretName: rota-tls, items: [{{key: ca.crt, path: ca.crt}}]}}}}]
"
    )
}

/// Returns the names of the replicas, the owner first.
async fn replicas(space: &Space) -> Option<Vec<String>> {
    // A forwarded port ends with its pod.
    let control = Control::connect_to(&space.name, SECOND).await;
    let output = control.rota("admin replicas -o json").await;
    let listed: Value = serde_json::from_str(&output.ok.then_some(output.stdout)?).ok()?;
    let all = listed["replicas"].as_array()?;
    let owner = all.first()?["owner"].as_bool()?;
    let names = all.iter().filter_map(|replica| replica["name"].as_str()).map(str::to_owned);
    owner.then(|| names.collect())
}

/// Returns the worker and the attempt of each task that runs.
async fn running(space: &Space) -> BTreeMap<String, (String, i64)> {
    let of = |task: &Value| {
        let status = &task["status"];
        let worker = status["worker"].as_str()?.to_owned();
        let name = task["metadata"]["name"].as_str()?.to_owned();
        (status["phase"] == "Running").then(|| (name, (worker, status["attempt"].as_i64().unwrap_or(0))))
    };
    space.tasks().await.iter().filter_map(of).collect()
}

/// Waits until all workers are connected, and no task has another worker or attempt than before.
async fn nothing_was_lost(space: &Space, before: &BTreeMap<String, (String, i64)>) {
    until("all workers are connected", TEST_TIMEOUT, async || {
        let control = Control::connect_to(&space.name, SECOND).await;
        let all = workers(space, &control).await;
        (all.iter().filter(|worker| worker["connected"] == true).count() == 4).then_some(())
    })
    .await;
    assert_eq!(&running(space).await, before);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn owners_change_while_200_tasks_run() {
    let space = Space::new("replicas").await;
    let own = &space.name;
    space.apply(&format!("{}---\n{DATABASE}---\n{SITE}", secrets(own))).await;
    for pod in ["pod/database", "pod/site"] {
        space.wait(pod, "condition=Ready", "120s").await;
    }
    let folder = tempfile::tempdir().unwrap();
    let database = "--set store.postgresql.existingSecret=database-client --set server.keySecret=seal \
                    --set server.replicas=3";
    let release = release(own, folder.path(), database).await;
    let installed = Installed(own.clone());
    run(&format!("helm install {SECOND} {release}")).await.success();

    let server = format!("deployment/{SECOND}-server");
    let image = space.field(&server, ".spec.template.spec.containers[0].image").await;
    space.apply(&watcher(own, &image)).await;
    space.wait("pod/watcher", "condition=Ready", "60s").await;
    space.apply(&tasks()).await;
    space.wait("tasks.rota.dev --all", "condition=Running", "300s").await;
    let before = running(&space).await;
    assert_eq!(before.len(), TASKS);
    assert!(before.values().all(|(_, attempt)| *attempt == 1), "{before:?}");
    let phases = PhaseWatch::start(&space, folder.path());
    until("kubectl sees all tasks", TEST_TIMEOUT, async || (phases.seen().len() == TASKS).then_some(()))
        .await;

    // Killed: its connections break, and another replica takes over once the lease is over.
    let names =
        until("three replicas", TEST_TIMEOUT, async || replicas(&space).await.filter(|all| all.len() == 3))
            .await;
    space.kubectl(&format!("delete pod {} --force --grace-period=0", names[0])).await.success();
    let next = until("another owner", TEST_TIMEOUT, async || {
        replicas(&space).await.filter(|all| all[0] != names[0])
    })
    .await;
    nothing_was_lost(&space, &before).await;

    // Upgraded: each replica is stopped, the owner among them.
    run(&format!("helm upgrade {SECOND} {release} --set-string log.filter=debug")).await.success();
    until("new replicas only", TEST_TIMEOUT, async || {
        replicas(&space).await.filter(|all| all.len() == 3 && all.iter().all(|name| !next.contains(name)))
    })
    .await;
    nothing_was_lost(&space, &before).await;

    let busy: std::collections::BTreeSet<_> = before.values().map(|(worker, _)| worker.clone()).collect();
    for worker in &busy {
        space.sh(worker, "touch /tmp/go").await.success();
    }
    space.wait("tasks.rota.dev --all", "condition=Complete", "300s").await;
    for task in space.tasks().await {
        let name = task["metadata"]["name"].as_str().unwrap_or_default();
        let status = &task["status"];
        let found = (status["worker"].as_str().unwrap_or_default().to_owned(), status["attempt"].as_i64());
        assert_eq!((found.0, found.1.unwrap_or(0)), before[name], "{name} was restarted");
    }

    // For kubectl, no task left its phase meanwhile.
    let kept = until("kubectl sees all ends", TEST_TIMEOUT, async || {
        let seen = phases.seen();
        let is_over = |phases: &Vec<String>| phases.last().is_some_and(|phase| phase == "Succeeded");
        seen.values().all(is_over).then_some(seen)
    })
    .await;
    for (task, phases) in &kept {
        assert_eq!(*phases, ["Running", "Succeeded"], "{task}");
    }

    // Each task's changes arrived once, and in order.
    let seen = until("the watcher has seen all ends", TEST_TIMEOUT, async || {
        let log = space.kubectl("logs watcher").await.success();
        let mut seen = BTreeMap::<String, Vec<String>>::new();
        for line in log.lines() {
            let mut words = line.split_whitespace().map(str::to_owned);
            // Between the changes are warnings about the connection.
            if let (Some(task), Some(state)) = (words.next(), words.next())
                && task.starts_with("job-")
            {
                seen.entry(task).or_default().push(state);
            }
        }
        let ended = |states: &&Vec<String>| states.last().is_some_and(|state| state == "Succeeded");
        (seen.values().filter(ended).count() == TASKS).then_some(seen)
    })
    .await;
    for (task, states) in &seen {
        let of = |wanted: &str| states.iter().filter(|state| *state == wanted).count();
        assert_eq!((of("Running"), of("Succeeded")), (1, 1), "{task}: {states:?}");
    }
    classes_are_apart(&space).await;
    drop(installed);
}

/// Objects without a class, in the same namespace, are those of the first release and of it alone, and it has no others.
async fn classes_are_apart(space: &Space) {
    let plain = "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: plain}
spec: {runtime: {command: {shell: 'echo done'}}, maxReplicas: 1}
---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {name: plain}
spec: {agent: plain}
";
    space.apply(plain).await;
    space.wait("tasks.rota.dev/plain", "condition=Complete", "180s").await;
    assert_eq!(succeeded(space, &Control::connect().await).await, 1);
    assert_eq!(succeeded(space, &Control::connect_to(&space.name, SECOND).await).await, TASKS);
    let worker = space.field("task/plain", ".status.worker").await;
    let class = space.pods.all().into_iter().find(|pod| pod.name_any() == worker);
    assert!(class.is_some_and(|pod| !pod.labels().contains_key("rota.dev/class")), "{worker}");
}

/// Counts the tasks of the namespace that have succeeded, as a control plane has them.
async fn succeeded(space: &Space, control: &Control) -> usize {
    let line = format!("get tasks --limit 500 --namespace {} -o json", space.name);
    let listed: Value = serde_json::from_str(&control.rota(&line).await.success()).unwrap();
    let all = listed["tasks"].as_array().cloned().unwrap_or_default();
    all.iter().filter(|task| task["status"]["state"] == "TASK_STATE_SUCCEEDED").count()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn trial_database_keeps_records_and_password() {
    let space = Space::new("trial").await;
    let own = &space.name;
    space.apply(&format!("{}---\n{SITE}", object_store(own))).await;
    space.wait("pod/site", "condition=Ready", "120s").await;
    let folder = tempfile::tempdir().unwrap();
    // The user is that of the image.
    let database = "--set store.postgresql.trial.enabled=true --set store.postgresql.trial.userId=65532 \
                    --set store.postgresql.trial.image.repository=rota-postgres \
                    --set store.postgresql.trial.image.tag=dev --set server.replicas=2";
    let release = release(own, folder.path(), database).await;
    let installed = Installed(own.clone());
    run(&format!("helm install {SECOND} {release}")).await.success();
    let agent = format!(
        "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {{name: quick, labels: {{rota.dev/class: {CLASS}}}}}
spec: {{runtime: {{command: {{shell: 'echo done'}}}}, maxReplicas: 1}}
"
    );
    let task = |name: &str| {
        format!(
            "---
apiVersion: rota.dev/v1alpha1
kind: Task
metadata: {{name: {name}, labels: {{rota.dev/class: {CLASS}}}}}
spec: {{agent: quick}}
"
        )
    };
    space.apply(&(agent + &task("before"))).await;
    space.wait("tasks.rota.dev/before", "condition=Complete", "180s").await;

    let secret = format!("secret/{SECOND}-trial-db");
    let generated = space.field(&secret, ".data").await;
    let pod = format!("pod/{SECOND}-trial-db-0");
    let first = space.field(&pod, ".metadata.uid").await;
    space.kubectl(&format!("delete {pod}")).await.success();
    until("another pod of the database", TEST_TIMEOUT, async || {
        let found = space.kubectl(&format!("get {pod} -o jsonpath={{.metadata.uid}}")).await;
        (found.ok && found.stdout != first).then_some(())
    })
    .await;
    space.wait(&pod, "condition=Ready", "120s").await;
    // It was stopped, and not killed after waiting for the sessions of the replicas to end.
    let log = space.kubectl(&format!("logs {pod}")).await.success();
    assert!(log.contains("database system was shut down at"), "{log}");
    // All replicas are replaced, and open the database with the password that the volume has.
    run(&format!("helm upgrade {SECOND} {release} --set-string log.filter=debug")).await.success();
    assert_eq!(space.field(&secret, ".data").await, generated);

    space.apply(&task("after")).await;
    space.wait("tasks.rota.dev/after", "condition=Complete", "180s").await;
    assert_eq!(succeeded(&space, &Control::connect_to(own, SECOND).await).await, 2);
    drop(installed);
}
