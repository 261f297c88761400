//! Labels of new workflows, whose values may read the inputs: they are evaluated once, as the names of concurrency groups are.

use std::collections::BTreeMap;

use rota_expressions::{References, Template, Values};
use tonic::Status;

use crate::wire::check;
use crate::wire::status::invalid;

const FIELD: &str = "workflow.labels";
/// Bytes of the template of a label.
const MAX_TEMPLATE: usize = 4 << 10;

/// Returns labels with the results of their expressions, which are counted.
pub(super) fn evaluated(
    mut given: BTreeMap<String, String>,
    inputs: &Values,
    used: &mut References,
) -> Result<BTreeMap<String, String>, Status> {
    for (name, text) in given.iter_mut().filter(|(_, text)| text.contains("${{")) {
        let field = format!("{FIELD}[{:?}]", check::shorten(name));
        check::length(&field, text, MAX_TEMPLATE)?;
        let failed = |error: rota_expressions::Error| invalid(field.clone(), error.to_string());
        let template = Template::parse(text).map_err(failed)?;
        let reads = template.references();
        let only_inputs =
            References { inputs: reads.inputs.clone(), count: reads.count, ..References::default() };
        if reads != only_inputs {
            return Err(invalid(field, "can read `inputs` alone: it is evaluated at the creation"));
        }
        used.merge(&reads);
        *text = template.evaluate_text(inputs).map_err(failed)?;
    }
    check::labels(FIELD, &given)?;
    Ok(given)
}
