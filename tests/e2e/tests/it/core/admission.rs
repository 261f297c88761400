//! CEL rules on a real API server: submits the accepted and rejected manifests of the `rota-crds` tests.

#[path = "../../../../../crates/crds/tests/cases/mod.rs"]
mod cases;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use kube::api::{Api, DeleteParams, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use rota_crds::resource;
use rota_e2e::{RuleCosts, Space, client, run, until};
use serde_json::Value;

fn cases() -> Vec<(String, cases::Case)> {
    cases::cases(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/crds/tests/cel"))
}

fn api(client: &kube::Client, namespace: &str, object: &Value) -> Api<DynamicObject> {
    let kind = object["kind"].as_str().unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("rota.dev", "v1alpha1", kind));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

type Verdict = Result<(), Vec<String>>;

/// Returns the messages of a rejection.
fn verdict(answer: kube::Result<DynamicObject>) -> Verdict {
    match answer {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 422 => {
            let causes = status.details.map(|details| details.causes).unwrap_or_default();
            Err(causes.into_iter().map(|cause| cause.message).collect())
        }
        Err(error) => panic!("{error}"),
    }
}

async fn create(objects: &Api<DynamicObject>, object: &Value, dry_run: bool) -> Verdict {
    let object = serde_json::from_value(object.clone()).unwrap();
    verdict(objects.create(&PostParams { dry_run, ..PostParams::default() }, &object).await)
}

/// Replaces the spec of an object, like `kubectl replace`.
async fn change(objects: &Api<DynamicObject>, object: &Value) -> Verdict {
    let name = object["metadata"]["name"].as_str().unwrap();
    until("the object is replaced without a conflict", Duration::from_secs(120), async || {
        let mut current = objects.get(name).await.unwrap();
        current.data["spec"] = object["spec"].clone();
        match objects.replace(name, &PostParams::default(), &current).await {
            Err(kube::Error::Api(status)) if status.code == 409 => None,
            answer => Some(verdict(answer)),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn rules_accept_and_reject() {
    let space = Space::new("rules").await;
    let client = client().await;
    let (mut tested, mut count) = (BTreeSet::new(), 0);
    for (place, cases::Case { message, accepted, rejected }) in cases() {
        let objects = api(&client, &space.name, &accepted);
        // New objects are created as a dry run: some would start workers.
        let is_change = accepted["metadata"] == rejected["metadata"];
        create(&objects, &accepted, !is_change)
            .await
            .unwrap_or_else(|messages| panic!("{place}: {messages:?}"));
        let messages = if is_change {
            change(&objects, &rejected).await
        } else {
            create(&objects, &rejected, false).await
        };
        let messages = messages.expect_err(&place);
        assert!(messages.len() == 1 && messages[0].ends_with(&message), "{place}: {message}\n{messages:?}");
        if is_change {
            let name = accepted["metadata"]["name"].as_str().unwrap();
            objects.delete(name, &DeleteParams::default()).await.unwrap();
        }
        tested.insert(message);
        count += 1;
    }
    // Every rule of the installed definitions was tested.
    let mut installed = BTreeSet::new();
    for definition in [
        "agents.rota.dev",
        "tasks.rota.dev",
        "workflows.rota.dev",
        "workflowtemplates.rota.dev",
        "schedules.rota.dev",
    ] {
        let text = run(&format!("kubectl get crd {definition} -o json")).await.success();
        collect_messages(&serde_json::from_str(&text).unwrap(), &mut installed);
    }
    assert_eq!(tested, installed);
    println!("{count} manifests were rejected, by {} rules", installed.len());
}

fn collect_messages(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            for rule in fields.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten()
            {
                found.insert(rule["message"].as_str().unwrap_or_default().to_owned());
            }
            fields.values().for_each(|field| collect_messages(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_messages(item, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn rejection_shows_the_message() {
    let space = Space::new("message").await;
    let output = space
        .try_apply("{apiVersion: rota.dev/v1alpha1, kind: Task, metadata: {name: both}, spec: {agent: a, worker: b}}")
        .await
        .failure();
    assert!(output.contains("agent, agents, worker and capabilities are mutually exclusive"), "{output}");
}

/// The API server refuses a definition whose rules could cost more than their budgets, also the next version of one that it has.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn rules_use_less_than_half_of_their_budgets() {
    let mut estimated = 0;
    for definition in resource::definitions() {
        let (kind, costs) = (&definition.spec.names.kind, RuleCosts::of(&definition).await);
        let all = costs.all * 100.0;
        println!("{kind}: {} rules may cost {all:.3} % of a definition's budget", costs.rules.len());
        if let Some((path, share)) = costs.rules.iter().max_by(|a, b| a.1.total_cmp(b.1)) {
            println!("  {path}: {:.3} % of a rule's budget", share * 100.0);
            assert!(*share < 0.5, "{kind}: {costs:#?}");
        }
        assert!(costs.all < 0.5, "{kind}: {costs:#?}");
        estimated += costs.rules.len();
    }
    assert!(estimated > 0, "the API server has estimated nothing");
}
