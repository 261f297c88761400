//! Reads of workflows and steps across all of them, in pages. A page without rows that can be decoded would be taken for the last
//! one: the next is read in its place.

use rota_store::codec::signed;
use rota_store::{StepKey, WorkflowQuery, WorkflowRows};
use tokio_postgres::types::ToSql;

use crate::errors::Fault;
use crate::readers::Loan;
use crate::rows::{SHARD, get};
use crate::sql;
use crate::workflows::{decoded, step, workflow};

const ACTIVE_STEPS: &str = "SELECT workflow, step, record FROM steps
    WHERE shard = $1 AND state IN (3, 4, 5) AND (workflow, step) > ($2, $3) ORDER BY workflow, step LIMIT $4";
const ENDED_SINCE: &str = "SELECT key, record, ended FROM workflows
    WHERE shard = $1 AND ended IS NOT NULL AND (ended, key) > ($2, $3) ORDER BY ended, key LIMIT $4";

/// Executes such a read; another one finds nothing.
pub(crate) async fn page(loan: &Loan, query: &WorkflowQuery) -> Result<WorkflowRows, Fault> {
    let mut rows = WorkflowRows::default();
    match query {
        WorkflowQuery::Driven { after, limit } => {
            rows.steps = steps(loan, sql::DRIVEN_STEPS, *after, *limit).await?;
        }
        WorkflowQuery::Active { after, limit } => {
            rows.steps = steps(loan, ACTIVE_STEPS, *after, *limit).await?;
        }
        WorkflowQuery::Ending { after, limit } => {
            let (mut after, chunk): (i64, i64) = (signed(after.0), signed(*limit));
            while rows.workflows.is_empty() {
                let found = loan.query(sql::ENDING_WORKFLOWS, &[&SHARD, &after, &chunk]).await?;
                let Some(last) = found.last() else { break };
                after = get(last, 0)?;
                rows.workflows = decoded(&found, workflow)?;
            }
        }
        WorkflowQuery::Ended { after: (at, key), limit } => {
            let (mut at, mut key, chunk): (i64, i64, i64) = (at.0, signed(key.0), signed(*limit));
            while rows.workflows.is_empty() {
                let found = loan.query(ENDED_SINCE, &[&SHARD, &at, &key, &chunk]).await?;
                let Some(last) = found.last() else { break };
                (at, key) = (get(last, 2)?, get(last, 0)?);
                rows.workflows = decoded(&found, workflow)?;
            }
        }
        _ => {}
    }
    Ok(rows)
}

async fn steps(
    loan: &Loan,
    sql: &'static str,
    after: Option<StepKey>,
    limit: usize,
) -> Result<Vec<rota_core::workflow::Step>, Fault> {
    let (mut key, mut index): (i64, i64) =
        after.map_or((-1, 0), |(key, step)| (signed(key.0), i64::from(step)));
    let chunk: i64 = signed(limit);
    loop {
        let params: &[&(dyn ToSql + Sync)] = &[&SHARD, &key, &index, &chunk];
        let found = loan.query(sql, params).await?;
        let Some(last) = found.last() else { return Ok(Vec::new()) };
        (key, index) = (get(last, 0)?, get(last, 1)?);
        let steps = decoded(&found, step)?;
        if !steps.is_empty() {
            return Ok(steps);
        }
    }
}
