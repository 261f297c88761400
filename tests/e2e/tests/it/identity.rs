//! Who may be a worker, and what protects the way: tokens, names, the authority, and a certificate that is
//! renewed while something runs.

use std::time::Duration;

use rota_e2e::{Control, RELEASE, Space, run, until};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(240);

/// A pool of one, whose pod is what the impostors are made from.
async fn pool(story: &str) -> (Space, Value) {
    let space = Space::new(story).await;
    space
        .apply(
            "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: shell}
spec:
  runtime: {command: {shell: 'until [ -e /tmp/go ]; do sleep 0.1; done; echo went on'}}
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

/// The same pod under another name, and not the operator's.
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
async fn identity_is_not_taken_on_trust() {
    let (space, pod) = pool("identity").await;
    space.kubectl("create configmap not-a-token --from-literal=token=open-sesame").await.good();
    let stranger = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=stranger -keyout /dev/null";
    let stranger = run(&format!("openssl {stranger}")).await.good();
    let authority = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "stranger" },
        "data": { "ca.crt": stranger } });
    space.apply(&authority.to_string()).await;

    let mut wrong = impostor(&pod, "wrong-token");
    *volume(&mut wrong, "token") = json!({ "name": "token", "configMap": { "name": "not-a-token" } });
    let mut other = impostor(&pod, "other-audience");
    volume(&mut other, "token")["projected"]["sources"][0]["serviceAccountToken"]["audience"] =
        json!("other");
    let mut renamed = impostor(&pod, "other-name");
    *variable(&mut renamed, "POD_NAME") = json!({ "name": "POD_NAME", "value": pod["metadata"]["name"] });
    let mut plain = impostor(&pod, "no-tls");
    let open = pod["spec"]["containers"][0]["env"].to_string();
    assert!(open.contains("https://"), "{open}");
    let endpoint = variable(&mut plain, "ROTA_ENDPOINT")["value"].as_str().unwrap().to_owned();
    variable(&mut plain, "ROTA_ENDPOINT")["value"] = json!(endpoint.replace("https://", "http://"));
    let mut deceived = impostor(&pod, "other-authority");
    volume(&mut deceived, "ca")["configMap"]["name"] = json!("stranger");
    // All is right with this one, but that nobody asked for it.
    let unasked = impostor(&pod, "unannounced");

    for (pod, says) in [
        (wrong, "the token is not accepted: it is neither the admin's nor a signed one"),
        (other, "the token is not accepted: it is not meant for the audience"),
        (renamed, "the worker calls itself"),
        (unasked, "has not been announced as a worker of the agent shell"),
        (plain, "no session"),
        (deceived, "certificate"),
    ] {
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        space.apply(&pod.to_string()).await;
        let log = until(&format!("{name} says: {says}"), LIMIT, async || {
            let log = space.kubectl(&format!("logs {name}")).await;
            (log.ok && log.stdout.contains(says)).then_some(log.stdout)
        })
        .await;
        let line = log.lines().find(|line| line.contains(says)).unwrap_or_default();
        println!("{name}: {line}");
        space.kubectl(&format!("delete pod {name} --now --wait=false")).await.good();
    }
    // The one that belongs there is the only one that ever joined.
    let control = Control::connect().await;
    let workers = control.rota(&format!("get workers --namespace {} -o jsonl", space.name)).await.good();
    assert_eq!(workers.lines().count(), 1, "{workers}");
    assert!(workers.contains(pod["metadata"]["name"].as_str().unwrap()), "{workers}");
}

/// The certificate that the control plane shows.
async fn shown(control: &Control) -> Option<String> {
    let line = format!("openssl s_client -connect localhost:{} -servername localhost", control.port());
    let said = run(&line).await.stdout;
    let begin = said.find("-----BEGIN CERTIFICATE-----")?;
    let end = said.find("-----END CERTIFICATE-----")?;
    said.get(begin..end).map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn identity_of_the_control_plane_is_renewed_while_something_runs() {
    let (space, pod) = pool("renewal").await;
    let worker = pod["metadata"]["name"].as_str().unwrap();
    space
        .apply("{apiVersion: rota.dev/v1alpha1, kind: Task, metadata: {name: long}, spec: {agent: shell}}")
        .await;
    space.wait("task/long", "condition=Running", "60s").await;
    let control = Control::connect().await;
    let old = shown(&control).await.expect("a certificate");
    let server = || {
        run(
            "kubectl --namespace rota get pods --selector app.kubernetes.io/component=server -o jsonpath={.items[*].metadata.uid}{.items[*].status.containerStatuses[*].restartCount}",
        )
    };
    let before = server().await.good();

    run(&format!("kubectl --namespace {RELEASE} delete secret rota-tls")).await.good();
    until("another certificate is shown", LIMIT, async || shown(&control).await.filter(|new| *new != old))
        .await;
    assert_eq!(server().await.good(), before, "the control plane did not start again for it");

    // Who connects now trusts the same authority as before.
    let fresh = Control::connect().await;
    let said = fresh.rota(&format!("get task long --namespace {}", space.name)).await.good();
    assert!(said.contains("long"), "{said}");
    assert_eq!(space.field("task/long", ".status.phase").await, "Running");
    space.kubectl(&format!("exec {worker} -- touch /tmp/go")).await.good();
    space.wait("task/long", "condition=Complete", "60s").await;
    let status = space.get("task long").await["status"].take();
    assert_eq!((&status["attempt"], &status["worker"]), (&json!(1), &json!(worker)), "{status}");
    assert_eq!(space.pods.ever().len(), 1, "{}", space.pods.story());
}
