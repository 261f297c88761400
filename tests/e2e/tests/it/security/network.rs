//! NetworkPolicies of worker pods. The test cluster does not enforce them: what is shown is that each agent has the one it
//! asked for before its first pod.

use std::time::Duration;

use rota_e2e::{Space, until};
use serde_json::json;

const TEST_TIMEOUT: Duration = Duration::from_secs(240);

fn manifest(egress: &str) -> String {
    format!(
        "apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {{name: shell}}
spec:
  runtime: {{command: {{shell: 'echo done'}}}}
  replicas: 1
  pod: {{network: {egress}}}
"
    )
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn agents_have_the_policies_they_ask_for() {
    let space = Space::new("network").await;
    space.apply(&manifest("{}")).await;
    space.wait("agent/shell", "condition=Ready", "180s").await;
    let policy = space.get("networkpolicy/rota-egress-shell").await;
    let closed = &policy["spec"]["egress"][1]["to"][1]["ipBlock"]["except"];
    assert!(closed.to_string().contains("169.254.0.0/16"), "{policy:#}");
    let pod = &space.get("pods --selector rota.dev/role=worker").await["items"][0];
    for (label, value) in policy["spec"]["podSelector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&pod["metadata"]["labels"][label], value);
    }

    space
        .apply(&manifest("{egress: Listed, allow: [{to: [{podSelector: {matchLabels: {app: proxy}}}]}]}"))
        .await;
    until("the listed policy", TEST_TIMEOUT, async || {
        let policy = space.get("networkpolicy/rota-egress-shell").await;
        let proxy = json!([{"podSelector": {"matchLabels": {"app": "proxy"}}}]);
        (policy["spec"]["egress"][2]["to"] == proxy).then_some(())
    })
    .await;

    space.apply(&manifest("{egress: Any}")).await;
    until("no policy", TEST_TIMEOUT, async || {
        let all = space.get("networkpolicies").await;
        all["items"].as_array().is_some_and(Vec::is_empty).then_some(())
    })
    .await;
}
