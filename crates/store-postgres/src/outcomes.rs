//! Outcomes of workflows that are steps of others, in one statement.

use bytes::Bytes;
use rota_core::workflow::Workflow;
use rota_core::{Namespace, WorkflowId};
use rota_store::WORKFLOW_OUTPUT;
use tokio_postgres::types::ToSql;

use crate::errors::Fault;
use crate::readers::Loan;
use crate::rows::{SHARD, get};
use crate::sql;
use crate::workflows::workflow;

/// Reads the workflows that can be decoded, in the order of the ids, with their outputs.
pub(crate) async fn read(
    loan: &Loan,
    namespace: &Namespace,
    ids: &[WorkflowId],
) -> Result<Vec<(Workflow, Option<Bytes>)>, Fault> {
    let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
    let output = i64::from(WORKFLOW_OUTPUT);
    let params: &[&(dyn ToSql + Sync)] = &[&SHARD, &namespace.as_str(), &ids, &output];
    let mut outcomes = Vec::new();
    for row in &loan.query(sql::WORKFLOW_OUTCOMES, params).await? {
        let output = get::<Option<&[u8]>>(row, 2)?.map(Bytes::copy_from_slice);
        outcomes.extend(workflow(row)?.ok().map(|workflow| (workflow, output)));
    }
    Ok(outcomes)
}
