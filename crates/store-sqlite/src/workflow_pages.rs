//! Reads of workflows and steps across all of them, in pages, and those that need no record.

use rota_core::WorkflowId;
use rota_store::codec::{signed, unsigned};
use rota_store::{Error, StepKey, WorkflowQuery, WorkflowRows};
use rusqlite::{Connection, Row, params};

use crate::readers::one;
use crate::sql;
use crate::workflows::{some, step, workflow};

/// Executes such a read; another one finds nothing.
pub(crate) fn page(connection: &Connection, query: &WorkflowQuery) -> Result<WorkflowRows, Error> {
    let mut rows = WorkflowRows::default();
    let steps = |sql: &str, after: Option<StepKey>, limit| {
        let (workflow, index) = after.map_or((-1, 0), |(key, step)| (signed(key.0), i64::from(step)));
        some(connection, sql, params![workflow, index], limit, step)
    };
    match query {
        WorkflowQuery::Driven { after, limit } => rows.steps = steps(sql::DRIVEN_STEPS, *after, *limit)?,
        WorkflowQuery::Active { after, limit } => rows.steps = steps(sql::STARTED_STEPS, *after, *limit)?,
        WorkflowQuery::Ending { after, limit } => {
            let params = params![signed(after.0)];
            rows.workflows = some(connection, sql::ENDING_WORKFLOWS, params, *limit, workflow)?;
        }
        WorkflowQuery::Ended { after: (at, key), limit } => {
            let params = params![at.0, signed(key.0)];
            rows.workflows = some(connection, sql::ENDED_SINCE, params, *limit, workflow)?;
        }
        WorkflowQuery::IdOf(key) => {
            let id = |row: &Row<'_>| row.get(2).map(WorkflowId);
            rows.ids.extend(one(connection, sql::WORKFLOW, [signed(key.0)], id)?);
        }
        WorkflowQuery::Unended => {
            let count = one(connection, sql::UNENDED_WORKFLOWS, [], |row| row.get(0))?;
            rows.count = unsigned(count.unwrap_or(0));
        }
        _ => {}
    }
    Ok(rows)
}
