//! Query plans: every statement of the writer and the readers uses an index, none scans a table. The plans are made once, in an
//! empty database, and kept; they are the same in a full one.

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

/// Many ended tasks, some queued ones, and a large workflow.
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
    ANALYZE";

/// Statements, with the index that must find the rows.
const INDEXES: &[(&str, &str)] = &[
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
    (sql::STEPS_AT, "AND (step = want.step)"),
    (sql::STEP_SPECS_AT, "AND (step = want.step)"),
    (sql::STEP_OUTPUTS, "AND (step = want.step)"),
    (sql::WORKFLOW_OUTCOMES, "workflows_id"),
    (sql::WORKFLOW_OUTCOMES, "AND (id = want.id)"),
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

#[tokio::test]
async fn statements_use_indexes() {
    let server = PostgresServer::shared();
    let url = server.database().unwrap();
    let target = Target::parse(&url, None).unwrap();
    drop(open_connections(Options::new(target.clone(), "plans")).unwrap());
    for full in [false, true] {
        let session = Session::open(&target, "plans").await.unwrap();
        if full {
            session.client.batch_execute(FILL).await.unwrap();
        }
        for sql in [sql::WRITER, sql::WORKFLOW_WRITER, sql::READER, sql::WORKFLOW_READER, sql::COLD, SEARCH]
            .into_iter()
            .flatten()
        {
            let plan = plan(&session, sql).await;
            // The one row of these tables, and those of the replicas.
            let small = ["on store", "on shards", "on replicas"];
            for line in plan.lines().filter(|line| line.contains("Seq Scan")) {
                assert!(small.iter().any(|table| line.contains(table)), "it scans a table: {sql}\n{plan}");
            }
        }
        for (sql, index) in INDEXES {
            let plan = plan(&session, sql).await;
            assert!(plan.contains(index), "not by {index} (full: {full}): {sql}\n{plan}");
        }
    }
}
