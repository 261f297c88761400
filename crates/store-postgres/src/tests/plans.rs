//! Query plans: every statement of the writer and the readers finds its rows by the key in an index, none reads a table or all of
//! a shard. A plan is made once and kept until the statistics change: it must be the same in an empty database, in one that has
//! grown without statistics, and in one that has them.

use rota_testkit::postgres::PostgresServer;

use crate::session::Session;
use crate::{Options, Target, open_connections, search, sql};

/// Statements of the full-text index.
const SEARCH: &[&str] = &[
    search::SEARCH,
    search::CHANGED_TEXTS,
    search::KEYS,
    search::POSITION,
    search::MOVE,
    search::REMOVE,
    search::CLEAR,
];

/// Many ended tasks, some queued ones, and a large workflow, without statistics.
const FILL: &str = "
    INSERT INTO tasks (shard, key, id, namespace, state, route, rank, due, ended, record)
        SELECT 0, n, gen_random_uuid(), 'n', CASE WHEN n % 10 = 0 THEN 2 ELSE 6 END, n % 3, n, NULL,
            CASE WHEN n % 10 = 0 THEN NULL ELSE n END, '' FROM generate_series(1, 20000) AS n;
    INSERT INTO specs (shard, key, id, namespace, payload, workflow, step, round, item)
        SELECT 0, key, id, namespace, '', CASE WHEN key > 10000 THEN 1 END, key, 1, 0 FROM tasks;
    INSERT INTO events (shard, revision, task, first, body) SELECT 0, n, n / 4, n, '' FROM generate_series(1, 80000) AS n;
    INSERT INTO workflows (shard, key, id, namespace, state, record)
        SELECT 0, n, gen_random_uuid(), 'n', CASE WHEN n < 10 THEN 1 ELSE 6 END, '' FROM generate_series(1, 5000) AS n;
    INSERT INTO steps (shard, workflow, step, state, driven, due, record)
        SELECT 0, 1, n, CASE WHEN n % 50 = 0 THEN 2 WHEN n % 51 = 0 THEN 3 ELSE 6 END, n % 51 = 0, NULL, ''
        FROM generate_series(1, 10000) AS n;
    INSERT INTO step_edges (shard, workflow, step, dependent, continues)
        SELECT 0, 1, n, n + 1, false FROM generate_series(1, 10000) AS n;
    INSERT INTO group_members (shard, namespace, name, workflow, step, holds, capacity, joined)
        SELECT 0, 'n', 'workflow/' || n % 3, n, 4294967295, n < 3, 1, n FROM generate_series(1, 5000) AS n;
    INSERT INTO search_tasks (shard, key, words) SELECT 0, n, 'word'::tsvector FROM generate_series(1, 20000) AS n;
    INSERT INTO edges (shard, task, dependent) SELECT 0, n, n + 1 FROM generate_series(1, 20000) AS n;
    INSERT INTO idempotency_keys (shard, namespace, key, id, task)
        SELECT 0, 'n', n::text, gen_random_uuid(), n FROM generate_series(1, 20000) AS n";

/// States of the database, each of which follows the one before: new, with the statistics of empty tables, full, and with
/// statistics of that.
const STATES: &[&str] = &["", "ANALYZE", FILL, "ANALYZE"];

/// Statements that read an index of the shard from one of its ends or as a whole: the first or last row, the rows of a partial
/// index, and what refers to damaged records.
const WHOLE_INDEX: &[&str] = &[
    sql::REVISION,
    sql::NEXT_WORKFLOW_DUE,
    sql::NEXT_STEP_DUE,
    sql::UNENDED_WORKFLOWS,
    sql::DISCARD_ALIASES,
];

/// Statements that compare more than the key, once they have found the row, or the few of a workflow.
const FILTERED: &[&str] = &[sql::DELETE_ALIASES, sql::DELETE_GROUP_MEMBERS];

/// Statements, with the index that must find the rows.
const INDEXES: &[(&str, &str)] = &[
    (sql::LOAD_IDS, "specs_id"),
    (sql::LOAD_DEPENDENCIES, "specs_id"),
    (sql::TASK_BY_ID, "specs_id"),
    (sql::LOAD_TASKS, "edges_pkey"),
    (sql::LOAD_DEPENDENTS, "edges_pkey"),
    (sql::DELETE_DEPENDENTS, "edges_dependent"),
    (sql::DELETE_EVENTS, "events_task"),
    (sql::LOAD_KEYS, "idempotency_keys_pkey"),
    (sql::LOAD_WORKFLOW_NAMES, "workflows_idempotency"),
    (sql::LOAD_READY, "tasks_ready"),
    (sql::HEADS, "tasks_ready"),
    (sql::AHEAD, "tasks_ready"),
    (sql::LOAD_DUE, "tasks_due"),
    (sql::NEXT_DUE, "tasks_due"),
    (sql::ENDED_BEFORE, "tasks_ended"),
    (sql::LIST_STATES, "tasks_state"),
    (sql::LIST_NAMESPACE_STATES, "tasks_namespace_state"),
    (sql::LOAD_HELD_STEPS, "steps_held"),
    (sql::LOAD_ACTIVE_STEPS, "steps_active"),
    (sql::DRIVEN_STEPS, "steps_driven"),
    (sql::NEXT_STEP_DUE, "steps_due"),
    (sql::DUE_STEPS, "steps_due"),
    (sql::NEXT_WORKFLOW_DUE, "workflows_due"),
    (sql::DUE_WORKFLOWS, "workflows_due"),
    (sql::ENDED_WORKFLOWS, "workflows_ended"),
    (sql::UNENDED_WORKFLOWS, "workflows_unended"),
    (sql::GROUP_MEMBERS, "group_members_pkey"),
    (sql::LOAD_STEP_TASKS, "specs_step"),
    (sql::STEP_RESULTS, "specs_step"),
    (sql::STEPS_AT, "AND (step >= want.step)"),
    (sql::STEP_SPECS_AT, "AND (step >= want.step)"),
    (sql::STEP_OUTPUTS, "AND (step >= want.step)"),
    (sql::WORKFLOW_OUTCOMES, "workflows_id"),
    (sql::WORKFLOW_OUTCOMES, "AND (id >= want.id)"),
    (sql::WORKFLOW_OUTCOMES, "step_outputs_pkey"),
    (search::SEARCH, "search_tasks_words"),
    (search::CHANGED_TEXTS, "events_pkey"),
    (search::CHANGED_TEXTS, "tasks_pkey"),
    (search::CHANGED_TEXTS, "events_task"),
    (search::KEYS, "search_tasks_pkey"),
    (search::REMOVE, "search_tasks_pkey"),
];

async fn plan(session: &Session, sql: &str) -> String {
    let statement = session.client.prepare(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let nulls = vec!["NULL"; statement.params().len()].join(", ");
    let arguments = if nulls.is_empty() { String::new() } else { format!(" ({nulls})") };
    session.client.batch_execute(&format!("PREPARE one AS {sql}")).await.unwrap();
    let rows = session.client.query(&format!("EXPLAIN EXECUTE one{arguments}"), &[]).await.unwrap();
    session.client.batch_execute("DEALLOCATE one").await.unwrap();
    rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
}

/// Panics unless each row that a plan reads is found by its key.
fn assert_keyed(sql: &str, plan: &str) {
    for line in plan.lines().map(str::trim) {
        let whole = line == "Index Cond: (shard = $1)" && !WHOLE_INDEX.contains(&sql);
        assert!(!whole, "it reads a whole shard: {sql}\n{plan}");
        let joined =
            line.contains("Filter: ") && ["want.", "new.", "old."].iter().any(|of| line.contains(of));
        assert!(
            !joined || FILTERED.contains(&sql),
            "it compares rows that an index could find: {sql}\n{plan}"
        );
    }
}

#[tokio::test]
async fn statements_use_indexes() {
    let server = PostgresServer::shared();
    let url = server.database().unwrap();
    let target = Target::parse(&url, None).unwrap();
    drop(open_connections(Options::new(target.clone(), "plans")).unwrap());
    for state in STATES {
        let session = Session::open(&target, "plans").await.unwrap();
        session.client.batch_execute(state).await.unwrap();
        let keyed = [sql::WRITER, sql::WORKFLOW_WRITER, sql::READER, sql::WORKFLOW_READER];
        for sql in keyed.into_iter().chain([sql::COLD, SEARCH]).flatten() {
            let plan = plan(&session, sql).await;
            // The one row of these tables, and those of the replicas.
            let small = ["on store", "on shards", "on replicas"];
            for line in plan.lines().filter(|line| line.contains("Seq Scan")) {
                assert!(small.iter().any(|table| line.contains(table)), "it scans a table: {sql}\n{plan}");
            }
            if keyed.iter().any(|list| list.contains(sql)) {
                assert_keyed(sql, &plan);
            }
        }
        for (sql, index) in INDEXES {
            let plan = plan(&session, sql).await;
            assert!(plan.contains(index), "not by {index} after {state:?}: {sql}\n{plan}");
        }
    }
}
