//! Bounds of a step that may be expressions: how many of its tasks may exist at the same time, and how many rounds it may have. They are
//! evaluated when its first round starts, and kept with the step.

use rota_core::workflow::{MAX_ITEMS, MAX_ROUNDS, Step, StepState};
use rota_expressions::{Expression, Values};
use rota_proto::num::whole;
use rota_proto::v1;

use super::evaluate::failed;
use super::values::NoValues;

/// Returns a step whose round has started with so many tasks or workflows, of which none was created.
pub(super) fn planned(
    step: &Step,
    spec: &v1::WorkflowStep,
    values: &Values,
    total: u32,
) -> Result<Step, NoValues> {
    let mut planned = step.clone();
    (planned.state, planned.total, planned.created) = (StepState::Running, total, 0);
    if step.round > 1 {
        return Ok(planned);
    }
    if let Some(each) = &spec.for_each {
        let number = u32::try_from(each.max_parallel).unwrap_or(0);
        let evaluated = bound("forEach.maxParallel", &each.max_parallel_expression, values, MAX_ITEMS)?;
        planned.parallel = evaluated.unwrap_or(number);
    }
    if let Some(repeat) = &spec.repeat {
        let evaluated = bound("repeat.max", &repeat.max_expression, values, MAX_ROUNDS)?;
        planned.max_rounds = evaluated.unwrap_or(step.max_rounds);
    }
    Ok(planned)
}

fn bound(name: &str, expression: &str, values: &Values, most: u32) -> Result<Option<u32>, NoValues> {
    if expression.is_empty() {
        return Ok(None);
    }
    let value = Expression::parse(expression).and_then(|parsed| parsed.evaluate(values)).map_err(failed)?;
    let number = whole(value.clone()).as_u64().and_then(|number| u32::try_from(number).ok());
    let number = number.filter(|number| (1..=most).contains(number)).ok_or_else(|| {
        let text = value.to_string();
        let shown = rota_core::text::prefix(&text, 100);
        failed(format!("{name} is {shown}, and must be a whole number from 1 to {most}"))
    })?;
    Ok(Some(number))
}
