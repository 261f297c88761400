//! Every SQL statement, so that a test can check the query plan of each.

/// Declares statements, listed in a constant for the tests of query plans.
macro_rules! statements {
    ($(#[$doc:meta])* $list:ident: $($name:ident = $sql:expr;)*) => {
        $(pub(crate) const $name: &str = $sql;)*
        $(#[$doc])*
        #[cfg(test)]
        pub(crate) const $list: &[(&str, &str)] = &[$((stringify!($name), $name)),*];
    };
}

statements! {
    /// Statements of normal operation: none may scan a table.
    HOT:
    TASK = "SELECT record FROM tasks WHERE id = ?";
    INSERT_TASK = "INSERT INTO tasks (id, namespace, state, route, rank, due, ended, record)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    UPDATE_TASK = "UPDATE tasks SET state = ?3, route = ?4, rank = ?5, due = ?6, ended = ?7, record = ?8
                   WHERE id = ?1 AND namespace = ?2";
    DELETE_TASK = "DELETE FROM tasks WHERE id = ?";
    // A record that cannot be decoded is kept, but no longer found by its state or deadline: no state has this number.
    SET_ASIDE = "UPDATE tasks SET state = 255, due = NULL, ended = NULL WHERE id = ?";
    READY = "SELECT rank, id, record FROM tasks WHERE state = 2 AND route = ? ORDER BY rank, id LIMIT ?";
    READY_PAYLOADS = "SELECT rank, tasks.id, record, body FROM tasks JOIN payloads ON payloads.id = tasks.id
             WHERE state = 2 AND route = ? ORDER BY rank, tasks.id LIMIT ?";
    AHEAD = "SELECT count(*) FROM tasks WHERE state = 2 AND route = ? AND rank < ?";
    HEAD = "SELECT record FROM tasks WHERE state = 2 AND route = ? ORDER BY rank, id LIMIT 1";
    DUE = "SELECT id FROM tasks WHERE due <= ? ORDER BY due, id LIMIT ?";
    NEXT_DUE = "SELECT due FROM tasks WHERE due IS NOT NULL ORDER BY due LIMIT 1";
    ENDED_BEFORE = "SELECT id FROM tasks WHERE ended < ? ORDER BY ended, id LIMIT ?";
    LIST = "SELECT id, record FROM tasks
            WHERE id < ?1 AND (?2 IS NULL OR namespace = ?2) AND (?3 = 0 OR (1 << state) & ?3 <> 0)
            ORDER BY id DESC LIMIT ?4";

    PAYLOAD = "SELECT body FROM payloads WHERE id = ?";
    INSERT_PAYLOAD = "INSERT INTO payloads (id, body) VALUES (?, ?)";
    DELETE_PAYLOAD = "DELETE FROM payloads WHERE id = ?";
    RESULT = "SELECT body FROM results WHERE id = ?";
    PUT_RESULT = "INSERT OR REPLACE INTO results (id, body) VALUES (?, ?)";
    DELETE_RESULT = "DELETE FROM results WHERE id = ?";
    SECRETS = "SELECT sealed FROM secrets WHERE id = ?";
    PUT_SECRETS = "INSERT OR REPLACE INTO secrets (id, sealed) VALUES (?, ?)";
    DELETE_SECRETS = "DELETE FROM secrets WHERE id = ?";

    APPEND = "INSERT INTO events (revision, task, first, body) VALUES (?, ?, ?, ?)";
    // From the row that contains the wanted entry; earlier rows are not read.
    EVENTS = "SELECT body FROM events
              WHERE task = ?1 AND first >=
                  coalesce((SELECT max(first) FROM events WHERE task = ?1 AND first <= ?2), 0)
              ORDER BY first";
    FEED = "SELECT revision, task, body FROM events WHERE revision > ? ORDER BY revision LIMIT ?";
    DELETE_EVENTS = "DELETE FROM events WHERE task = ?";
    SHARD = "SELECT revision, last_route FROM shards WHERE id = 0";
    // A compare-and-set: it changes no row if another opening, or another write, came in between.
    ADVANCE = "UPDATE shards SET revision = ?3, last_route = ?4 WHERE id = 0 AND epoch = ?1 AND revision = ?2";

    INSERT_ROUTE = "INSERT INTO routes (id, route) VALUES (?, ?)";
    DELETE_ROUTE = "DELETE FROM routes WHERE id = ?";
    NEWEST = "SELECT id FROM aliases WHERE namespace = ? AND alias = ?";
    PUT_ALIAS = "INSERT OR REPLACE INTO aliases (namespace, alias, id) VALUES (?, ?, ?)";
    DELETE_ALIAS = "DELETE FROM aliases WHERE namespace = ? AND alias = ? AND id = ?";
    KEY = "SELECT id FROM keys WHERE namespace = ? AND key = ?";
    PUT_KEY = "INSERT INTO keys (namespace, key, id) VALUES (?, ?, ?)";
    LEAVE_KEY = "UPDATE keys SET gone = ?2 WHERE id = ?1";
    ORPHANED_KEYS = "SELECT namespace, key FROM keys WHERE gone < ? ORDER BY gone, namespace, key LIMIT ?";
    DELETE_KEY = "DELETE FROM keys WHERE namespace = ? AND key = ?";

    PUT_WAIT = "INSERT OR IGNORE INTO waits (namespace, key, waiter) VALUES (?, ?, ?)";
    WAITS = "SELECT waiter FROM waits WHERE namespace = ? AND key = ? ORDER BY waiter";
    DELETE_WAITS = "DELETE FROM waits WHERE namespace = ? AND key = ?";
    DELETE_WAIT = "DELETE FROM waits WHERE namespace = ? AND key = ? AND waiter = ?";
    PUT_EDGE = "INSERT OR IGNORE INTO edges (id, dependent) VALUES (?, ?)";
    EDGES = "SELECT dependent FROM edges WHERE id = ? ORDER BY dependent";
    DELETE_EDGES = "DELETE FROM edges WHERE id = ?";

    PUT_AGENT = "INSERT OR REPLACE INTO agents (namespace, name, record) VALUES (?, ?, ?)";
    DELETE_AGENT = "DELETE FROM agents WHERE namespace = ? AND name = ?";
    SESSION = "SELECT record FROM sessions WHERE namespace = ? AND worker = ?";
    PUT_SESSION = "INSERT OR REPLACE INTO sessions (namespace, worker, epoch, open, ended, record)
                   VALUES (?, ?, ?, ?, ?, ?)";
    LEFT_SESSIONS = "SELECT namespace, worker FROM sessions
                     WHERE ended < ? ORDER BY ended, namespace, worker LIMIT ?";
    DELETE_SESSION = "DELETE FROM sessions WHERE namespace = ? AND worker = ?";
}

statements! {
    /// Statements that run at a start, or a few times a minute.
    COLD:
    RAISE_EPOCH = "UPDATE shards SET epoch = epoch + 1 WHERE id = 0";
    EPOCH = "SELECT epoch FROM shards WHERE id = 0";
    UNDECODABLE = "SELECT route, id, record FROM tasks WHERE state = 255";
    ROUTES = "SELECT id, route FROM routes ORDER BY id";
    AGENTS = "SELECT record FROM agents ORDER BY namespace, name";
    SESSIONS = "SELECT record FROM sessions WHERE open ORDER BY namespace, worker";
    QUEUED = "SELECT route, count(*) FROM tasks WHERE state = 2 GROUP BY route ORDER BY route";
    PENDING = "SELECT count(*) FROM tasks WHERE state = 1";
    // Every task on a worker has a deadline, hence is in that index.
    ON_WORKERS = "SELECT route, id, record FROM tasks INDEXED BY tasks_due WHERE due IS NOT NULL AND state IN (3, 4, 5)";
}
