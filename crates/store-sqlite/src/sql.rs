//! Every SQL statement, so that a test can check the query plan of each.

/// Declares statements, listed in a constant for the tests of query plans.
macro_rules! statements {
    ($(#[$doc:meta])* $list:ident: $($name:ident = $sql:expr;)*) => {
        $(pub(crate) const $name: &str = $sql;)*
        $(#[$doc])*
        pub(crate) const $list: &[(&str, &str)] = &[$((stringify!($name), $name)),*];
    };
}

/// Columns from which `readers::task_row` reads a [`rota_store::TaskRow`].
macro_rules! task_columns {
    () => {
        "tasks.key, tasks.id, record, EXISTS (SELECT 1 FROM edges WHERE edges.task = tasks.key)"
    };
}

/// Number of all statements: a connection that prepares fewer at a time would parse some of them again and again.
pub(crate) const COUNT: usize = HOT.len() + COLD.len();

statements! {
    /// Statements of normal operation: none may scan a table.
    HOT:
    TASK = concat!("SELECT ", task_columns!(), " FROM tasks WHERE key = ?");
    TASK_BY_ID = concat!("SELECT ", task_columns!(), " FROM tasks WHERE namespace = ? AND id = ?");
    TASK_BY_ALIAS = concat!("SELECT ", task_columns!(), " FROM aliases JOIN tasks ON tasks.key = aliases.task
             WHERE aliases.namespace = ? AND alias = ?");
    STATE_BY_ID = "SELECT key, id, record FROM tasks WHERE namespace = ? AND id = ?";
    STATE_BY_ALIAS = "SELECT key, id, record FROM aliases JOIN tasks ON tasks.key = aliases.task
                      WHERE aliases.namespace = ? AND alias = ?";
    INSERT_TASK = "INSERT INTO tasks (key, id, namespace, state, route, rank, due, ended, record, workflow, step, round, item)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    UPDATE_TASK = "UPDATE tasks SET state = ?2, route = ?3, rank = ?4, due = ?5, ended = ?6, record = ?7 WHERE key = ?1";
    DELETE_TASK = "DELETE FROM tasks WHERE key = ?";
    WAITING = "SELECT route FROM tasks WHERE key = ? AND state IN (1, 2)";
    // A record that cannot be decoded is kept, but no longer found by its state or deadline: no state has this number.
    SET_ASIDE = "UPDATE tasks SET state = 255, due = NULL, ended = NULL WHERE key = ?";
    READY = concat!("SELECT ", task_columns!(), ", rank FROM tasks
             WHERE state = 2 AND route = ?1 AND (rank, key) > (?2, ?3) ORDER BY rank, key LIMIT ?4");
    READY_PAYLOADS = concat!("SELECT ", task_columns!(), ", rank, body FROM tasks JOIN payloads ON payloads.key = tasks.key
             WHERE state = 2 AND route = ?1 AND (rank, tasks.key) > (?2, ?3) ORDER BY rank, tasks.key LIMIT ?4");
    AHEAD = "SELECT count(*) FROM tasks WHERE state = 2 AND route = ? AND rank < ?";
    HEAD = "SELECT record FROM tasks WHERE state = 2 AND route = ? ORDER BY rank, key LIMIT 1";
    DUE = concat!("SELECT ", task_columns!(), " FROM tasks WHERE due <= ? ORDER BY due, key LIMIT ?");
    NEXT_DUE = "SELECT due FROM tasks WHERE due IS NOT NULL ORDER BY due LIMIT 1";
    ENDED_BEFORE = concat!("SELECT ", task_columns!(), ", ended
             FROM tasks WHERE ended < ?1 AND (ended, key) > (?2, ?3) ORDER BY ended, key");
    // The length of a blob is read without the blob.
    LOG_SIZE = "SELECT count(*), coalesce(sum(size), 0) FROM
                (SELECT length(body) AS size FROM events WHERE task = ? LIMIT ?)";
    LIST = "SELECT key, namespace, state, record FROM tasks WHERE key < ? ORDER BY key DESC LIMIT ?";
    LIST_NAMESPACE = "SELECT key, namespace, state, record FROM tasks
                      WHERE namespace = ? AND key < ? ORDER BY key DESC LIMIT ?";
    LIST_ONE = "SELECT key, namespace, state, record FROM tasks WHERE key = ?";
    LIST_NAMESPACE_STATE = "SELECT key FROM tasks WHERE state = ?1 AND state <> 6 AND key < ?2 AND namespace = ?4
                            ORDER BY key DESC LIMIT ?3";
    LIST_STATE = "SELECT key FROM tasks WHERE state = ? AND state <> 6 AND key < ? ORDER BY key DESC LIMIT ?";

    PAYLOAD = "SELECT body FROM payloads WHERE key = ?";
    INSERT_PAYLOAD = "INSERT INTO payloads (key, body) VALUES (?, ?)";
    DELETE_PAYLOAD = "DELETE FROM payloads WHERE key = ?";
    RESULT = "SELECT body FROM results WHERE key = ?";
    PUT_RESULT = "INSERT OR REPLACE INTO results (key, body) VALUES (?, ?)";
    DELETE_RESULT = "DELETE FROM results WHERE key = ?";
    ARTIFACTS = "SELECT task, attempt, list FROM artifacts
                 WHERE (task, attempt) >= (?1, ?2) AND (task, attempt) <= (?3, ?4) ORDER BY task, attempt LIMIT ?5";
    PUT_ARTIFACTS = "INSERT OR REPLACE INTO artifacts (task, attempt, list) VALUES (?, ?, ?)";
    DELETE_ARTIFACTS = "DELETE FROM artifacts WHERE task = ?";
    SECRETS = "SELECT sealed FROM secrets WHERE key = ?";
    PUT_SECRETS = "INSERT OR REPLACE INTO secrets (key, sealed) VALUES (?, ?)";
    SEALED = "SELECT secrets.key, namespace, id, sealed FROM secrets JOIN tasks ON tasks.key = secrets.key
              WHERE secrets.key > ? ORDER BY secrets.key LIMIT ?";
    DELETE_SECRETS = "DELETE FROM secrets WHERE key = ?";

    APPEND = "INSERT INTO events (revision, task, first, body) VALUES (?, ?, ?, ?)";
    // From the row that contains the wanted entry; earlier rows are not read.
    EVENTS = "SELECT body FROM events
              WHERE task = ?1 AND first >=
                  coalesce((SELECT max(first) FROM events WHERE task = ?1 AND first <= ?2), 0)
              ORDER BY first";
    FEED = "SELECT revision, tasks.key, record, body FROM events JOIN tasks ON tasks.key = events.task
            WHERE revision > ? ORDER BY revision LIMIT ?";
    // A row for each entry, so that those of a page are bounded. An entry with a task is the first of its log, or the last of an ended one.
    CHANGED_TEXTS = "SELECT revision, tasks.key, record FROM events LEFT JOIN tasks ON tasks.key = events.task
                     AND (first = 1 OR (state BETWEEN 6 AND 8 AND first =
                         (SELECT max(later.first) FROM events AS later WHERE later.task = events.task)))
                     WHERE revision > ? ORDER BY revision LIMIT ?";
    DELETE_EVENTS = "DELETE FROM events WHERE task = ?";
    SHARD = "SELECT revision, last_route, written_at, away, store FROM shards WHERE id = 0";
    // A compare-and-set: it changes no row if another opening, or another write, came in between.
    ADVANCE = "UPDATE shards SET revision = ?3, last_route = ?4, written_at = ?5, away = coalesce(?6, away) \
               WHERE id = 0 AND epoch = ?1 AND revision = ?2";
    // These return whether another connection was in the way, and the pages of the log and those of them that were copied.
    LOG_PAGES = "PRAGMA wal_checkpoint(NOOP)";
    CHECKPOINT = "PRAGMA wal_checkpoint(PASSIVE)";
    TRUNCATE_LOG = "PRAGMA wal_checkpoint(TRUNCATE)";

    INSERT_ROUTE = "INSERT INTO routes (id, route) VALUES (?, ?)";
    DELETE_ROUTE = "DELETE FROM routes WHERE id = ?";
    PUT_ALIAS = "INSERT OR REPLACE INTO aliases (namespace, alias, task) VALUES (?, ?, ?)";
    DELETE_ALIAS = "DELETE FROM aliases WHERE namespace = ? AND alias = ? AND task = ?";
    KEY = "SELECT id, task FROM idempotency_keys WHERE namespace = ? AND key = ?";
    PUT_KEY = "INSERT INTO idempotency_keys (namespace, key, id, task) VALUES (?, ?, ?, ?)";
    LEAVE_KEY = "UPDATE idempotency_keys SET orphaned = ?2 WHERE task = ?1";
    ORPHANED_KEYS = "SELECT namespace, key, orphaned FROM idempotency_keys
                     WHERE orphaned < ? AND (orphaned, namespace, key) > (?, ?, ?) ORDER BY orphaned, namespace, key LIMIT ?";
    DELETE_KEY = "DELETE FROM idempotency_keys WHERE namespace = ? AND key = ?";

    THREAD = "SELECT record FROM threads WHERE namespace = ? AND name = ?";
    THREADS = "SELECT namespace, name, record FROM threads WHERE (namespace, name) > (?1, ?2)
               ORDER BY namespace, name LIMIT ?3";
    PUT_THREAD = "INSERT OR REPLACE INTO threads (namespace, name, idle, record) VALUES (?, ?, ?, ?)";
    IDLE_THREADS = "SELECT namespace, name, record, idle FROM threads
                    WHERE idle < ? AND (idle, namespace, name) > (?, ?, ?) ORDER BY idle, namespace, name LIMIT ?";
    DELETE_THREAD = "DELETE FROM threads WHERE namespace = ? AND name = ?";

    PUT_WAIT = "INSERT OR IGNORE INTO waits (namespace, key, waiter) VALUES (?, ?, ?)";
    WAITERS = "SELECT waiter FROM waits WHERE namespace = ? AND key = ? ORDER BY waiter LIMIT ?";
    DELETE_WAIT = "DELETE FROM waits WHERE namespace = ? AND key = ? AND waiter = ?";
    PUT_EDGE = "INSERT OR IGNORE INTO edges (task, dependent) VALUES (?, ?)";
    DEPENDENTS = concat!("SELECT ", task_columns!(), " FROM edges AS edge JOIN tasks ON tasks.key = edge.dependent
             WHERE edge.task = ? AND edge.dependent > ? AND edge.dependent <= ? ORDER BY edge.dependent LIMIT ?");
    DELETE_DEPENDENT = "DELETE FROM edges WHERE dependent = ?";

    WORKFLOW = "SELECT key, record, id FROM workflows WHERE key = ?";
    WORKFLOW_BY_ID = "SELECT key, record, id FROM workflows WHERE namespace = ? AND id = ?";
    WORKFLOW_BY_ALIAS = "SELECT key, record FROM workflows WHERE namespace = ? AND alias = ? ORDER BY key DESC LIMIT 1";
    WORKFLOW_BY_KEY = "SELECT key FROM workflows WHERE namespace = ? AND idempotency = ?";
    INSERT_WORKFLOW = "INSERT INTO workflows (key, id, namespace, alias, idempotency, state, due, ended, record)
                       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
    UPDATE_WORKFLOW = "UPDATE workflows SET state = ?2, due = ?3, ended = ?4, record = ?5 WHERE key = ?1";
    // A workflow, or a step, that cannot be decoded is due, and expires, in three thousand years. The next start takes that back.
    SET_WORKFLOW_ASIDE = "UPDATE workflows SET due = due + 100000000000000000, ended = ended + 100000000000000000 WHERE key = ?";
    SET_STEP_ASIDE = "UPDATE steps SET due = due + 100000000000000000 WHERE workflow = ? AND step = ?";
    DELETE_WORKFLOW = "DELETE FROM workflows WHERE key = ?";
    LIST_WORKFLOWS = "SELECT key, record, namespace FROM workflows WHERE key < ? ORDER BY key DESC LIMIT ?";
    DUE_WORKFLOWS = "SELECT key FROM workflows WHERE due <= ? ORDER BY due, key LIMIT ?";
    NEXT_WORKFLOW_DUE = "SELECT due FROM workflows WHERE due IS NOT NULL ORDER BY due LIMIT 1";
    ENDED_WORKFLOWS = "SELECT key FROM workflows WHERE ended < ? ORDER BY ended, key LIMIT ?";
    ENDING_WORKFLOWS = "SELECT key, record FROM workflows WHERE state = 5 AND key > ? ORDER BY key";
    ENDED_SINCE = "SELECT key, record FROM workflows
                   WHERE ended IS NOT NULL AND (ended, key) > (?1, ?2) ORDER BY ended, key";
    WORKFLOW_SPEC = "SELECT body FROM workflow_specs WHERE workflow = ?";
    INSERT_WORKFLOW_SPEC = "INSERT INTO workflow_specs (workflow, body) VALUES (?, ?)";
    DELETE_WORKFLOW_SPEC = "DELETE FROM workflow_specs WHERE workflow = ?";
    STEP = "SELECT workflow, step, record FROM steps WHERE workflow = ? AND step = ?";
    STEPS = "SELECT workflow, step, record FROM steps WHERE workflow = ? AND step >= ? ORDER BY step LIMIT ?";
    INSERT_STEP = "INSERT INTO steps (workflow, step, state, driven, due, record) VALUES (?, ?, ?, ?, ?, ?)";
    UPDATE_STEP = "UPDATE steps SET state = ?3, driven = ?4, due = ?5, record = ?6 WHERE workflow = ?1 AND step = ?2";
    DELETE_STEPS = "DELETE FROM steps WHERE workflow = ?";
    HELD_STEPS = "SELECT workflow, step, record FROM steps WHERE workflow = ? AND step >= ? AND state = 2 ORDER BY step LIMIT ?";
    ACTIVE_STEPS = "SELECT workflow, step, record FROM steps
                    WHERE workflow = ? AND step >= ? AND state IN (3, 4, 5) ORDER BY step LIMIT ?";
    DRIVEN_STEPS = "SELECT workflow, step, record FROM steps
                    WHERE driven = 1 AND (workflow, step) > (?1, ?2) ORDER BY workflow, step";
    STARTED_STEPS = "SELECT workflow, step, record FROM steps
                    WHERE state IN (3, 4, 5) AND (workflow, step) > (?1, ?2) ORDER BY workflow, step";
    DUE_STEPS = "SELECT workflow, step FROM steps WHERE due <= ? ORDER BY due, workflow, step LIMIT ?";
    NEXT_STEP_DUE = "SELECT due FROM steps WHERE due IS NOT NULL ORDER BY due LIMIT 1";
    STEP_SPECS = "SELECT step, body FROM step_specs WHERE workflow = ? AND step >= ? ORDER BY step LIMIT ?";
    STEP_SPEC = "SELECT step, body FROM step_specs WHERE workflow = ? AND step = ?";
    INSERT_STEP_SPEC = "INSERT INTO step_specs (workflow, step, body) VALUES (?, ?, ?)";
    DELETE_STEP_SPECS = "DELETE FROM step_specs WHERE workflow = ?";
    STEP_OUTPUT = "SELECT step, body FROM step_outputs WHERE workflow = ? AND step = ?";
    PUT_STEP_OUTPUT = "INSERT OR REPLACE INTO step_outputs (workflow, step, body) VALUES (?, ?, ?)";
    DELETE_STEP_OUTPUTS = "DELETE FROM step_outputs WHERE workflow = ?";
    INSERT_STEP_EDGE = "INSERT OR IGNORE INTO step_edges (workflow, step, dependent, continues) VALUES (?, ?, ?, ?)";
    DELETE_STEP_EDGES = "DELETE FROM step_edges WHERE workflow = ?";
    STEP_DEPENDENTS = "SELECT steps.workflow, steps.step, record, continues FROM step_edges AS edge
                       JOIN steps ON steps.workflow = edge.workflow AND steps.step = edge.dependent
                       WHERE edge.workflow = ?1 AND edge.step = ?2 AND edge.dependent >= ?3
                       ORDER BY edge.dependent LIMIT ?4";
    // The length of a blob is read without the blob.
    OUTPUT_SIZES = "SELECT step, length(body) FROM step_outputs WHERE workflow = ? ORDER BY step LIMIT ?";
    EDGE_KEYS = "SELECT step, dependent FROM step_edges WHERE workflow = ? ORDER BY step, dependent LIMIT ?";
    STEP_SIZES = "SELECT steps.step, length(record) + coalesce(length(body), 0) FROM steps
                  LEFT JOIN step_specs AS spec ON spec.workflow = steps.workflow AND spec.step = steps.step
                  WHERE steps.workflow = ? ORDER BY steps.step LIMIT ?";
    DELETE_FIRST_OUTPUTS = "DELETE FROM step_outputs WHERE workflow = ? AND step <= ?";
    DELETE_FIRST_EDGES = "DELETE FROM step_edges WHERE workflow = ? AND (step, dependent) <= (?, ?)";
    DELETE_FIRST_STEPS = "DELETE FROM steps WHERE workflow = ? AND step <= ?";
    DELETE_FIRST_SPECS = "DELETE FROM step_specs WHERE workflow = ? AND step <= ?";
    STEP_TASKS = concat!("SELECT ", task_columns!(), " FROM tasks WHERE workflow = ?1
             AND (step, round, item) > (?2, ?3, ?4) ORDER BY step, round, item LIMIT ?5");
    OPEN_STEP_TASKS = concat!("SELECT ", task_columns!(), " FROM tasks INDEXED BY tasks_step WHERE workflow = ?1
             AND (step, round, item) > (?2, ?3, ?4) AND state < 6 ORDER BY step, round, item LIMIT ?5");
    STEP_RESULTS = "SELECT tasks.key, record, body FROM tasks LEFT JOIN results ON results.key = tasks.key
                    WHERE workflow = ? AND step = ? AND round = ? AND item >= ? ORDER BY item LIMIT ?";
    GROUP_MEMBERS = "SELECT workflow, step, holds, capacity, joined FROM group_members
                     WHERE namespace = ? AND name = ? AND holds = ? ORDER BY workflow, step LIMIT ?";
    MEMBERSHIPS = "SELECT workflow, step, namespace, name FROM group_members WHERE workflow = ? LIMIT ?";
    INSERT_GROUP_MEMBER = "INSERT INTO group_members (namespace, name, workflow, step, holds, capacity, joined)
                           VALUES (?, ?, ?, ?, ?, ?, ?)";
    DELETE_GROUP_MEMBER = "DELETE FROM group_members
                           WHERE namespace = ? AND name = ? AND holds IN (0, 1) AND workflow = ? AND step = ?";
    DETACH_TASK = "UPDATE tasks SET workflow = NULL, step = NULL, round = NULL, item = NULL WHERE key = ?";

    PUT_FOLLOW_UP = "INSERT OR REPLACE INTO follow_ups (number, record) VALUES (?, ?)";
    DELETE_FOLLOW_UP = "DELETE FROM follow_ups WHERE number = ?";

    PUT_COOL_DOWN = "INSERT OR REPLACE INTO cool_downs (namespace, credential, record) VALUES (?, ?, ?)";
    DELETE_COOL_DOWN = "DELETE FROM cool_downs WHERE namespace = ? AND credential = ?";
    PUT_ACCOUNT = "INSERT OR REPLACE INTO accounts (namespace, agent, record) VALUES (?, ?, ?)";
    DOCUMENT = "SELECT record FROM documents WHERE kind = ? AND namespace = ? AND name = ?";
    DOCUMENTS = "SELECT record, namespace, name FROM documents WHERE kind = ?1 AND (namespace, name) > (?2, ?3) ORDER BY namespace, name";
    DOCUMENTS_NAMESPACE = "SELECT record, namespace, name FROM documents WHERE kind = ?1 AND namespace = ?2 AND name > ?3 ORDER BY name";
    PUT_DOCUMENT = "INSERT INTO documents (kind, namespace, name, record) VALUES (?1, ?2, ?3, ?4)
                    ON CONFLICT (kind, namespace, name) DO UPDATE SET record = ?4";
    DELETE_DOCUMENT = "DELETE FROM documents WHERE kind = ? AND namespace = ? AND name = ?";
    PUT_AGENT = "INSERT OR REPLACE INTO agents (namespace, name, record) VALUES (?, ?, ?)";
    DELETE_AGENT = "DELETE FROM agents WHERE namespace = ? AND name = ?";
    SESSION = "SELECT record, epoch FROM sessions WHERE namespace = ? AND worker = ?";
    PUT_SESSION = "INSERT OR REPLACE INTO sessions (namespace, worker, epoch, open, ended, record)
                   VALUES (?, ?, ?, ?, ?, ?)";
    LEFT_SESSIONS = "SELECT namespace, worker, ended FROM sessions
                     WHERE ended < ? AND (ended, namespace, worker) > (?, ?, ?) ORDER BY ended, namespace, worker LIMIT ?";
    DELETE_SESSION = "DELETE FROM sessions WHERE namespace = ? AND worker = ?";
}

statements! {
    /// Statements that run at a start, a few times a minute, or for a damaged record.
    COLD:
    RAISE_EPOCH = "UPDATE shards SET epoch = epoch + 1 WHERE id = 0";
    RESTORE_DUE = "UPDATE workflows SET due = due - 100000000000000000 WHERE due > 100000000000000000";
    RESTORE_ENDED = "UPDATE workflows SET ended = ended - 100000000000000000 WHERE ended > 100000000000000000";
    RESTORE_STEPS = "UPDATE steps SET due = due - 100000000000000000 WHERE due > 100000000000000000";
    // Of a task whose record, with its alias, cannot be decoded.
    DELETE_ALIASES = "DELETE FROM aliases WHERE task = ?";
    EPOCH = "SELECT epoch FROM shards WHERE id = 0";
    UNDECODABLE = "SELECT route, key, id, record FROM tasks WHERE state = 255 AND state <> 6";
    ROUTES = "SELECT id, route FROM routes ORDER BY id";
    AGENTS = "SELECT record, namespace, name FROM agents ORDER BY namespace, name";
    SESSIONS = "SELECT record, namespace, worker, epoch FROM sessions WHERE open ORDER BY namespace, worker";
    QUEUED = "SELECT route, count(*) FROM tasks WHERE state = 2 GROUP BY route ORDER BY route";
    PENDING = "SELECT count(*) FROM tasks WHERE state = 1 AND state <> 6";
    PENDING_OF_ROUTES = "SELECT route, count(*) FROM tasks WHERE state = 1 AND state <> 6 GROUP BY route ORDER BY route";
    ON_WORKERS = concat!("SELECT ", task_columns!(), ", route FROM tasks WHERE state IN (3, 4, 5) AND state <> 6 ORDER BY key");
    COOL_DOWNS = "SELECT record, namespace, credential FROM cool_downs ORDER BY namespace, credential";
    ACCOUNTS = "SELECT record, namespace, agent FROM accounts ORDER BY namespace, agent";
    UNENDED_WORKFLOWS = "SELECT count(*) FROM workflows WHERE state < 6";
    FOLLOW_UPS = "SELECT number, record FROM follow_ups ORDER BY number";
}
