//! Filter and page of a list of tasks, from the request.

use rota_core::TaskKey;
use rota_core::rank::Priority;
use rota_core::task::State;
use rota_proto::labels::REPLAYED;
use rota_proto::v1;
use rota_store::Filter;
use tonic::Status;

use super::answers::page_size;
use crate::attention::UNENDED;
use crate::wire::status::invalid;
use crate::wire::{event, failure, names, time};

/// Returns the filter of a list.
pub(super) fn of(request: &v1::ListTasksRequest) -> Result<Filter, Status> {
    let namespace = names::parent_or_all("parent", &request.parent)?;
    let limit = page_size(request.page_size, 50)?;
    let before = match request.page_token.as_str() {
        "" => None,
        token => {
            let key = u64::from_str_radix(token, 16);
            let key = key.map_err(|_| invalid("page_token", "is not a token of an earlier page"))?;
            Some(TaskKey(key))
        }
    };
    let given = request.filter.clone().unwrap_or_default();
    let state = |(index, state): (usize, &i32)| {
        let known = v1::TaskState::try_from(*state).ok().and_then(event::from_state);
        known.ok_or_else(|| invalid(format!("filter.states[{index}]"), "is not a known state"))
    };
    let mut states = given.states.iter().enumerate().map(state).collect::<Result<Vec<_>, _>>()?;
    if given.open_questions && states.is_empty() {
        // No other state has any, and lists by state have an index.
        states = vec![State::Pending, State::InputRequired];
    }
    if given.needs_attention && states.is_empty() {
        states = UNENDED.to_vec();
    }
    if given.dead_letters && states.is_empty() {
        states = vec![State::Failed];
    }
    let class = |(index, class): (usize, &i32)| {
        let known = v1::FailureClass::try_from(*class).ok().and_then(failure::known_class);
        known.ok_or_else(|| invalid(format!("filter.failure_classes[{index}]"), "is not a known class"))
    };
    let failures = given.failure_classes.iter().enumerate().map(class).collect::<Result<Vec<_>, _>>()?;
    let priority = |field: &str, given: Option<i32>| {
        let known = |number| Priority::new(number).ok_or_else(|| invalid(field, "must be from 0 to 10"));
        given.map(known).transpose()
    };
    let min_attempts = u32::try_from(given.min_attempts)
        .map_err(|_| invalid("filter.min_attempts", "must not be negative"))?;
    let text = |value: String| Some(value).filter(|value| !value.is_empty());
    Ok(Filter {
        namespace,
        states,
        agent: text(given.agent).map(|agent| names::agent_id("filter.agent", &agent)).transpose()?,
        labels: given.labels,
        owner: text(given.owner),
        alias: text(given.alias),
        thread: text(given.thread),
        parent: text(given.parent_task)
            .map(|id| id.parse().map_err(|_| invalid("filter.parent_task", "is not a task's id")))
            .transpose()?,
        workflow: text(given.workflow)
            .map(|id| id.parse().map_err(|_| invalid("filter.workflow", "is not a workflow's id")))
            .transpose()?,
        open_questions: given.open_questions,
        attention: given.needs_attention,
        dead_letters: given.dead_letters.then_some(REPLAYED),
        failures,
        worker: text(given.worker).map(|worker| names::worker_id("filter.worker", &worker)).transpose()?,
        min_priority: priority("filter.min_priority", given.min_priority)?,
        max_priority: priority("filter.max_priority", given.max_priority)?,
        min_cost_micro_usd: Some(given.min_cost_micro_usd).filter(|cost| *cost != 0),
        min_attempts,
        keys: None,
        created_after: given.created_after.as_ref().map(time::from_timestamp),
        created_before: given.created_before.as_ref().map(time::from_timestamp),
        ended_after: given.ended_after.as_ref().map(time::from_timestamp),
        ended_before: given.ended_before.as_ref().map(time::from_timestamp),
        before,
        limit,
    })
}
