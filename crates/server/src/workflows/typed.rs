//! Fields of a step that are no texts and may be expressions: times and numbers. A result of another type is an error of the step.

use std::time::Duration;

use rota_core::workflow::Kind;
use rota_expressions::{Expression, References, Values};
use rota_proto::num::whole;
use rota_proto::v1;
use rota_proto::v1::workflow_step::Kind as Given;
use serde_json::{Value, json};

use super::values::{NoFill, NoValues, failed};
use crate::wire::time;
use crate::wire::workflow::is_time;

const PRIORITY: &str = "priority";

/// Returns a step whose fields have the results of their expressions, besides the limits of its tasks.
pub(super) fn evaluated(mut spec: v1::WorkflowStep, values: &Values) -> Result<v1::WorkflowStep, NoValues> {
    let found: Vec<_> = spec.expressions.iter().map(|(path, text)| (path.clone(), text.clone())).collect();
    for (path, text) in found {
        let time = || duration(&path, evaluate(&text, values)?);
        match (path.as_str(), &mut spec.kind) {
            (PRIORITY, _) => spec.priority = Some(number(&path, evaluate(&text, values)?, 0, 10)?),
            ("timeout", _) => spec.timeout = Some(time()?),
            ("wait.duration", Some(Given::Wait(wait))) => {
                wait.kind = Some(v1::step_wait::Kind::Duration(time()?));
            }
            ("wait.timeout", Some(Given::Wait(wait))) => wait.timeout = Some(time()?),
            ("approval.deadline", Some(Given::Approval(approval))) => approval.deadline = Some(time()?),
            _ => {}
        }
    }
    Ok(spec)
}

/// Returns the priority of the tasks of a step.
pub(super) fn priority(spec: &v1::WorkflowStep, values: &Values) -> Result<Option<i32>, NoValues> {
    match spec.expressions.get(PRIORITY) {
        Some(text) => number(PRIORITY, evaluate(text, values)?, 0, 10).map(Some),
        None => Ok(spec.priority),
    }
}

/// Returns the kind of an evaluated step that waits, if a time of it is an expression.
pub(super) fn kind(spec: &v1::WorkflowStep) -> Result<Option<Kind>, NoValues> {
    let is_of_kind = |path: &String| path.starts_with("wait.") || path.starts_with("approval.");
    if !spec.expressions.keys().any(is_of_kind) {
        return Ok(None);
    }
    let time = |given: Option<&pbjson_types::Duration>| time::from_duration("time", given).map_err(failed);
    Ok(match &spec.kind {
        Some(Given::Approval(approval)) => Some(Kind::Approval {
            deadline: time(approval.deadline.as_ref())?,
            approves: approval.default_decision() == v1::StepDecision::Approve,
        }),
        Some(Given::Wait(wait)) => Some(match &wait.kind {
            Some(v1::step_wait::Kind::Duration(given)) => {
                Kind::Sleep { duration: time(Some(given))?.unwrap_or_default() }
            }
            _ => Kind::Signal { timeout: time(wait.timeout.as_ref())? },
        }),
        _ => None,
    })
}

/// Limits of a task that are expressions, by their names.
pub(super) struct Limits(Vec<(String, Expression)>);

impl Limits {
    /// Returns those of the task of a step, or of its compensation, with what they and the priority read.
    pub(super) fn of(spec: &v1::WorkflowStep, parent: &str) -> Result<(Self, References), NoValues> {
        let (mut limits, mut references) = (Vec::new(), References::default());
        for (path, text) in &spec.expressions {
            let name = path.strip_prefix(parent).and_then(|rest| rest.strip_prefix('.'));
            if name.is_none() && path != PRIORITY {
                continue;
            }
            let expression = Expression::parse(text).map_err(failed)?;
            references.merge(expression.references());
            limits.extend(name.map(|name| (name.to_owned(), expression)));
        }
        Ok((Self(limits), references))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets the limits of a task as JSON.
    pub(super) fn fill(&self, task: &mut Value, values: &Values) -> Result<(), NoFill> {
        for (name, expression) in &self.0 {
            let value = whole(expression.evaluate(values)?);
            let wrong = |why: NoValues| match why {
                NoValues::Step(why) => NoFill::Failed(why),
                NoValues::Store(status) | NoValues::Later(status) => {
                    NoFill::Failed(status.message().to_owned())
                }
            };
            let path = format!("limits.{name}");
            let value = match is_time(name) {
                true => serde_json::to_value(duration(&path, value).map_err(wrong)?)?,
                false => json!(number::<i64>(&path, value, 1, i64::MAX).map_err(wrong)?),
            };
            let fields = task.as_object_mut().map(|task| task.entry("limits").or_insert_with(|| json!({})));
            if let Some(limits) = fields.and_then(Value::as_object_mut) {
                limits.insert(name.clone(), value);
            }
        }
        Ok(())
    }
}

/// Returns the result of an expression.
pub(super) fn evaluate(text: &str, values: &Values) -> Result<Value, NoValues> {
    Expression::parse(text).and_then(|parsed| parsed.evaluate(values)).map(whole).map_err(failed)
}

fn wrong(path: &str, value: &Value, wanted: &str) -> NoValues {
    let text = value.to_string();
    failed(format!("{path} is {}, and must be {wanted}", rota_core::text::prefix(&text, 100)))
}

/// Returns a whole number within these bounds.
pub(super) fn number<T: TryFrom<i64>>(
    path: &str,
    value: Value,
    least: i64,
    most: i64,
) -> Result<T, NoValues> {
    let found = value.as_i64().filter(|number| (least..=most).contains(number));
    let wanted = match most {
        i64::MAX => format!("a whole number from {least} on"),
        most => format!("a whole number from {least} to {most}"),
    };
    found.and_then(|number| number.try_into().ok()).ok_or_else(|| wrong(path, &value, &wanted))
}

fn duration(path: &str, value: Value) -> Result<pbjson_types::Duration, NoValues> {
    const WANTED: &str = "a time of more than 0 and at most 7 days, such as \"90s\" or 90";
    let given = match value.as_f64() {
        Some(seconds) => Duration::try_from_secs_f64(seconds).ok().map(time::duration),
        None => serde_json::from_value(value.clone()).ok(),
    };
    let fits = |given: &pbjson_types::Duration| {
        time::from_duration(path, Some(given)).is_ok_and(|time| time.is_some_and(|time| !time.is_zero()))
    };
    given.filter(fits).ok_or_else(|| wrong(path, &value, WANTED))
}
