//! Estimated costs of the CEL rules of a definition, as the API server computes them before it accepts the definition. It reports
//! by which factor a budget is exceeded and nothing below, so the rules are repeated more and more often until they exceed it.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use crate::client;

/// API group of the definitions that are estimated, none of which is created.
const GROUP: &str = "costs.rota.dev";
/// Lengths of two loops around each rule. Below a hundredfold excess, the API server reports the factor with a digit after the point.
const LOOPS: [(usize, usize); 7] =
    [(1000, 1000), (100, 1000), (10, 1000), (1, 1000), (1, 100), (1, 10), (1, 1)];
const RULES: &str = "x-kubernetes-validations";

/// Shares of the budgets that the rules of a definition use.
#[derive(Debug, Default)]
pub struct RuleCosts {
    /// Share of the budget of a rule, by its path. Rules that use less than a millionth are missing.
    pub rules: BTreeMap<String, f64>,
    /// Share that all rules use of the budget of a definition.
    pub all: f64,
}

impl RuleCosts {
    /// Estimates the costs of all rules of a definition.
    pub async fn of(definition: &CustomResourceDefinition) -> Self {
        let definitions: Api<CustomResourceDefinition> = Api::all(client().await);
        let mut costs = Self::default();
        for loops in LOOPS {
            let repeated = repeated(definition, loops);
            let params = PostParams { dry_run: true, ..PostParams::default() };
            let rejection = match definitions.create(&params, &repeated).await {
                Ok(_) => break,
                Err(kube::Error::Api(rejection)) if rejection.code == 422 => rejection,
                Err(error) => panic!("{error}"),
            };
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let times = (loops.0 * loops.1) as f64;
            for cause in rejection.details.map(|details| details.causes).unwrap_or_default() {
                let Some(factor) = factor(&cause.message) else { continue };
                let share = factor / times;
                match cause.field.split_once(".openAPIV3Schema.") {
                    Some((_, path)) => drop(costs.rules.entry(path.to_owned()).or_insert(share)),
                    None if costs.all == 0.0 => costs.all = share,
                    None => {}
                }
            }
        }
        costs
    }
}

/// Returns the factor of a message such as `… exceeds budget by factor of 2.5x (try …`; none of one that exceeds a hundred.
fn factor(message: &str) -> Option<f64> {
    let (_, factor) = message.split_once("exceeds budget by factor of ")?;
    factor.split_once('x')?.0.parse().ok()
}

/// Returns the definition in a group of its own, in which each rule is evaluated in two loops.
fn repeated(definition: &CustomResourceDefinition, loops: (usize, usize)) -> CustomResourceDefinition {
    let copied = serde_json::to_value(definition).and_then(|mut copy| {
        copy["metadata"] = json!({ "name": format!("{}.{GROUP}", definition.spec.names.plural) });
        copy["spec"]["group"] = json!(GROUP);
        repeat_rules(&mut copy, loops);
        serde_json::from_value(copy)
    });
    copied.unwrap_or_else(|error| panic!("{error}"))
}

fn repeat_rules(value: &mut Value, loops: (usize, usize)) {
    match value {
        Value::Object(fields) => {
            for rule in fields.get_mut(RULES).and_then(Value::as_array_mut).into_iter().flatten() {
                let text = rule["rule"].as_str().unwrap_or_default();
                rule["rule"] = json!(looped(loops.0, "i", &looped(loops.1, "j", text)));
            }
            fields.values_mut().for_each(|field| repeat_rules(field, loops));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| repeat_rules(item, loops)),
        _ => {}
    }
}

fn looped(times: usize, variable: &str, rule: &str) -> String {
    match times {
        1 => rule.to_owned(),
        _ => format!("[{}].all({variable}, {rule})", vec!["0"; times].join(",")),
    }
}
