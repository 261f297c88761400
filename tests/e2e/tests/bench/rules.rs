//! What the CEL rules of the definitions cost the API server: the same tasks with them, and of a copy of the kind without them. All
//! requests are dry runs, which validate as others do and store nothing.

use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use rota_crds::resource;
use rota_e2e::{Component, RuleCosts, Space, Usage, client, run};
use serde_json::{Value, json};

/// API group of the copy, which no operator watches.
const BARE: &str = "bare.rota.dev";
/// Requests of a round, and rounds of each kind: they alternate, since other load changes.
const REQUESTS: u32 = 400;
const ROUNDS: usize = 3;

/// Returns the definition of tasks in a group of its own, without rules.
fn bare() -> Value {
    let all = resource::definitions();
    let tasks = all.iter().find(|definition| definition.spec.names.kind == "Task").unwrap();
    let mut copy = serde_json::to_value(tasks).unwrap();
    copy["metadata"] = json!({ "name": format!("tasks.{BARE}") });
    copy["spec"]["group"] = json!(BARE);
    copy["spec"]["names"] = json!({ "kind": "Task", "plural": "tasks", "singular": "task" });
    remove_rules(&mut copy);
    copy
}

fn remove_rules(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("x-kubernetes-validations");
            fields.values_mut().for_each(remove_rules);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_rules),
        _ => {}
    }
}

async fn api(space: &Space, group: &str) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1alpha1", "Task"));
    Api::namespaced_with(client().await, &space.name, &kind)
}

/// Returns the fields of a task, whose agent does not exist, so that it stays as it is.
fn task() -> Value {
    json!({ "spec": {
        "agent": "absent", "prompt": "Repair the test.", "limits": { "timeout": "1h" },
        "runtime": { "command": { "shell": "echo x" } }, "environment": { "A": "b" },
    } })
}

/// Returns the processor time of the API server for each request, in milliseconds.
async fn cost(mut request: impl AsyncFnMut(u32)) -> f64 {
    let before = Usage::of(Component::ApiServer).await.cpu_seconds;
    for number in 0..REQUESTS {
        request(number).await;
    }
    let used = Usage::of(Component::ApiServer).await.cpu_seconds - before;
    used * 1000.0 / f64::from(REQUESTS)
}

fn median(mut values: Vec<f64>) -> Value {
    values.sort_by(f64::total_cmp);
    json!((values[values.len() / 2] * 100.0).round() / 100.0)
}

/// Returns what the API server estimates for the rules of each kind, in percent of its budgets: of the most expensive one, and of all.
async fn estimates() -> Value {
    let mut estimates = serde_json::Map::new();
    for definition in resource::definitions() {
        let costs = RuleCosts::of(&definition).await;
        let most = costs.rules.values().copied().fold(0.0, f64::max);
        let percent = |share: f64| json!((share * 1e5).round() / 1e3);
        let estimate =
            json!({ "rules": costs.rules.len(), "most_expensive": percent(most), "all": percent(costs.all) });
        estimates.insert(definition.spec.names.kind, estimate);
    }
    Value::Object(estimates)
}

/// Measures creations, and changes of labels, to which the rules of immutable fields apply.
pub(crate) async fn measure(space: &Space) -> Value {
    space.try_apply(&bare().to_string()).await.success();
    run(&format!("kubectl wait --for=condition=Established --timeout=60s crd/tasks.{BARE}")).await.success();
    let groups = ["rota.dev", BARE];
    for group in groups {
        let mut existing = task();
        existing["metadata"] = json!({ "name": "existing" });
        existing["apiVersion"] = json!(format!("{group}/v1alpha1"));
        existing["kind"] = json!("Task");
        space.apply(&existing.to_string()).await;
    }
    let mut costs = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        for (index, group) in groups.into_iter().enumerate() {
            let tasks = api(space, group).await;
            let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1alpha1", "Task"));
            let create = async |number| {
                let name = format!("new-{number}");
                let object = DynamicObject::new(&name, &kind).data(task());
                tasks.create(&PostParams { dry_run: true, ..PostParams::default() }, &object).await.unwrap();
            };
            costs[index].push(cost(create).await);
            let change = async |number: u32| {
                let patch = json!({ "metadata": { "labels": { "number": number.to_string() } } });
                let params = PatchParams { dry_run: true, ..PatchParams::default() };
                tasks.patch("existing", &params, &Patch::Merge(&patch)).await.unwrap();
            };
            costs[2 + index].push(cost(change).await);
        }
    }
    run(&format!("kubectl delete crd tasks.{BARE}")).await.success();
    let [create, create_bare, change, change_bare] = costs.map(median);
    json!({
        "requests": ROUNDS * REQUESTS as usize,
        "create_cpu_ms": create, "create_cpu_ms_without_rules": create_bare,
        "change_cpu_ms": change, "change_cpu_ms_without_rules": change_bare,
        "percent_of_budgets": estimates().await,
    })
}
