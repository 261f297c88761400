//! Lists of tasks, newest first, over the index that fits the filter. A page visits a bounded number of rows: with a selective
//! filter it is short, not slow.

use std::collections::BTreeMap;

use rota_core::TaskKey;
use rota_core::task::State;
use rota_store::codec::signed;
use rota_store::{Filter, Page};

use crate::errors::Fault;
use crate::readers::Loan;
use crate::rows::{self, SHARD, get};
use crate::sql;

/// Rows that one page visits.
const MAX_VISITED: usize = 5000;
/// Rows that one statement returns, with their records.
const CHUNK: usize = 500;
/// Rows of each state that one page visits, if the filter names states.
const MAX_OF_STATE: usize = 500;

pub(crate) async fn page(loan: &Loan, filter: &Filter) -> Result<Page, Fault> {
    let before: i64 = signed(filter.before.map_or(u64::MAX, |key| key.0));
    if let Some(keys) = filter.keys_of_page() {
        return by_key(loan, filter, &keys).await;
    }
    // Most tasks have succeeded: those are not in the index by state.
    if !filter.states.is_empty() && !filter.states.contains(&State::Succeeded) {
        return loan.at_one_moment(async |loan| by_state(loan, filter, before).await).await;
    }
    walk(loan, filter, before).await
}

/// Walks the rows, a chunk at a time.
async fn walk(loan: &Loan, filter: &Filter, mut before: i64) -> Result<Page, Fault> {
    let (mut page, mut seen, mut last) = (Page::default(), 0, None);
    'rows: while page.tasks.len() < filter.limit && seen < MAX_VISITED {
        // A first chunk of about the rows that are wanted, since most filters fit most rows.
        let chunk = if seen == 0 { (filter.limit + 1).min(CHUNK) } else { CHUNK };
        let limit: i64 = signed(chunk.min(MAX_VISITED - seen));
        let rows = match &filter.namespace {
            Some(namespace) => {
                loan.query(sql::LIST_NAMESPACE, &[&SHARD, &before, &limit, &namespace.as_str()]).await?
            }
            None => loan.query(sql::LIST, &[&SHARD, &before, &limit]).await?,
        };
        for row in &rows {
            let key = rows::key(row, 0)?;
            seen += 1;
            last = Some(key);
            before = signed(key.0);
            // One that cannot be decoded is missing from the list, and does not hide the others.
            page.tasks.extend(rows::decoded(key, row, 1)?.ok().filter(|task| filter.fits(task)));
            if page.tasks.len() == filter.limit {
                break 'rows;
            }
        }
        if signed(rows.len()) < limit {
            break;
        }
    }
    let more = page.tasks.len() == filter.limit || seen == MAX_VISITED;
    page.next = last.filter(|_| more);
    Ok(page)
}

/// Merges the rows of each state. The caller sees to one moment: a task that changes its state meanwhile is neither missing nor
/// repeated.
async fn by_state(loan: &Loan, filter: &Filter, before: i64) -> Result<Page, Fault> {
    let mut states: Vec<i16> = filter.states.iter().map(|state| i16::from(*state as u8)).collect();
    states.sort_unstable();
    states.dedup();
    let limit: i64 = signed(MAX_OF_STATE);
    let rows = match &filter.namespace {
        Some(namespace) => {
            let namespace = namespace.as_str();
            loan.query(sql::LIST_NAMESPACE_STATES, &[&SHARD, &before, &limit, &states, &namespace]).await?
        }
        None => loan.query(sql::LIST_STATES, &[&SHARD, &before, &limit, &states]).await?,
    };
    let mut of_states: BTreeMap<i16, Vec<TaskKey>> = BTreeMap::new();
    for row in &rows {
        of_states.entry(get(row, 0)?).or_default().push(rows::key(row, 1)?);
    }
    // Older tasks than this one may be missing from the rows of a state.
    let full = of_states.values().filter(|keys| keys.len() == MAX_OF_STATE);
    let horizon = full.filter_map(|keys| keys.iter().min().copied()).max().unwrap_or_default();
    let mut keys: Vec<TaskKey> = of_states.into_values().flatten().filter(|key| *key >= horizon).collect();
    keys.sort_unstable_by(|a, b| b.cmp(a));
    let mut page = by_key(loan, filter, &keys).await?;
    // Behind the last row of a state there may be others.
    page.next = page.next.or(keys.last().copied().filter(|_| horizon != TaskKey(0)));
    Ok(page)
}

/// Reads the rows with these keys.
async fn by_key(loan: &Loan, filter: &Filter, keys: &[TaskKey]) -> Result<Page, Fault> {
    let (mut page, mut last, mut left) = (Page::default(), None, keys.len());
    'chunks: for chunk in keys.chunks(CHUNK.min(filter.limit.max(1))) {
        let wanted: Vec<i64> = chunk.iter().map(|key| signed(key.0)).collect();
        for row in &loan.query(sql::LIST_KEYS, &[&SHARD, &wanted]).await? {
            if page.tasks.len() == filter.limit {
                break 'chunks;
            }
            let key = rows::key(row, 0)?;
            page.tasks.extend(rows::decoded(key, row, 1)?.ok().filter(|task| filter.fits(task)));
            last = Some(key);
            left -= 1;
        }
    }
    let more = left > 0 || page.tasks.len() == filter.limit;
    page.next = last.filter(|_| more);
    Ok(page)
}
