//! NetworkPolicy of an agent's worker pods: where they may connect to. Each agent owns its policy, which is deleted with it.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use rota_crds::Egress;
use rota_crds::resource::Agent;
use tokio::time::Instant;

use super::build;
use super::state::AgentState;
use crate::WorkerOptions;
use crate::cluster::{self, AGENT, MANAGER, ROLE, labels};
use crate::context::Context;
use crate::error::ReconcileError;

/// Interval at which a policy is checked: users may change or delete it.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(600);
/// Addresses at which clouds give credentials of a node or of its workloads: of most clouds, ECS, EKS, Alibaba and Azure.
const METADATA_V4: [&str; 5] =
    ["169.254.169.254/32", "169.254.170.2/32", "169.254.170.23/32", "100.100.100.200/32", "168.63.129.16/32"];
/// The same with IPv6: of EC2, EKS and GCE.
const METADATA_V6: [&str; 3] = ["fd00:ec2::254/128", "fd00:ec2::23/128", "fd20:ce::254/128"];
/// Blocks that are not public: RFC 1918, RFC 6598, loopback and link-local addresses, and Azure's metadata.
const PRIVATE_V4: [&str; 8] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
];
/// The same with IPv6 (RFC 4193, RFC 4291), and the blocks that embed IPv4 addresses (RFC 6052, RFC 8215).
const PRIVATE_V6: [&str; 5] = ["::/96", "fc00::/7", "fe80::/10", "64:ff9b::/96", "64:ff9b:1::/48"];

/// Writes the policy of an agent that runs pods, or deletes it, unless that was done a moment ago.
pub(super) async fn publish(
    context: &Context,
    agent: &Agent,
    state: &mut AgentState,
) -> Result<(), ReconcileError> {
    let wanted = build::runs_pods(&agent.spec).then(|| policy(agent, &context.options.workers)).flatten();
    if state.network_is_current(wanted.as_ref(), Instant::now()) {
        return Ok(());
    }
    let policies: Api<NetworkPolicy> =
        Api::namespaced(context.kube.clone(), &agent.namespace().unwrap_or_default());
    let name = policy_name(agent);
    let existing = policies.get_opt(&name).await?;
    match (&wanted, existing) {
        (Some(wanted), existing) if existing.as_ref().is_none_or(|existing| existing.spec != wanted.spec) => {
            let params = PatchParams::apply(MANAGER).force();
            policies.patch(&name, &params, &Patch::Apply(wanted)).await?;
        }
        // One of a user by this name is left alone.
        (None, Some(existing)) if is_owned(&existing, agent) => {
            let uid = existing.uid().unwrap_or_default();
            cluster::delete(&policies, &name, &uid, DeleteParams::default()).await?;
        }
        _ => {}
    }
    state.network_published(wanted, Instant::now());
    Ok(())
}

fn is_owned(policy: &NetworkPolicy, agent: &Agent) -> bool {
    policy.owner_references().iter().any(|owner| Some(&owner.uid) == agent.metadata.uid.as_ref())
}

fn policy_name(agent: &Agent) -> String {
    format!("rota-egress-{}", agent.name_any())
}

/// Returns the policy of an agent; `None` if its pods may connect to everything.
fn policy(agent: &Agent, options: &WorkerOptions) -> Option<NetworkPolicy> {
    let network = agent.spec.pod.as_ref().and_then(|pod| pod.network.clone()).unwrap_or_default();
    let mut egress = match network.egress.unwrap_or(options.egress) {
        Egress::Any => return None,
        // Selected apart: addresses of pods are in no block for some network plugins.
        Egress::NoMetadata => vec![
            dns(),
            to(vec![pods_of(None), block("0.0.0.0/0", &METADATA_V4), block("::/0", &METADATA_V6)]),
        ],
        Egress::Internet => vec![
            dns(),
            to(vec![pods_of(Some(&options.control_namespace))]),
            to(vec![block("0.0.0.0/0", &PRIVATE_V4), block("::/0", &PRIVATE_V6)]),
        ],
        Egress::Listed => vec![dns(), to(vec![pods_of(Some(&options.control_namespace))])],
    };
    let allowed = network.allow.iter().map(|rule| serde_json::Value::Object(rule.0.clone()));
    egress.extend(allowed.filter_map(|rule| serde_json::from_value(rule).ok()));
    let selector = [(AGENT.to_owned(), agent.name_any()), (ROLE.to_owned(), "worker".to_owned())];
    let mut labels = labels("egress");
    options.class.label(&mut labels);
    Some(NetworkPolicy {
        metadata: ObjectMeta {
            name: Some(policy_name(agent)),
            labels: Some(labels),
            owner_references: agent.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..Default::default()
        },
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selecting(selector.into())),
            policy_types: Some(vec!["Egress".to_owned()]),
            egress: Some(egress),
            ingress: None,
        }),
    })
}

/// Name resolution, at any address: caches of nodes have link-local ones.
fn dns() -> NetworkPolicyEgressRule {
    let port = |protocol: &str| NetworkPolicyPort {
        port: Some(IntOrString::Int(53)),
        protocol: Some(protocol.to_owned()),
        end_port: None,
    };
    NetworkPolicyEgressRule { ports: Some(vec![port("UDP"), port("TCP")]), to: None }
}

fn to(peers: Vec<NetworkPolicyPeer>) -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule { to: Some(peers), ports: None }
}

/// All pods of a namespace, or of all namespaces.
fn pods_of(namespace: Option<&str>) -> NetworkPolicyPeer {
    let name = |namespace: &str| ("kubernetes.io/metadata.name".to_owned(), namespace.to_owned());
    NetworkPolicyPeer {
        namespace_selector: Some(selecting(namespace.map(name).into_iter().collect())),
        ..Default::default()
    }
}

fn selecting(labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: (!labels.is_empty()).then_some(labels), match_expressions: None }
}

fn block(cidr: &str, except: &[&str]) -> NetworkPolicyPeer {
    let except = except.iter().map(|&cidr| cidr.to_owned()).collect();
    let ip_block = Some(IPBlock { cidr: cidr.to_owned(), except: Some(except) });
    NetworkPolicyPeer { ip_block, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::pod::tests::agent;
    use super::*;

    fn egress(network: &str) -> Option<Vec<Value>> {
        let options = WorkerOptions { control_namespace: "rota".into(), ..WorkerOptions::default() };
        let agent = agent(&format!("{{runtime: {{scripted: {{}}}}, pod: {{network: {network}}}}}"));
        let policy = serde_json::to_value(policy(&agent, &options)?).unwrap();
        let selector = json!({"rota.dev/agent": "coder", "rota.dev/role": "worker"});
        assert_eq!(policy["spec"]["podSelector"]["matchLabels"], selector);
        assert_eq!(policy["metadata"]["ownerReferences"][0]["uid"], "u1");
        policy["spec"]["egress"].as_array().cloned()
    }

    #[test]
    fn policy_without_a_value_closes_metadata_endpoints() {
        let rules = egress("{}").unwrap();
        let peers = rules[1]["to"].as_array().unwrap();
        assert_eq!(peers[0], json!({"namespaceSelector": {}}));
        let closed =
            |peer: &Value, address| peer["ipBlock"]["except"].as_array().unwrap().contains(&json!(address));
        assert!(closed(&peers[1], "169.254.169.254/32"));
        assert!(closed(&peers[2], "fd00:ec2::254/128"));
    }

    #[test]
    fn listed_policy_has_dns_control_plane_and_list() {
        let proxy = json!({"to": [{"podSelector": {"matchLabels": {"app": "proxy"}}}]});
        let rules = egress(&format!("{{egress: Listed, allow: [{proxy}]}}")).unwrap();
        assert_eq!(rules.len(), 3);
        assert_eq!(rules[0]["ports"][0], json!({"port": 53, "protocol": "UDP"}));
        let control =
            json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "rota"}}}]);
        assert_eq!(rules[1]["to"], control);
        assert_eq!(rules[2], proxy);
    }

    #[test]
    fn internet_policy_closes_private_networks() {
        let rules = egress("{egress: Internet}").unwrap();
        let public = rules[2]["to"][0]["ipBlock"]["except"].as_array().unwrap();
        assert!(
            ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]
                .iter()
                .all(|cidr| public.contains(&json!(cidr)))
        );
        assert!(rules.iter().all(|rule| !rule.to_string().contains(r#""namespaceSelector":{}"#)));
    }

    #[test]
    fn unrestricted_agents_have_no_policy() {
        assert_eq!(egress("{egress: Any}"), None);
    }
}
