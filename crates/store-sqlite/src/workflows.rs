//! Rows of workflows and their steps.

use bytes::Bytes;
use rota_core::workflow::{Step, Workflow};
use rota_core::{Timestamp, WorkflowId, WorkflowKey};
use rota_store::{
    Error, GROUP_WINDOW, GroupKey, GroupMember, Removal, RemovalPage, StepKey, StepPage, StepRow,
    StepTasksPage, Stored, WORKFLOW_MEMBER, WORKFLOW_OUTPUT, WorkflowChanges, WorkflowFilter, WorkflowLoad,
    WorkflowLoaded, WorkflowQuery, WorkflowRow, WorkflowRows, stored_end,
};
use rusqlite::{Connection, Params, Row, params};

use crate::open::explain;
use crate::readers::{all, one, task_row};
use crate::sql;
use crate::workflow_pages;
use crate::writer::run;
use rota_store::codec::{encode, signed, stored, unsigned};

/// Rows that one page of a list visits.
const MAX_VISITED: usize = 5000;

pub(crate) fn workflow(row: &Row<'_>) -> rusqlite::Result<Stored<Workflow>> {
    let key = WorkflowKey(unsigned(row.get(0)?));
    Ok(stored::<Workflow>(row.get_ref(1)?.as_blob()?).map(|workflow| Workflow { key, ..workflow }))
}

fn workflow_row(row: &Row<'_>) -> rusqlite::Result<WorkflowRow> {
    let key = WorkflowKey(unsigned(row.get(0)?));
    Ok(WorkflowRow { key, id: WorkflowId(row.get(2)?), workflow: workflow(row)? })
}

fn step_row(row: &Row<'_>) -> rusqlite::Result<StepRow> {
    Ok(StepRow { key: step_key(row)?, step: step(row)? })
}

fn step_key(row: &Row<'_>) -> rusqlite::Result<StepKey> {
    Ok((WorkflowKey(unsigned(row.get(0)?)), row.get(1)?))
}

pub(crate) fn step(row: &Row<'_>) -> rusqlite::Result<Stored<Step>> {
    let (workflow, index) = step_key(row)?;
    Ok(stored::<Step>(row.get_ref(2)?.as_blob()?).map(|step| Step { workflow, index, ..step }))
}

fn body(row: &Row<'_>) -> rusqlite::Result<(u32, Bytes)> {
    Ok((row.get(0)?, Bytes::copy_from_slice(row.get_ref(1)?.as_blob()?)))
}

fn group(connection: &Connection, group: &GroupKey) -> Result<Vec<GroupMember>, Error> {
    let member = |row: &Row<'_>| {
        Ok(GroupMember {
            member: step_key(row)?,
            holds: row.get(2)?,
            limit: row.get(3)?,
            joined: unsigned(row.get(4)?),
        })
    };
    let name = group.stored_name();
    let read = |holds: bool, limit: i64| {
        all(connection, sql::GROUP_MEMBERS, params![group.namespace.as_str(), name, holds, limit], member)
    };
    let mut members = read(true, -1)?;
    members.extend(read(false, signed(GROUP_WINDOW))?);
    Ok(members)
}

fn page(connection: &Connection, sql: &str, page: &StepPage) -> Result<Vec<StepRow>, Error> {
    all(connection, sql, params![signed(page.workflow.0), page.from, signed(page.limit)], step_row)
}

fn tasks(connection: &Connection, page: &StepTasksPage) -> Result<Vec<rota_store::TaskRow>, Error> {
    let sql = if page.open { sql::OPEN_STEP_TASKS } else { sql::STEP_TASKS };
    let (step, round, item) = page
        .after
        .map_or((-1, 0, 0), |(step, round, item)| (i64::from(step), i64::from(round), i64::from(item)));
    all(connection, sql, params![signed(page.workflow.0), step, round, item, signed(page.limit)], task_row)
}

fn removal(connection: &Connection, page: &RemovalPage) -> Result<Removal, Error> {
    let params: [i64; 2] = [signed(page.workflow.0), signed(page.limit)];
    let size = |row: &Row<'_>| Ok((row.get(0)?, unsigned(row.get(1)?)));
    let outputs = all(connection, sql::OUTPUT_SIZES, params, size)?;
    let edges = all(connection, sql::EDGE_KEYS, params, |row| Ok((row.get(0)?, row.get(1)?)))?;
    let steps = all(connection, sql::STEP_SIZES, params, size)?;
    Ok(Removal::of(page, &outputs, &edges, &steps))
}

/// Removes rows up to the last ones of a page.
fn remove_rows(connection: &Connection, workflow: WorkflowKey, part: &Removal) -> Result<(), Error> {
    let workflow = signed(workflow.0);
    if let Some(last) = part.outputs {
        run(connection, sql::DELETE_FIRST_OUTPUTS, params![workflow, last])?;
    }
    if let Some((step, dependent)) = part.edges {
        run(connection, sql::DELETE_FIRST_EDGES, params![workflow, step, dependent])?;
    }
    if let Some(last) = part.steps {
        run(connection, sql::DELETE_FIRST_STEPS, params![workflow, last])?;
        run(connection, sql::DELETE_FIRST_SPECS, params![workflow, last])?;
    }
    Ok(())
}

/// Reads what a batch needs of workflows.
pub(crate) fn load(connection: &Connection, load: &WorkflowLoad) -> Result<WorkflowLoaded, Error> {
    let mut loaded = WorkflowLoaded::default();
    for key in &load.keys {
        loaded.workflows.extend(one(connection, sql::WORKFLOW, [signed(key.0)], workflow_row)?);
    }
    for id in &load.ids {
        let params = params![id.0.as_str(), id.1.0];
        let found = one(connection, sql::WORKFLOW_BY_ID, params, workflow_row)?;
        loaded.ids.extend(found.map(|row| (id.clone(), row)));
    }
    for name in &load.names {
        let key = |row: &Row<'_>| Ok(WorkflowKey(unsigned(row.get(0)?)));
        let found = one(connection, sql::WORKFLOW_BY_KEY, params![name.0.as_str(), name.1], key)?;
        loaded.names.extend(found.map(|key| (name.clone(), key)));
    }
    for (key, index) in &load.steps {
        loaded.steps.extend(one(connection, sql::STEP, params![signed(key.0), index], step_row)?);
    }
    for page in &load.dependents {
        let params = params![signed(page.workflow.0), page.step, page.from, signed(page.limit)];
        let row = |row: &Row<'_>| Ok((step_row(row)?, row.get(3)?));
        loaded.dependents.push(all(connection, sql::STEP_DEPENDENTS, params, row)?);
    }
    for held in &load.held {
        loaded.held.push(page(connection, sql::HELD_STEPS, held)?);
    }
    for active in &load.active {
        loaded.active.push(page(connection, sql::ACTIVE_STEPS, active)?);
    }
    for page in &load.tasks {
        loaded.tasks.push(tasks(connection, page)?);
    }
    for page in &load.removals {
        loaded.removals.push(removal(connection, page)?);
    }
    for key in &load.groups {
        loaded.groups.push(group(connection, key)?);
    }
    if let Some((workflow, limit)) = load.memberships {
        let params = params![signed(workflow.0), signed(limit)];
        let found = all(connection, sql::MEMBERSHIPS, params, |row| {
            let (namespace, name): (String, String) = (row.get(2)?, row.get(3)?);
            Ok(GroupKey::from_stored(&namespace, &name).zip(Some(step_key(row)?)))
        })?;
        loaded.memberships = found.into_iter().flatten().collect();
    }
    let key = |row: &Row<'_>| Ok(WorkflowKey(unsigned(row.get(0)?)));
    if let Some((now, limit)) = load.due {
        loaded.due_workflows = all(connection, sql::DUE_WORKFLOWS, params![now.0, signed(limit)], key)?;
        loaded.due_steps = all(connection, sql::DUE_STEPS, params![now.0, signed(limit)], step_key)?;
    }
    if let Some((before, limit)) = load.expired {
        loaded.expired = all(connection, sql::ENDED_WORKFLOWS, params![before.0, signed(limit)], key)?;
    }
    Ok(loaded)
}

pub(crate) fn next_due(connection: &Connection) -> Result<Option<Timestamp>, Error> {
    let workflow = one(connection, sql::NEXT_WORKFLOW_DUE, [], |row| row.get(0))?;
    let step = one(connection, sql::NEXT_STEP_DUE, [], |row| row.get(0))?;
    Ok(workflow.into_iter().chain(step).min().map(Timestamp))
}

fn put_step(connection: &Connection, sql: &str, step: &Step) -> Result<(), Error> {
    let params = params![
        signed(step.workflow.0),
        step.index,
        step.state as u8,
        step.needs_driver(),
        step.due.map(|due| due.0),
        encode(step)?
    ];
    run(connection, sql, params).map(drop)
}

/// Writes in the open transaction.
pub(crate) fn write(connection: &Connection, changes: &WorkflowChanges) -> Result<(), Error> {
    for (workflow, part) in &changes.removed_rows {
        remove_rows(connection, *workflow, part)?;
    }
    for key in &changes.removed {
        for sql in [
            sql::DELETE_WORKFLOW,
            sql::DELETE_WORKFLOW_SPEC,
            sql::DELETE_STEPS,
            sql::DELETE_STEP_SPECS,
            sql::DELETE_STEP_OUTPUTS,
            sql::DELETE_STEP_EDGES,
            // Lists of files that its steps have taken over.
            sql::DELETE_ARTIFACTS,
        ] {
            run(connection, sql, [signed(key.0)])?;
        }
    }
    for (workflow, spec, name) in &changes.inserted {
        let key = signed(workflow.key.0);
        let params = params![
            key,
            workflow.id.0,
            workflow.namespace.as_str(),
            workflow.alias,
            name,
            workflow.state as u8,
            workflow.due().map(|due| due.0),
            stored_end(workflow).map(|end| end.0),
            encode(&**workflow)?
        ];
        run(connection, sql::INSERT_WORKFLOW, params)?;
        run(connection, sql::INSERT_WORKFLOW_SPEC, params![key, &spec[..]])?;
    }
    for workflow in &changes.updated {
        let params = params![
            signed(workflow.key.0),
            workflow.state as u8,
            workflow.due().map(|due| due.0),
            stored_end(workflow).map(|end| end.0),
            encode(&**workflow)?
        ];
        run(connection, sql::UPDATE_WORKFLOW, params)?;
    }
    for (step, spec) in &changes.new_steps {
        put_step(connection, sql::INSERT_STEP, step)?;
        run(connection, sql::INSERT_STEP_SPEC, params![signed(step.workflow.0), step.index, &spec[..]])?;
    }
    for step in &changes.steps {
        put_step(connection, sql::UPDATE_STEP, step)?;
    }
    for ((workflow, step), dependent, continues) in &changes.edges {
        run(connection, sql::INSERT_STEP_EDGE, params![signed(workflow.0), step, dependent, continues])?;
    }
    for ((workflow, step), output) in &changes.outputs {
        run(connection, sql::PUT_STEP_OUTPUT, params![signed(workflow.0), step, &output[..]])?;
    }
    for (group, (workflow, step), member) in &changes.members {
        let (namespace, name, workflow) = (group.namespace.as_str(), group.stored_name(), signed(workflow.0));
        run(connection, sql::DELETE_GROUP_MEMBER, params![namespace, name, workflow, step])?;
        if let Some(GroupMember { holds, limit, joined, .. }) = member {
            let params = params![namespace, name, workflow, step, holds, limit, signed(*joined)];
            run(connection, sql::INSERT_GROUP_MEMBER, params)?;
        }
    }
    for key in &changes.detached {
        run(connection, sql::DETACH_TASK, [signed(key.0)])?;
    }
    for key in &changes.undecodable {
        run(connection, sql::SET_WORKFLOW_ASIDE, [signed(key.0)])?;
    }
    for (key, step) in &changes.undecodable_steps {
        run(connection, sql::SET_STEP_ASIDE, params![signed(key.0), step])?;
    }
    Ok(())
}

/// Rows that can be decoded: one that cannot is missing, and does not hide the others.
fn decoded<T>(rows: Vec<Stored<T>>) -> Vec<T> {
    rows.into_iter().flatten().collect()
}

/// Reads up to a number of rows that can be decoded: a page without any is the last one.
pub(crate) fn some<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    limit: usize,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<Stored<T>>,
) -> Result<Vec<T>, Error> {
    let explained = |error: rusqlite::Error| explain(&error);
    let mut statement = connection.prepare_cached(sql).map_err(explained)?;
    let mut found = statement.query(params).map_err(explained)?;
    let mut rows = Vec::new();
    while rows.len() < limit {
        let Some(row) = found.next().map_err(explained)? else { break };
        rows.extend(read(row).map_err(explained)?);
    }
    Ok(rows)
}

/// Returns the one row that a caller has named.
fn named<T>(row: Option<Stored<T>>) -> Result<Vec<T>, Error> {
    Ok(row.transpose().map_err(Error::Corrupt)?.into_iter().collect())
}

fn list(connection: &Connection, filter: &WorkflowFilter) -> Result<WorkflowRows, Error> {
    let before = signed(filter.before.map_or(u64::MAX, |key| key.0));
    let mut statement = connection.prepare_cached(sql::LIST_WORKFLOWS).map_err(|error| explain(&error))?;
    let explained = |error: rusqlite::Error| explain(&error);
    let mut found = statement.query(params![before, signed(MAX_VISITED)]).map_err(explained)?;
    let (mut rows, mut seen, mut last) = (WorkflowRows::default(), 0, None);
    while rows.workflows.len() < filter.limit {
        let Some(row) = found.next().map_err(explained)? else { break };
        seen += 1;
        last = Some(WorkflowKey(unsigned(row.get(0).map_err(explained)?)));
        let namespace = row.get_ref(2).map_err(explained)?;
        let namespace = namespace.as_str().unwrap_or_default();
        if filter.namespace.as_ref().is_some_and(|wanted| wanted.as_str() != namespace) {
            continue;
        }
        let workflow = workflow(row).map_err(explained)?.ok();
        rows.workflows.extend(workflow.filter(|workflow| filter.fits(workflow)));
    }
    let more = rows.workflows.len() == filter.limit || seen == MAX_VISITED;
    rows.next = last.filter(|_| more);
    Ok(rows)
}

/// Executes a read of a caller.
pub(crate) fn query(connection: &Connection, query: &WorkflowQuery) -> Result<WorkflowRows, Error> {
    let mut rows = WorkflowRows::default();
    match query {
        WorkflowQuery::Id((namespace, id)) => {
            let params = params![namespace.as_str(), id.0];
            rows.workflows = named(one(connection, sql::WORKFLOW_BY_ID, params, workflow)?)?;
        }
        WorkflowQuery::Key(key) => {
            rows.workflows = named(one(connection, sql::WORKFLOW, [signed(key.0)], workflow)?)?;
        }
        WorkflowQuery::Alias((namespace, alias)) => {
            let params = params![namespace.as_str(), alias];
            rows.workflows = named(one(connection, sql::WORKFLOW_BY_ALIAS, params, workflow)?)?;
        }
        WorkflowQuery::List(filter) => return list(connection, filter),
        WorkflowQuery::Spec(key) => {
            let spec = |row: &Row<'_>| Ok((0, Bytes::copy_from_slice(row.get_ref(0)?.as_blob()?)));
            rows.bodies.extend(one(connection, sql::WORKFLOW_SPEC, [signed(key.0)], spec)?);
        }
        WorkflowQuery::Steps { workflow, from, limit } => {
            let params = params![signed(workflow.0), from, signed(*limit)];
            rows.steps = decoded(all(connection, sql::STEPS, params, step)?);
        }
        WorkflowQuery::StepsAt(workflow, indexes) => {
            for index in indexes {
                let found = one(connection, sql::STEP, params![signed(workflow.0), index], step)?;
                rows.steps.extend(named(found)?);
            }
        }
        WorkflowQuery::Work(key, indexes) => {
            rows.workflows = named(one(connection, sql::WORKFLOW, [signed(key.0)], workflow)?)?;
            for index in indexes {
                let params = params![signed(key.0), index];
                rows.steps.extend(named(one(connection, sql::STEP, params, step)?)?);
                rows.bodies.extend(one(connection, sql::STEP_SPEC, params, body)?);
            }
            let spec =
                |row: &Row<'_>| Ok((WORKFLOW_MEMBER, Bytes::copy_from_slice(row.get_ref(0)?.as_blob()?)));
            rows.bodies.extend(one(connection, sql::WORKFLOW_SPEC, [signed(key.0)], spec)?);
        }
        WorkflowQuery::StepSpecs { workflow, from, limit } => {
            let params = params![signed(workflow.0), from, signed(*limit)];
            rows.bodies = all(connection, sql::STEP_SPECS, params, body)?;
        }
        WorkflowQuery::Outputs(workflow, indexes) => {
            for index in indexes {
                let params = params![signed(workflow.0), index];
                rows.bodies.extend(one(connection, sql::STEP_OUTPUT, params, body)?);
            }
        }
        WorkflowQuery::Outcomes(namespace, ids) => {
            for id in ids {
                let params = params![namespace.as_str(), id.0];
                let Some(Ok(found)) = one(connection, sql::WORKFLOW_BY_ID, params, workflow)? else {
                    continue;
                };
                let params = params![signed(found.key.0), WORKFLOW_OUTPUT];
                let output = one(connection, sql::STEP_OUTPUT, params, body)?;
                rows.outcomes.push((found, output.map(|(_, output)| output)));
            }
        }
        WorkflowQuery::Tasks { workflow, step, round, from, limit, bytes } => {
            let params = params![signed(workflow.0), step, round, from, signed(*limit)];
            let mut statement =
                connection.prepare_cached(sql::STEP_RESULTS).map_err(|error| explain(&error))?;
            let explained = |error: rusqlite::Error| explain(&error);
            let mut found = statement.query(params).map_err(explained)?;
            let mut left = Some(*bytes);
            while let (Some(_), Some(row)) = (left, found.next().map_err(explained)?) {
                let key = crate::readers::key(row, 0).map_err(explained)?;
                let task = crate::readers::decoded(key, row, 1).map_err(explained)?;
                let result = row.get_ref(2).map_err(explained)?.as_blob_or_null();
                let result = result.map_err(|error| Error::Corrupt(error.to_string()))?;
                left = left.and_then(|left| left.checked_sub(result.map_or(0, <[u8]>::len)));
                rows.tasks.push((task.map_err(Error::Corrupt)?, result.map(Bytes::copy_from_slice)));
            }
        }
        WorkflowQuery::Driven { .. }
        | WorkflowQuery::Active { .. }
        | WorkflowQuery::Ending { .. }
        | WorkflowQuery::Ended { .. }
        | WorkflowQuery::IdOf(_)
        | WorkflowQuery::Unended => return workflow_pages::page(connection, query),
        WorkflowQuery::Group(key) => rows.members = group(connection, key)?,
    }
    Ok(rows)
}
