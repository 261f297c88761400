//! What the cluster refuses, and what it says: the manifests that the crate of the definitions tries by itself,
//! handed to a real API server.

#[path = "../../../../crates/crds/tests/cases/mod.rs"]
mod cases;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use kube::api::{Api, DeleteParams, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use rota_e2e::{Space, client, run, until};
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

/// What the API server says of an object: nothing, or why it is refused.
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

/// As `kubectl replace` does it: the spec is this one and nothing else.
async fn change(objects: &Api<DynamicObject>, object: &Value) -> Verdict {
    let name = object["metadata"]["name"].as_str().unwrap();
    until("nobody wrote at the same time", Duration::from_secs(30), async || {
        let mut there = objects.get(name).await.unwrap();
        there.data["spec"] = object["spec"].clone();
        match objects.replace(name, &PostParams::default(), &there).await {
            Err(kube::Error::Api(status)) if status.code == 409 => None,
            answer => Some(verdict(answer)),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn rules_take_and_refuse_what_they_should() {
    let space = Space::new("rules").await;
    let client = client().await;
    let (mut tried, mut count) = (BTreeSet::new(), 0);
    for (place, cases::Case { message, accepted, refused }) in cases() {
        let objects = api(&client, &space.name, &accepted);
        // What is new need not be there: some would start workers.
        let is_change = accepted["metadata"] == refused["metadata"];
        create(&objects, &accepted, !is_change).await.unwrap_or_else(|said| panic!("{place}: {said:?}"));
        let said = if is_change {
            change(&objects, &refused).await
        } else {
            create(&objects, &refused, false).await
        };
        let said = said.expect_err(&place);
        assert!(said.len() == 1 && said[0].ends_with(&message), "{place}: {message}\n{said:?}");
        if is_change {
            let name = accepted["metadata"]["name"].as_str().unwrap();
            objects.delete(name, &DeleteParams::default()).await.unwrap();
        }
        tried.insert(message);
        count += 1;
    }
    // None is left out: these are the rules that this cluster has.
    let mut there = BTreeSet::new();
    for definition in ["agents.rota.dev", "tasks.rota.dev"] {
        let text = run(&format!("kubectl get crd {definition} -o json")).await.good();
        messages(&serde_json::from_str(&text).unwrap(), &mut there);
    }
    assert_eq!(tried, there);
    println!("{count} manifests were refused, by {} rules", there.len());
}

fn messages(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            for rule in fields.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten()
            {
                found.insert(rule["message"].as_str().unwrap_or_default().to_owned());
            }
            fields.values().for_each(|field| messages(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| messages(item, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn rules_speak_to_people() {
    let space = Space::new("sentence").await;
    let said = space
        .hand_in("{apiVersion: rota.dev/v1alpha1, kind: Task, metadata: {name: both}, spec: {agent: a, worker: b}}")
        .await
        .bad();
    assert!(said.contains("agent, worker and capabilities exclude each other"), "{said}");
}
