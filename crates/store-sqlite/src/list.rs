//! Lists of tasks, newest first, over the index that fits the filter. A page visits a bounded number of rows: with a
//! selective filter it is short, not slow.

use rota_core::TaskKey;
use rota_core::task::State;
use rota_store::{Error, Filter, Page};
use rusqlite::{Connection, Params, Row, params};

use crate::open::explain;
use crate::readers::{all, decoded, key, one};
use crate::sql;
use rota_store::codec::signed;

/// Rows that one page visits.
pub(crate) const MAX_VISITED: usize = 5000;
/// Rows of each state that one page visits, if the filter names states.
const MAX_OF_STATE: usize = 500;

pub(crate) fn page(connection: &Connection, filter: &Filter) -> Result<Page, Error> {
    let before = signed(filter.before.map_or(u64::MAX, |key| key.0));
    if let Some(keys) = filter.keys_of_page() {
        return by_key(connection, filter, keys);
    }
    // Most tasks have succeeded: those are not in the index by state.
    if !filter.states.is_empty() && !filter.states.contains(&State::Succeeded) {
        return by_state(connection, filter, before);
    }
    let limit = signed(MAX_VISITED);
    match &filter.namespace {
        Some(namespace) => {
            walk(connection, filter, sql::LIST_NAMESPACE, params![namespace.as_str(), before, limit])
        }
        None => walk(connection, filter, sql::LIST, params![before, limit]),
    }
}

/// A row of a list.
struct Visit {
    key: TaskKey,
    /// The task, if it fits the filter. One that cannot be decoded is missing from the list, and does not hide the others.
    task: Option<rota_core::task::Task>,
}

/// Reads a row; its record only if its columns fit.
fn visit(row: &Row<'_>, filter: &Filter) -> rusqlite::Result<Visit> {
    let key = key(row, 0)?;
    let namespace = row.get_ref(1)?.as_str()?;
    let state: u8 = row.get(2)?;
    let fits = filter.namespace.as_ref().is_none_or(|wanted| wanted.as_str() == namespace)
        && (filter.states.is_empty() || filter.states.iter().any(|wanted| *wanted as u8 == state));
    let task = if fits { decoded(key, row, 3)?.ok().filter(|task| filter.fits(task)) } else { None };
    Ok(Visit { key, task })
}

/// Walks the rows of a statement.
fn walk(connection: &Connection, filter: &Filter, sql: &str, params: impl Params) -> Result<Page, Error> {
    let mut statement = connection.prepare_cached(sql).map_err(|error| explain(&error))?;
    let mut rows = statement.query(params).map_err(|error| explain(&error))?;
    let (mut page, mut seen, mut last) = (Page::default(), 0, None);
    while page.tasks.len() < filter.limit {
        let Some(row) = rows.next().map_err(|error| explain(&error))? else { break };
        let visit = visit(row, filter).map_err(|error| explain(&error))?;
        seen += 1;
        last = Some(visit.key);
        page.tasks.extend(visit.task);
    }
    let more = page.tasks.len() == filter.limit || seen == MAX_VISITED;
    page.next = last.filter(|_| more);
    Ok(page)
}

/// Merges the rows of each state.
fn by_state(connection: &Connection, filter: &Filter, before: i64) -> Result<Page, Error> {
    // One moment for all states: a task that changes its state in between is neither missing nor repeated.
    let moment = connection.unchecked_transaction().map_err(|error| explain(&error))?;
    let connection = &*moment;
    let mut states: Vec<_> = filter.states.iter().map(|state| *state as u8).collect();
    states.sort_unstable();
    states.dedup();
    // Older tasks than this one may be missing from the rows of a state.
    let (mut keys, mut horizon) = (Vec::new(), TaskKey(0));
    for state in states {
        let limit = signed(MAX_OF_STATE);
        let of_state = match &filter.namespace {
            Some(namespace) => {
                let params = params![state, before, limit, namespace.as_str()];
                all(connection, sql::LIST_NAMESPACE_STATE, params, |row| key(row, 0))?
            }
            None => all(connection, sql::LIST_STATE, params![state, before, limit], |row| key(row, 0))?,
        };
        if of_state.len() == MAX_OF_STATE {
            horizon = horizon.max(of_state.last().copied().unwrap_or_default());
        }
        keys.extend(of_state);
    }
    keys.sort_unstable_by(|a, b| b.cmp(a));
    let whole = horizon == TaskKey(0);
    keys.retain(|key| *key >= horizon);
    let last = keys.last().copied();
    let mut page = by_key(connection, filter, keys)?;
    // Behind the last row of a state there may be others.
    page.next = page.next.or(last.filter(|_| !whole));
    Ok(page)
}

/// Reads the rows with these keys.
fn by_key(connection: &Connection, filter: &Filter, keys: Vec<TaskKey>) -> Result<Page, Error> {
    let (mut page, mut last, mut left) = (Page::default(), None, keys.len());
    for key in keys {
        if page.tasks.len() == filter.limit {
            break;
        }
        let row = one(connection, sql::LIST_ONE, [signed(key.0)], |row| visit(row, filter))?;
        page.tasks.extend(row.and_then(|visit| visit.task));
        last = Some(key);
        left -= 1;
    }
    page.next = last.filter(|_| left > 0 || page.tasks.len() == filter.limit);
    Ok(page)
}
