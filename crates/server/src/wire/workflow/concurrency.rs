//! Concurrency groups of new workflows and of their steps: names are evaluated once, with the inputs.

use rota_core::workflow::{Group, MAX_GROUP_LIMIT, Place};
use rota_expressions::{References, Template, Values};
use rota_proto::v1;
use tonic::Status;

use super::super::check;
use super::super::status::invalid;

/// Bytes of the name of a group, and of its template.
const MAX_NAME: usize = 128;
const MAX_TEMPLATE: usize = 4 << 10;

pub(super) fn group(
    field: &str,
    given: Option<&v1::Concurrency>,
    inputs: &Values,
    used: &mut References,
) -> Result<Option<Box<Group>>, Status> {
    let Some(given) = given else { return Ok(None) };
    let at = |name: &str| format!("{field}.concurrency.{name}");
    check::length(&at("group"), &given.group, MAX_TEMPLATE)?;
    let failed = |error: rota_expressions::Error| invalid(at("group"), error.to_string());
    let template = Template::parse(&given.group).map_err(failed)?;
    let reads = template.references();
    let only_inputs =
        References { inputs: reads.inputs.clone(), count: reads.count, ..References::default() };
    if reads != only_inputs {
        return Err(invalid(at("group"), "can read `inputs` alone: it is evaluated at the creation"));
    }
    used.merge(&reads);
    let name = template.evaluate_text(inputs).map_err(failed)?;
    check::length(&at("group"), &name, MAX_NAME)?;
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(invalid(at("group"), "must be a name without control characters"));
    }
    let limit = match u32::try_from(given.limit) {
        Ok(0) => 1,
        Ok(limit @ 1..=MAX_GROUP_LIMIT) => limit,
        _ => return Err(invalid(at("limit"), format!("must be from 0 to {MAX_GROUP_LIMIT}"))),
    };
    let replaces = given.when_full() == v1::WhenFull::Replace;
    if replaces && limit > 1 {
        return Err(invalid(at("limit"), "must be 1 with REPLACE"));
    }
    Ok(Some(Box::new(Group { name, limit, replaces, place: Place::Outside })))
}
