//! NetworkPolicy of an agent's worker pods: where they may connect to. It outlives its agent until the last of them has
//! ended, hence has no owner in the cluster; the operator deletes it.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::core::{Selector, SelectorExt};
use rota_crds::Egress;
use rota_crds::resource::Agent;
use tokio::time::Instant;

use super::build;
use super::pod::PodSpecInput;
use super::state::AgentState;
use crate::WorkerOptions;
use crate::cluster::{self, AGENT, MANAGED_BY, MANAGER, ROLE, labels};
use crate::context::Context;
use crate::error::ReconcileError;

/// Component in the labels of policies.
const COMPONENT: &str = "egress";
/// Interval at which a policy is checked: users may change or delete it.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(600);
/// Addresses of which a node's resolver may have one (RFC 3927).
const LINK_LOCAL: &str = "169.254.0.0/16";
/// Addresses at which clouds give credentials of a node or of its workloads: of most clouds, Alibaba and Azure.
const METADATA_V4: [&str; 3] = [LINK_LOCAL, "100.100.100.200/32", "168.63.129.16/32"];
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

/// Writes the policy of an agent that runs pods, or deletes it, unless that was done a moment ago. `has_pods` is whether any
/// pod of it may still run.
pub(super) async fn publish(
    context: &Context,
    agent: &Agent,
    state: &mut AgentState,
    has_pods: bool,
) -> Result<(), ReconcileError> {
    let needed = build::runs_pods(&agent.spec) || has_pods;
    let mut wanted = needed.then(|| policy(agent, &context.options.workers)).flatten();
    if state.network_is_current(wanted.as_ref(), Instant::now()) {
        return Ok(());
    }
    let policies: Api<NetworkPolicy> =
        Api::namespaced(context.kube.clone(), &agent.namespace().unwrap_or_default());
    let name = policy_name(agent);
    let existing = policies.get_opt(&name).await?;
    let published = wanted.clone();
    // Policies add up: this one would open what those of the namespace close.
    if wanted.is_some() && egress(agent, &context.options.workers) == Egress::NoMetadata {
        let pods = worker_labels(agent, &context.options.workers);
        // Without those of all other agents.
        let foreign = format!("{MANAGED_BY}!={MANAGER}");
        let others = policies.list(&ListParams::default().labels(&foreign)).await?;
        wanted = wanted.filter(|_| !others.iter().any(|other| restricts(other, &pods)));
    }
    match (&wanted, existing) {
        (Some(_), Some(existing)) if !is_owned(&existing, agent) => {
            return Err(ReconcileError::ForeignPolicy(name));
        }
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
    state.network_published(published, Instant::now());
    Ok(())
}

/// Whether the operator made a policy for an agent.
fn is_owned(policy: &NetworkPolicy, agent: &Agent) -> bool {
    agent_of(policy) == Some(&agent.name_any())
}

/// Returns the agent for which the operator made a policy.
fn agent_of(policy: &NetworkPolicy) -> Option<&String> {
    let own = labels(COMPONENT);
    let has = |(key, value): (&String, &String)| policy.labels().get(key) == Some(value);
    policy.labels().get(AGENT).filter(|_| own.iter().all(has))
}

/// Whether a policy of someone else restricts where pods with these labels connect to.
fn restricts(policy: &NetworkPolicy, pods: &BTreeMap<String, String>) -> bool {
    let Some(spec) = policy.spec.as_ref().filter(|_| agent_of(policy).is_none()) else { return false };
    let types = spec.policy_types.as_deref().unwrap_or_default();
    let of_egress = types.iter().any(|kind| kind == "Egress") || types.is_empty() && spec.egress.is_some();
    // Without a selector it holds for all pods; one that cannot be read is none of which to be sure.
    let selector = spec.pod_selector.clone().map(Selector::try_from).transpose();
    of_egress && selector.is_ok_and(|selector| selector.is_none_or(|selector| selector.matches(pods)))
}

/// Returns the labels of an agent's worker pods.
fn worker_labels(agent: &Agent, options: &WorkerOptions) -> BTreeMap<String, String> {
    let pod = PodSpecInput { agent, options, task: None }.pod();
    pod.ok().and_then(|pod| pod.metadata.labels).unwrap_or_default()
}

/// Deletes the policies of agents that do not exist and have no pod any more. Returns whether some must stay for now.
pub(super) async fn sweep(
    context: &Context,
    exists: impl Fn(&str, &str) -> bool,
) -> Result<bool, ReconcileError> {
    let own: Vec<_> = labels(COMPONENT).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    let class = context.options.class.selector();
    let params = ListParams::default().labels(&format!("{},{class}", own.join(",")));
    let (kube, watched) = (&context.kube, &context.options.watch_namespaces);
    let mut scopes: Vec<Api<NetworkPolicy>> =
        watched.iter().map(|namespace| Api::namespaced(kube.clone(), namespace)).collect();
    if watched.is_empty() {
        scopes.push(Api::all(kube.clone()));
    }
    let mut left = false;
    for scope in scopes {
        for policy in scope.list(&params).await? {
            let namespace = policy.namespace().unwrap_or_default();
            let Some(agent) = agent_of(&policy).filter(|agent| !exists(&namespace, agent)) else { continue };
            let pods: Api<Pod> = Api::namespaced(kube.clone(), &namespace);
            let workers = ListParams::default().labels(&format!("{AGENT}={agent},{ROLE}=worker")).limit(1);
            if !pods.list(&workers).await?.items.is_empty() {
                left = true;
                continue;
            }
            let (name, uid) = (policy.name_any(), policy.uid().unwrap_or_default());
            let policies: Api<NetworkPolicy> = Api::namespaced(kube.clone(), &namespace);
            cluster::delete(&policies, &name, &uid, DeleteParams::default()).await?;
        }
    }
    Ok(left)
}

/// Returns where an agent's worker pods may connect to.
fn egress(agent: &Agent, options: &WorkerOptions) -> Egress {
    let network = agent.spec.pod.as_ref().and_then(|pod| pod.network.as_ref());
    network.and_then(|network| network.egress).unwrap_or(options.egress)
}

/// Returns why an agent's access is wider than the installation allows.
pub(super) fn exceeds(agent: &Agent, options: &WorkerOptions) -> Option<String> {
    let network = agent.spec.pod.as_ref().and_then(|pod| pod.network.as_ref())?;
    let width = |egress| match egress {
        Egress::Listed => 0,
        Egress::Internet => 1,
        Egress::NoMetadata => 2,
        Egress::Any => 3,
    };
    let limit = options.egress;
    match options.egress_is_limit {
        true if width(egress(agent, options)) > width(limit) => Some(format!(
            "spec.pod.network.egress: may not be wider than {limit:?}, the limit of the installation"
        )),
        true if !network.allow.is_empty() => Some(format!(
            "spec.pod.network.allow: must be empty, since {limit:?} is the limit of the installation"
        )),
        _ => None,
    }
}

fn policy_name(agent: &Agent) -> String {
    format!("rota-egress-{}", agent.name_any())
}

/// Returns the policy of an agent; `None` if its pods may connect to everything.
fn policy(agent: &Agent, options: &WorkerOptions) -> Option<NetworkPolicy> {
    let network = agent.spec.pod.as_ref().and_then(|pod| pod.network.clone()).unwrap_or_default();
    let mut egress = match egress(agent, options) {
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
    let mut labels = labels(COMPONENT);
    labels.insert(AGENT.to_owned(), agent.name_any());
    options.class.label(&mut labels);
    Some(NetworkPolicy {
        metadata: ObjectMeta { name: Some(policy_name(agent)), labels: Some(labels), ..Default::default() },
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selecting(selector.into())),
            policy_types: Some(vec!["Egress".to_owned()]),
            egress: Some(egress),
            ingress: None,
        }),
    })
}

/// Name resolution by pods, or by a cache of the node, which has a link-local address: no server outside the cluster.
fn dns() -> NetworkPolicyEgressRule {
    let port = |protocol: &str| NetworkPolicyPort {
        port: Some(IntOrString::Int(53)),
        protocol: Some(protocol.to_owned()),
        end_port: None,
    };
    NetworkPolicyEgressRule {
        ports: Some(vec![port("UDP"), port("TCP")]),
        to: Some(vec![pods_of(None), block(LINK_LOCAL, &[])]),
    }
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
        assert_eq!(policy["metadata"]["labels"]["rota.dev/agent"], "coder");
        policy["spec"]["egress"].as_array().cloned()
    }

    #[test]
    fn policy_without_a_value_closes_metadata_endpoints() {
        let rules = egress("{}").unwrap();
        let peers = rules[1]["to"].as_array().unwrap();
        assert_eq!(peers[0], json!({"namespaceSelector": {}}));
        let closed =
            |peer: &Value, address| peer["ipBlock"]["except"].as_array().unwrap().contains(&json!(address));
        assert!(closed(&peers[1], "169.254.0.0/16"));
        assert!(closed(&peers[2], "fd00:ec2::254/128"));
    }

    #[test]
    fn listed_policy_has_dns_control_plane_and_list() {
        let proxy = json!({"to": [{"podSelector": {"matchLabels": {"app": "proxy"}}}]});
        let rules = egress(&format!("{{egress: Listed, allow: [{proxy}]}}")).unwrap();
        assert_eq!(rules.len(), 3);
        assert_eq!(rules[0]["ports"][0], json!({"port": 53, "protocol": "UDP"}));
        let resolvers =
            json!([{"namespaceSelector": {}}, {"ipBlock": {"cidr": "169.254.0.0/16", "except": []}}]);
        assert_eq!(rules[0]["to"], resolvers);
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
        assert!(rules[1..].iter().all(|rule| !rule.to_string().contains(r#""namespaceSelector":{}"#)));
    }

    #[test]
    fn policies_of_others_are_not_opened() {
        let agent = agent("{runtime: {scripted: {}}, pod: {labels: {team: red}}}");
        let policy = |labels: Value, spec: Value| -> NetworkPolicy {
            serde_json::from_value(json!({"metadata": {"name": "p", "labels": labels}, "spec": spec}))
                .unwrap()
        };
        let pods = worker_labels(&agent, &WorkerOptions::default());
        let other = |spec| restricts(&policy(json!({}), spec), &pods);
        assert!(other(json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})));
        assert!(other(json!({"podSelector": {"matchLabels": {"team": "red"}}, "policyTypes": ["Egress"]})));
        assert!(other(json!({"podSelector": {"matchLabels": {"rota.dev/role": "worker"}}, "egress": []})));
        assert!(!other(json!({"podSelector": {}, "policyTypes": ["Ingress"]})));
        assert!(!other(json!({"podSelector": {"matchLabels": {"team": "blue"}}, "policyTypes": ["Egress"]})));
        let own = super::policy(&agent, &WorkerOptions::default()).unwrap();
        assert!(is_owned(&own, &agent) && !restricts(&own, &pods));
    }

    #[test]
    fn limit_of_the_installation_is_not_exceeded() {
        let exceeds = |egress, network: &str| {
            let options = WorkerOptions { egress, egress_is_limit: true, ..WorkerOptions::default() };
            let agent = agent(&format!("{{runtime: {{scripted: {{}}}}, pod: {{network: {network}}}}}"));
            super::exceeds(&agent, &options).is_some()
        };
        assert!(
            exceeds(Egress::NoMetadata, "{egress: Any}") && exceeds(Egress::Listed, "{egress: Internet}")
        );
        assert!(exceeds(Egress::Listed, "{allow: [{to: [{podSelector: {}}]}]}"));
        assert!(!exceeds(Egress::NoMetadata, "{egress: Internet}") && !exceeds(Egress::Internet, "{}"));
        let options = WorkerOptions::default();
        let free =
            super::exceeds(&agent("{runtime: {scripted: {}}, pod: {network: {egress: Any}}}"), &options);
        assert_eq!(free, None);
    }

    #[test]
    fn unrestricted_agents_have_no_policy() {
        assert_eq!(egress("{egress: Any}"), None);
    }
}
