//! Rows of workflows and their steps.

use futures::try_join;
use rota_core::workflow::{Step, Workflow};
use rota_core::{Timestamp, WorkflowId, WorkflowKey};
use rota_store::codec::{signed, stored, unsigned};
use rota_store::{
    Error, GROUP_WINDOW, GroupKey, GroupMember, Removal, RemovalPage, StepKey, StepPage, StepRow, Stored,
    TaskRow, WORKFLOW_MEMBER, WorkflowFilter, WorkflowLoad, WorkflowLoaded, WorkflowQuery, WorkflowRow,
    WorkflowRows,
};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::errors::Fault;
use crate::loads::{pages_by, pair, place};
use crate::readers::Loan;
use crate::rows::{self, SHARD, get};
use crate::session::Session;
use crate::{outcomes, sql, workflow_pages};

/// Rows that one page of a list visits.
const MAX_VISITED: usize = 5000;
/// Rows that one statement of a list returns.
const CHUNK: usize = 500;

type Rows = Result<Vec<Row>, Fault>;

fn key(row: &Row) -> Result<WorkflowKey, Fault> {
    Ok(WorkflowKey(unsigned(get(row, 0)?)))
}

pub(crate) fn workflow(row: &Row) -> Result<Stored<Workflow>, Fault> {
    let key = key(row)?;
    Ok(stored::<Workflow>(get(row, 1)?).map(|workflow| Workflow { key, ..workflow }))
}

fn number(row: &Row, column: usize) -> Result<u32, Fault> {
    Ok(u32::try_from(get::<i64>(row, column)?).unwrap_or(u32::MAX))
}

fn step_key(row: &Row) -> Result<StepKey, Fault> {
    Ok((key(row)?, number(row, 1)?))
}

pub(crate) fn step(row: &Row) -> Result<Stored<Step>, Fault> {
    let (workflow, index) = step_key(row)?;
    Ok(stored::<Step>(get(row, 2)?).map(|step| Step { workflow, index, ..step }))
}

fn member(row: &Row) -> Result<GroupMember, Fault> {
    Ok(GroupMember {
        member: step_key(row)?,
        holds: get(row, 2)?,
        limit: number(row, 3)?,
        joined: unsigned(get(row, 4)?),
    })
}

fn workflow_row(row: &Row) -> Result<WorkflowRow, Fault> {
    Ok(WorkflowRow { key: key(row)?, id: WorkflowId(get(row, 2)?), workflow: workflow(row)? })
}

fn step_row(row: &Row) -> Result<StepRow, Fault> {
    Ok(StepRow { key: step_key(row)?, step: step(row)? })
}

fn all<T>(rows: &[Row], read: impl Fn(&Row) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
    rows.iter().map(read).collect()
}

/// Reads what a batch needs of workflows. Statements without keys are not sent.
pub(crate) async fn load(session: &Session, load: &WorkflowLoad) -> Result<WorkflowLoaded, Fault> {
    if *load == WorkflowLoad::default() {
        return Ok(WorkflowLoaded::default());
    }
    let (keyed, by_id, names, steps, dependents, held, active, tasks, removals, groups, own, due, expired) =
        try_join!(
            keyed(session, load),
            by_id(session, load),
            names(session, load),
            steps(session, load),
            dependents(session, &load.dependents),
            in_state(session, sql::LOAD_HELD_STEPS, &load.held),
            in_state(session, sql::LOAD_ACTIVE_STEPS, &load.active),
            tasks(session, load),
            removals(session, &load.removals),
            groups(session, &load.groups),
            memberships(session, load),
            due(session, load),
            expired(session, load),
        )?;
    let mut ids = Vec::with_capacity(by_id.len());
    for row in &by_id {
        let id = load.ids.get(place(row, 3)?);
        ids.extend(id.cloned().zip(Some(workflow_row(row)?)));
    }
    Ok(WorkflowLoaded {
        workflows: all(&keyed, workflow_row)?,
        ids,
        names: pair(&load.names, &names, |row| Ok(WorkflowKey(unsigned(get(row, 1)?))))?,
        steps: all(&steps, step_row)?,
        dependents: pages_by(load.dependents.len(), &dependents, 4, |row| {
            Ok((step_row(row)?, get(row, 3)?))
        })?,
        held: pages_by(load.held.len(), &held, 3, step_row)?,
        active: pages_by(load.active.len(), &active, 3, step_row)?,
        tasks,
        removals,
        groups: pages_by(load.groups.len(), &groups, 5, member)?,
        memberships: all(&own, membership)?.into_iter().flatten().collect(),
        due_workflows: all(&due.0, key)?,
        due_steps: all(&due.1, step_key)?,
        expired: all(&expired, key)?,
    })
}

async fn keyed(session: &Session, load: &WorkflowLoad) -> Rows {
    if load.keys.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<i64> = load.keys.iter().map(|key| signed(key.0)).collect();
    session.query(sql::LOAD_WORKFLOWS, &[&SHARD, &keys]).await
}

async fn by_id(session: &Session, load: &WorkflowLoad) -> Rows {
    if load.ids.is_empty() {
        return Ok(Vec::new());
    }
    let namespaces: Vec<_> = load.ids.iter().map(|(namespace, _)| namespace.as_str()).collect();
    let ids: Vec<_> = load.ids.iter().map(|(_, id)| id.0).collect();
    session.query(sql::LOAD_WORKFLOW_IDS, &[&SHARD, &namespaces, &ids]).await
}

async fn names(session: &Session, load: &WorkflowLoad) -> Rows {
    if load.names.is_empty() {
        return Ok(Vec::new());
    }
    let namespaces: Vec<_> = load.names.iter().map(|(namespace, _)| namespace.as_str()).collect();
    let names: Vec<_> = load.names.iter().map(|(_, name)| &name[..]).collect();
    session.query(sql::LOAD_WORKFLOW_NAMES, &[&SHARD, &namespaces, &names]).await
}

async fn steps(session: &Session, load: &WorkflowLoad) -> Rows {
    if load.steps.is_empty() {
        return Ok(Vec::new());
    }
    let workflows: Vec<i64> = load.steps.iter().map(|(workflow, _)| signed(workflow.0)).collect();
    let steps: Vec<i64> = load.steps.iter().map(|(_, step)| i64::from(*step)).collect();
    session.query(sql::LOAD_STEPS, &[&SHARD, &workflows, &steps]).await
}

/// Workflows, first indexes and sizes of pages of steps.
fn columns(pages: &[StepPage]) -> (Vec<i64>, Vec<i64>, Vec<i64>) {
    (
        pages.iter().map(|page| signed(page.workflow.0)).collect(),
        pages.iter().map(|page| i64::from(page.from)).collect(),
        pages.iter().map(|page| signed(page.limit)).collect(),
    )
}

async fn dependents(session: &Session, pages: &[StepPage]) -> Rows {
    if pages.is_empty() {
        return Ok(Vec::new());
    }
    let (workflows, first, sizes) = columns(pages);
    let steps: Vec<i64> = pages.iter().map(|page| i64::from(page.step)).collect();
    session.query(sql::LOAD_STEP_DEPENDENTS, &[&SHARD, &workflows, &steps, &first, &sizes]).await
}

async fn in_state(session: &Session, sql: &'static str, pages: &[StepPage]) -> Rows {
    if pages.is_empty() {
        return Ok(Vec::new());
    }
    let (workflows, first, sizes) = columns(pages);
    session.query(sql, &[&SHARD, &workflows, &first, &sizes]).await
}

async fn tasks(session: &Session, load: &WorkflowLoad) -> Result<Vec<Vec<TaskRow>>, Fault> {
    let pages = &load.tasks;
    if pages.is_empty() {
        return Ok(Vec::new());
    }
    let workflows: Vec<i64> = pages.iter().map(|page| signed(page.workflow.0)).collect();
    let steps: Vec<i64> =
        pages.iter().map(|page| page.after.map_or(-1, |(step, ..)| i64::from(step))).collect();
    let rounds: Vec<i64> =
        pages.iter().map(|page| page.after.map_or(0, |(_, round, _)| i64::from(round))).collect();
    let items: Vec<i64> =
        pages.iter().map(|page| page.after.map_or(0, |(.., item)| i64::from(item))).collect();
    let open: Vec<bool> = pages.iter().map(|page| page.open).collect();
    let sizes: Vec<i64> = pages.iter().map(|page| signed(page.limit)).collect();
    let params: &[&(dyn ToSql + Sync)] = &[&SHARD, &workflows, &steps, &rounds, &items, &open, &sizes];
    let rows = session.query(sql::LOAD_STEP_TASKS, params).await?;
    pages_by(pages.len(), &rows, 0, rows::task)
}

async fn removals(session: &Session, pages: &[RemovalPage]) -> Result<Vec<Removal>, Fault> {
    if pages.is_empty() {
        return Ok(Vec::new());
    }
    let workflows: Vec<i64> = pages.iter().map(|page| signed(page.workflow.0)).collect();
    let sizes: Vec<i64> = pages.iter().map(|page| signed(page.limit)).collect();
    let params: &[&(dyn ToSql + Sync)] = &[&SHARD, &workflows, &sizes];
    let (outputs, edges, steps) = try_join!(
        session.query(sql::OUTPUT_SIZES, params),
        session.query(sql::EDGE_KEYS, params),
        session.query(sql::STEP_SIZES, params),
    )?;
    let size = |row: &Row| Ok((number(row, 0)?, unsigned(get(row, 1)?)));
    let outputs = pages_by(pages.len(), &outputs, 2, size)?;
    let edges = pages_by(pages.len(), &edges, 2, |row| Ok((number(row, 0)?, number(row, 1)?)))?;
    let steps = pages_by(pages.len(), &steps, 2, size)?;
    let rows = outputs.iter().zip(&edges).zip(&steps);
    Ok(pages
        .iter()
        .zip(rows)
        .map(|(page, ((outputs, edges), steps))| Removal::of(page, outputs, edges, steps))
        .collect())
}

/// Namespaces and names of groups.
fn group_columns(groups: &[GroupKey]) -> (Vec<&str>, Vec<String>) {
    groups.iter().map(|group| (group.namespace.as_str(), group.stored_name())).unzip()
}

async fn groups(session: &Session, groups: &[GroupKey]) -> Rows {
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    let ((namespaces, names), window) = (group_columns(groups), signed(GROUP_WINDOW));
    session.query(sql::GROUP_MEMBERS, &[&SHARD, &namespaces, &names, &window]).await
}

async fn memberships(session: &Session, load: &WorkflowLoad) -> Rows {
    let Some((workflow, limit)) = load.memberships else { return Ok(Vec::new()) };
    session.query(sql::MEMBERSHIPS, &[&SHARD, &signed(workflow.0), &signed(limit)]).await
}

fn membership(row: &Row) -> Result<Option<(GroupKey, StepKey)>, Fault> {
    let group = GroupKey::from_stored(get(row, 2)?, get(row, 3)?);
    Ok(group.zip(Some(step_key(row)?)))
}

async fn due(session: &Session, load: &WorkflowLoad) -> Result<(Vec<Row>, Vec<Row>), Fault> {
    let Some((Timestamp(now), limit)) = load.due else { return Ok((Vec::new(), Vec::new())) };
    let limit: i64 = signed(limit);
    let params: &[&(dyn ToSql + Sync)] = &[&SHARD, &now, &limit];
    try_join!(session.query(sql::DUE_WORKFLOWS, params), session.query(sql::DUE_STEPS, params))
}

async fn expired(session: &Session, load: &WorkflowLoad) -> Rows {
    let Some((Timestamp(before), limit)) = load.expired else { return Ok(Vec::new()) };
    let limit: i64 = signed(limit);
    session.query(sql::ENDED_WORKFLOWS, &[&SHARD, &before, &limit]).await
}

/// Rows that can be decoded: one that cannot is missing, and does not hide the others.
pub(crate) fn decoded<T>(
    rows: &[Row],
    read: impl Fn(&Row) -> Result<Stored<T>, Fault>,
) -> Result<Vec<T>, Fault> {
    Ok(all(rows, read)?.into_iter().flatten().collect())
}

/// Returns the rows that a caller has named.
fn named<T>(rows: &[Row], read: impl Fn(&Row) -> Result<Stored<T>, Fault>) -> Result<Vec<T>, Fault> {
    rows.iter().map(|row| read(row)?.map_err(|reason| Error::Corrupt(reason).into())).collect()
}

async fn list(loan: &Loan, filter: &WorkflowFilter) -> Result<WorkflowRows, Fault> {
    let mut before: i64 = signed(filter.before.map_or(u64::MAX, |key| key.0));
    let (mut rows, mut seen, mut last) = (WorkflowRows::default(), 0, None);
    'chunks: while rows.workflows.len() < filter.limit && seen < MAX_VISITED {
        let chunk = if seen == 0 { (filter.limit + 1).min(CHUNK) } else { CHUNK.min(MAX_VISITED - seen) };
        let limit: i64 = signed(chunk);
        let found = loan.query(sql::LIST_WORKFLOWS, &[&SHARD, &before, &limit]).await?;
        for row in &found {
            let key = key(row)?;
            seen += 1;
            last = Some(key);
            before = signed(key.0);
            rows.workflows.extend(workflow(row)?.ok().filter(|workflow| filter.fits(workflow)));
            if rows.workflows.len() == filter.limit {
                break 'chunks;
            }
        }
        if found.len() < chunk {
            break;
        }
    }
    let more = rows.workflows.len() == filter.limit || seen == MAX_VISITED;
    rows.next = last.filter(|_| more);
    Ok(rows)
}

/// Executes a read of a caller.
pub(crate) async fn query(loan: &Loan, query: &WorkflowQuery) -> Result<WorkflowRows, Fault> {
    let mut rows = WorkflowRows::default();
    let numbers = |indexes: &[u32]| indexes.iter().map(|index| i64::from(*index)).collect::<Vec<i64>>();
    let body = |row: &Row| Ok((number(row, 0)?, rows::bytes(row, 1)?));
    match query {
        WorkflowQuery::Id((namespace, id)) => {
            let params: &[&(dyn ToSql + Sync)] = &[&SHARD, &namespace.as_str(), &id.0];
            rows.workflows = named(&loan.query(sql::WORKFLOW_BY_ID, params).await?, workflow)?;
        }
        WorkflowQuery::Key(key) => {
            let key: i64 = signed(key.0);
            rows.workflows = named(&loan.query(sql::WORKFLOW_BY_KEY, &[&SHARD, &key]).await?, workflow)?;
        }
        WorkflowQuery::IdOf(key) => {
            let key: i64 = signed(key.0);
            let id = |row: &Row| Ok(WorkflowId(get(row, 2)?));
            rows.ids = all(&loan.query(sql::WORKFLOW_BY_KEY, &[&SHARD, &key]).await?, id)?;
        }
        WorkflowQuery::Alias((namespace, alias)) => {
            let params: &[&(dyn ToSql + Sync)] = &[&SHARD, &namespace.as_str(), alias];
            rows.workflows = named(&loan.query(sql::WORKFLOW_BY_ALIAS, params).await?, workflow)?;
        }
        WorkflowQuery::List(filter) => return list(loan, filter).await,
        WorkflowQuery::Spec(key) => {
            let key: i64 = signed(key.0);
            rows.bodies = all(&loan.query(sql::WORKFLOW_SPEC, &[&SHARD, &key]).await?, body)?;
        }
        WorkflowQuery::Steps { workflow, from, limit } => {
            let (key, from, limit): (i64, _, i64) = (signed(workflow.0), i64::from(*from), signed(*limit));
            rows.steps = decoded(&loan.query(sql::STEPS, &[&SHARD, &key, &from, &limit]).await?, step)?;
        }
        WorkflowQuery::StepsAt(workflow, indexes) => {
            let key: i64 = signed(workflow.0);
            rows.steps = named(&loan.query(sql::STEPS_AT, &[&SHARD, &key, &numbers(indexes)]).await?, step)?;
        }
        WorkflowQuery::Work(of, indexes) => {
            let (key, indexes): (i64, _) = (signed(of.0), numbers(indexes));
            let of_steps: &[&(dyn ToSql + Sync)] = &[&SHARD, &key, &indexes];
            let of_workflow: &[&(dyn ToSql + Sync)] = &[&SHARD, &key];
            let (workflows, steps, step_specs, specs) = try_join!(
                loan.query(sql::WORKFLOW_BY_KEY, of_workflow),
                loan.query(sql::STEPS_AT, of_steps),
                loan.query(sql::STEP_SPECS_AT, of_steps),
                loan.query(sql::WORKFLOW_SPEC, of_workflow)
            )?;
            (rows.workflows, rows.steps) = (named(&workflows, workflow)?, named(&steps, step)?);
            rows.bodies = all(&step_specs, body)?;
            let specs = all(&specs, body)?.into_iter().map(|(_, spec)| (WORKFLOW_MEMBER, spec));
            rows.bodies.extend(specs);
        }
        WorkflowQuery::StepSpecs { workflow, from, limit } => {
            let (key, from, limit): (i64, _, i64) = (signed(workflow.0), i64::from(*from), signed(*limit));
            rows.bodies = all(&loan.query(sql::STEP_SPECS, &[&SHARD, &key, &from, &limit]).await?, body)?;
        }
        WorkflowQuery::Outputs(workflow, indexes) => {
            let key: i64 = signed(workflow.0);
            rows.bodies =
                all(&loan.query(sql::STEP_OUTPUTS, &[&SHARD, &key, &numbers(indexes)]).await?, body)?;
        }
        WorkflowQuery::Outcomes(namespace, ids) => {
            rows.outcomes = outcomes::read(loan, namespace, ids).await?;
        }
        WorkflowQuery::Tasks { workflow, step, round, from, limit, bytes } => {
            let (key, step, round): (i64, _, _) = (signed(workflow.0), i64::from(*step), i64::from(*round));
            let (from, limit, bytes): (i64, i64, i64) = (i64::from(*from), signed(*limit), signed(*bytes));
            let params: &[&(dyn ToSql + Sync)] = &[&SHARD, &key, &step, &round, &limit, &bytes, &from];
            for row in &loan.query(sql::STEP_RESULTS, params).await? {
                let task = rows::decoded(rows::key(row, 0)?, row, 1)?.map_err(Error::Corrupt)?;
                let result = get::<Option<&[u8]>>(row, 2)?.map(bytes::Bytes::copy_from_slice);
                rows.tasks.push((task, result));
            }
        }
        WorkflowQuery::Driven { .. }
        | WorkflowQuery::Active { .. }
        | WorkflowQuery::Ending { .. }
        | WorkflowQuery::Ended { .. } => return workflow_pages::page(loan, query).await,
        WorkflowQuery::Group(group) => {
            let (namespaces, names) = group_columns(std::slice::from_ref(group));
            let window: i64 = signed(GROUP_WINDOW);
            let params: &[&(dyn ToSql + Sync)] = &[&SHARD, &namespaces, &names, &window];
            rows.members = all(&loan.query(sql::GROUP_MEMBERS, params).await?, member)?;
        }
        WorkflowQuery::Unended => {
            let found = loan.query(sql::UNENDED_WORKFLOWS, &[&SHARD]).await?;
            rows.count = found.first().map_or(Ok::<_, Fault>(0), |row| Ok(unsigned(get(row, 0)?)))?;
        }
    }
    Ok(rows)
}
