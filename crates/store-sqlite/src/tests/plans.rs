//! Query plans: every statement uses an index, none scans a table.

use rusqlite::Connection;

use super::{NOW, create};
use crate::sql;

fn plan(connection: &Connection, sql: &str) -> String {
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    // The plan does not depend on the values.
    for index in 1..=statement.parameter_count() {
        statement.raw_bind_parameter(index, 1).unwrap();
    }
    let mut rows = statement.raw_query();
    let mut plan = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        plan.push(row.get::<_, String>(3).unwrap());
    }
    plan.join("; ")
}

fn prepared(check: impl FnOnce(&Connection)) {
    let folder = tempfile::tempdir().unwrap();
    let (writer, _readers) = crate::open_connections(&folder.path().join("rota.db")).unwrap();
    let mut engine = rota_store::engine::Engine::new(writer, 0).unwrap();
    engine.run((0..50).map(|number| create(number, 10)).collect(), NOW).unwrap();
    check(engine.backend().connection());
}

#[test]
fn hot_statements_never_scan_tables() {
    prepared(|connection| {
        for (name, sql) in sql::HOT {
            let plan = plan(connection, sql);
            assert!(!plan.contains("TEMP B-TREE"), "{name} sorts: {plan}");
            // Reading the first entry of an index, or a bounded subquery, is no scan, whatever the plan calls it.
            let bounded = matches!(*name, "NEXT_DUE" | "NEXT_WORKFLOW_DUE" | "NEXT_STEP_DUE" | "LOG_SIZE");
            assert!(bounded || !plan.contains("SCAN"), "{name}: {plan}");
        }
    });
}

#[test]
fn claims_and_timers_use_indexes() {
    prepared(|connection| {
        let uses = |sql, index: &str| {
            let plan = plan(connection, sql);
            assert!(plan.contains(index), "{sql}: {plan}");
        };
        uses(sql::READY, "INDEX tasks_ready (route=?");
        uses(sql::AHEAD, "COVERING INDEX tasks_ready (route=? AND rank<?)");
        uses(sql::HEAD, "INDEX tasks_ready (route=?)");
        uses(sql::READY_PAYLOADS, "INDEX tasks_ready (route=?");
        uses(sql::PENDING, "COVERING INDEX tasks_state (state=?)");
        uses(sql::DUE, "INDEX tasks_due (due<?)");
        uses(sql::NEXT_DUE, "COVERING INDEX tasks_due");
        uses(sql::ENDED_BEFORE, "INDEX tasks_ended (ended");
        uses(sql::LOG_SIZE, "INDEX events_task (task=?)");
        uses(sql::TASK, "INTEGER PRIMARY KEY (rowid=?)");
        uses(sql::TASK_BY_ID, "INDEX tasks_id (namespace=? AND id=?)");
        uses(sql::DEPENDENTS, "PRIMARY KEY (task=? AND dependent>? AND dependent<?)");
        uses(sql::DELETE_DEPENDENT, "INDEX edges_dependent (dependent=?)");
        uses(sql::WAITERS, "PRIMARY KEY (namespace=? AND key=?)");
        uses(sql::EVENTS, "INDEX events_task (task=? AND first>?)");
        uses(sql::FEED, "INTEGER PRIMARY KEY (rowid>?)");
        uses(sql::CHANGED_TEXTS, "INTEGER PRIMARY KEY (rowid>?)");
        uses(sql::CHANGED_TEXTS, "COVERING INDEX events_task (task=?)");
        uses(sql::LIST, "INTEGER PRIMARY KEY (rowid<?)");
        uses(sql::LIST_NAMESPACE, "INDEX tasks_namespace (namespace=? AND rowid<?)");
        uses(sql::LIST_STATE, "COVERING INDEX tasks_state (state=? AND rowid<?)");
        let index = "COVERING INDEX tasks_namespace_state (namespace=? AND state=? AND rowid<?)";
        uses(sql::LIST_NAMESPACE_STATE, index);
        uses(sql::QUEUED, "tasks_ready");
        uses(sql::PENDING_OF_ROUTES, "INDEX tasks_state (state=?)");
        uses(sql::ON_WORKERS, "tasks_state");
    });
}

/// The statements and indexes name states by their numbers.
#[test]
fn states_have_the_numbers_of_statements() {
    use rota_core::task::State::{
        Assigned, Cancelled, Failed, InputRequired, Pending, Queued, Running, Succeeded,
    };
    let states = [Pending, Queued, Assigned, Running, InputRequired, Succeeded, Failed, Cancelled];
    assert_eq!(states.map(|state| state as u8), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(states.iter().all(|state| !state.is_on_worker() || (3..=5).contains(&(*state as u8))));
    assert!(states.iter().all(|state| !state.is_final() || (6..=8).contains(&(*state as u8))));
}

#[test]
fn start_up_reads_only_indexes() {
    prepared(|connection| {
        for (name, sql) in sql::COLD {
            let plan = plan(connection, sql);
            assert!(!plan.contains("SCAN tasks") || plan.contains("INDEX"), "{name}: {plan}");
        }
    });
}
