//! Worker identity (tokens, names, announcements, TLS) and renewal of the server certificate.

use std::time::Duration;

use rota_e2e::{Control, RELEASE, Space, run, until};
use serde_json::{Value, json};

const TEST_TIMEOUT: Duration = Duration::from_secs(240);

/// Creates an agent with one worker. Returns its pod, from which impostors are derived.
async fn pool(story: &str) -> (Space, Value) {
    let space = Space::new(story).await;
    space
        .apply(
            "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: shell}
spec:
  runtime: {command: {shell: 'until [ -e /tmp/go ]; do sleep 0.1; done; echo continued'}}
  replicas: 1
  maxReplicas: 1
",
        )
        .await;
    space.wait("agent/shell", "condition=Ready", "180s").await;
    let pods = space.get("pods --selector rota.dev/role=worker").await;
    let pod = pods["items"][0].clone();
    (space, pod)
}

/// Returns a copy of the pod under another name, unknown to the operator.
fn impostor(pod: &Value, name: &str) -> Value {
    let mut spec = pod["spec"].clone();
    for given in ["nodeName", "serviceAccount", "priority", "preemptionPolicy", "tolerations"] {
        spec.as_object_mut().unwrap().remove(given);
    }
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": spec })
}

fn volume<'a>(pod: &'a mut Value, name: &str) -> &'a mut Value {
    pod["spec"]["volumes"].as_array_mut().unwrap().iter_mut().find(|volume| volume["name"] == name).unwrap()
}

fn variable<'a>(pod: &'a mut Value, name: &str) -> &'a mut Value {
    let variables = pod["spec"]["containers"][0]["env"].as_array_mut().unwrap();
    variables.iter_mut().find(|variable| variable["name"] == name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn impostors_are_rejected() {
    let (space, pod) = pool("identity").await;
    space.kubectl("create configmap not-a-token --from-literal=token=open-sesame").await.success();
    let stranger = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=stranger -keyout /dev/null";
    let stranger = run(&format!("openssl {stranger}")).await.success();
    let authority = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "stranger" },
        "data": { "ca.crt": stranger } });
    space.apply(&authority.to_string()).await;

    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let created = conditions.iter().find(|condition| condition["type"] == "rota.dev/CreatedByOperator");
    let labels = created.expect("a record of the creation")["message"].as_str().unwrap().to_owned();
    assert!(labels.contains("rota.dev/agent=shell,"), "{labels}");
    // Not even an administrator makes a pod with the labels of a worker.
    let mut labelled = impostor(&pod, "labelled");
    labelled["metadata"]["labels"] = json!({ "rota.dev/role": "worker", "rota.dev/agent": "shell" });
    let refused = space.try_apply(&labelled.to_string()).await;
    assert!(!refused.ok && refused.stderr.contains("reserved for worker pods"), "{refused:?}");
    let worker = pod["metadata"]["name"].as_str().unwrap();
    let moved = space.kubectl(&format!("label pod {worker} rota.dev/agent=other --overwrite")).await;
    assert!(!moved.ok && moved.stderr.contains("reserved for worker pods"), "{moved:?}");

    let mut wrong = impostor(&pod, "wrong-token");
    *volume(&mut wrong, "rota-token") =
        json!({ "name": "rota-token", "configMap": { "name": "not-a-token" } });
    let mut other = impostor(&pod, "other-audience");
    volume(&mut other, "rota-token")["projected"]["sources"][0]["serviceAccountToken"]["audience"] =
        json!("other");
    let mut renamed = impostor(&pod, "other-name");
    *variable(&mut renamed, "POD_NAME") = json!({ "name": "POD_NAME", "value": pod["metadata"]["name"] });
    let mut plain = impostor(&pod, "no-tls");
    let open = pod["spec"]["containers"][0]["env"].to_string();
    assert!(open.contains("https://"), "{open}");
    let endpoint = variable(&mut plain, "ROTA_ENDPOINT")["value"].as_str().unwrap().to_owned();
    variable(&mut plain, "ROTA_ENDPOINT")["value"] = json!(endpoint.replace("https://", "http://"));
    let mut deceived = impostor(&pod, "other-authority");
    volume(&mut deceived, "rota-ca")["configMap"]["name"] = json!("stranger");
    // Valid in every respect, but not announced.
    let unannounced = impostor(&pod, "unannounced");

    for (pod, reason) in [
        (wrong, "token rejected: neither the admin token nor a signed one"),
        (other, "token rejected: not issued for the audience"),
        (renamed, "but the worker is"),
        (unannounced, "has not been announced for agent shell"),
        (plain, "failed to open a session"),
        (deceived, "certificate"),
    ] {
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        space.apply(&pod.to_string()).await;
        let log = until(&format!("{name} logs: {reason}"), TEST_TIMEOUT, async || {
            let log = space.kubectl(&format!("logs {name}")).await;
            (log.ok && log.stdout.contains(reason)).then_some(log.stdout)
        })
        .await;
        let line = log.lines().find(|line| line.contains(reason)).unwrap_or_default();
        println!("{name}: {line}");
        space.kubectl(&format!("delete pod {name} --now --wait=false")).await.success();
    }
    // Only the legitimate worker ever joined.
    let control = Control::connect().await;
    let workers = control.rota(&format!("get workers --namespace {} -o jsonl", space.name)).await.success();
    assert_eq!(workers.lines().count(), 1, "{workers}");
    assert!(workers.contains(pod["metadata"]["name"].as_str().unwrap()), "{workers}");
}

/// Returns the certificate of the control plane.
async fn server_certificate(control: &Control) -> Option<String> {
    let line = format!("openssl s_client -connect localhost:{} -servername localhost", control.port());
    let output = run(&line).await.stdout;
    let begin = output.find("-----BEGIN CERTIFICATE-----")?;
    let end = output.find("-----END CERTIFICATE-----")?;
    output.get(begin..end).map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn certificate_renewal_interrupts_no_task() {
    let (space, pod) = pool("renewal").await;
    let worker = pod["metadata"]["name"].as_str().unwrap();
    space
        .apply("{apiVersion: rota.dev/v1alpha1, kind: Task, metadata: {name: long}, spec: {agent: shell}}")
        .await;
    space.wait("task/long", "condition=Running", "60s").await;
    let control = Control::connect().await;
    let old = server_certificate(&control).await.expect("a certificate");
    let server = || {
        run(
            "kubectl --namespace rota get pods --selector app.kubernetes.io/component=server -o jsonpath={.items[*].metadata.uid}{.items[*].status.containerStatuses[*].restartCount}",
        )
    };
    let before = server().await.success();

    run(&format!("kubectl --namespace {RELEASE} delete secret rota-tls")).await.success();
    until("the certificate is renewed", TEST_TIMEOUT, async || {
        server_certificate(&control).await.filter(|new| *new != old)
    })
    .await;
    assert_eq!(server().await.success(), before, "the control plane did not restart");

    // New connections trust the same authority.
    let fresh = Control::connect().await;
    let output = fresh.rota(&format!("get task long --namespace {}", space.name)).await.success();
    assert!(output.contains("long"), "{output}");
    assert_eq!(space.field("task/long", ".status.phase").await, "Running");
    space.kubectl(&format!("exec {worker} -- touch /tmp/go")).await.success();
    space.wait("task/long", "condition=Complete", "60s").await;
    let status = space.get("task long").await["status"].take();
    assert_eq!((&status["attempt"], &status["worker"]), (&json!(1), &json!(worker)), "{status}");
    assert_eq!(space.pods.all().len(), 1, "{}", space.pods.history());
}
