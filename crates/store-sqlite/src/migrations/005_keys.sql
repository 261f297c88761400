-- Records are keyed by the revision of their creation: new rows are added at the end whatever ids callers choose, and
-- every reference is a small number. The id that callers know is unique within its namespace.
CREATE TABLE new_keys (key INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE);
INSERT INTO new_keys (id, key)
    SELECT id, coalesce(
        (SELECT revision FROM events WHERE events.task = tasks.id ORDER BY first LIMIT 1),
        -- A task without a log is damaged, and kept.
        (SELECT revision FROM shards WHERE shards.id = 0) + row_number() OVER (ORDER BY id)
    ) FROM tasks;
-- From here on, the order of the joins is that of the new keys: sorting rows would hold all of them in memory.
UPDATE shards SET revision = max(revision, coalesce((SELECT max(key) FROM new_keys), 0)) WHERE id = 0;

CREATE TABLE tasks_new (
    key       INTEGER PRIMARY KEY,
    id        BLOB    NOT NULL,
    namespace TEXT    NOT NULL,
    state     INTEGER NOT NULL,
    route     INTEGER NOT NULL,
    rank      INTEGER NOT NULL,
    -- Of a task that is not on a worker; the writer has the others in memory.
    due       INTEGER,
    ended     INTEGER,
    record    BLOB    NOT NULL
);
INSERT INTO tasks_new (key, id, namespace, state, route, rank, due, ended, record)
    SELECT key, tasks.id, namespace, state, route, rank, CASE WHEN state IN (3, 4, 5) THEN NULL ELSE due END, ended, record
    FROM new_keys CROSS JOIN tasks USING (id) ORDER BY key;

CREATE TABLE payloads_new (key INTEGER PRIMARY KEY, body BLOB NOT NULL);
INSERT INTO payloads_new SELECT key, body FROM new_keys CROSS JOIN payloads USING (id) ORDER BY key;
CREATE TABLE results_new (key INTEGER PRIMARY KEY, body BLOB NOT NULL);
INSERT INTO results_new SELECT key, body FROM new_keys CROSS JOIN results USING (id) ORDER BY key;
CREATE TABLE secrets_new (key INTEGER PRIMARY KEY, sealed BLOB NOT NULL);
INSERT INTO secrets_new SELECT key, sealed FROM new_keys CROSS JOIN secrets USING (id) ORDER BY key;

CREATE TABLE events_new (
    revision INTEGER PRIMARY KEY,
    task     INTEGER NOT NULL,
    first    INTEGER NOT NULL,
    body     BLOB    NOT NULL
);
INSERT INTO events_new
    SELECT revision, key, first, body FROM events CROSS JOIN new_keys ON new_keys.id = events.task ORDER BY revision;

CREATE TABLE aliases_new (
    namespace TEXT NOT NULL, alias TEXT NOT NULL, task INTEGER NOT NULL,
    PRIMARY KEY (namespace, alias)
) WITHOUT ROWID;
INSERT INTO aliases_new SELECT namespace, alias, key FROM aliases JOIN new_keys USING (id);
-- Idempotency keys outlive their tasks for a limited time.
CREATE TABLE idempotency_keys (
    namespace TEXT NOT NULL, key TEXT NOT NULL, id BLOB NOT NULL,
    -- The task, and the time at which it was removed, in microseconds.
    task INTEGER NOT NULL, orphaned INTEGER,
    PRIMARY KEY (namespace, key)
) WITHOUT ROWID;
INSERT INTO idempotency_keys
    SELECT namespace, keys.key, keys.id, coalesce(new_keys.key, 0),
        CASE WHEN new_keys.key IS NULL
            THEN coalesce(gone, CAST(strftime('%s', 'now') AS INTEGER) * 1000000) END
    FROM keys LEFT JOIN new_keys USING (id);
CREATE TABLE waits_new (
    namespace TEXT NOT NULL, key TEXT NOT NULL, waiter INTEGER NOT NULL,
    PRIMARY KEY (namespace, key, waiter)
) WITHOUT ROWID;
INSERT INTO waits_new SELECT namespace, waits.key, new_keys.key FROM waits JOIN new_keys ON new_keys.id = waiter;
-- A task, and one that needs it: from the creation of the second to its end, so that the first is not removed before.
CREATE TABLE edges_new (
    task INTEGER NOT NULL, dependent INTEGER NOT NULL,
    PRIMARY KEY (task, dependent)
) WITHOUT ROWID;
INSERT INTO edges_new
    SELECT one.key, other.key FROM edges
    JOIN new_keys AS one ON one.id = edges.id JOIN new_keys AS other ON other.id = dependent
    JOIN tasks ON tasks.id = dependent WHERE tasks.state NOT IN (6, 7, 8);

-- What commands have left for later commits.
CREATE TABLE follow_ups (number INTEGER PRIMARY KEY, record BLOB NOT NULL);

DROP TABLE tasks;
DROP TABLE payloads;
DROP TABLE results;
DROP TABLE secrets;
DROP TABLE events;
DROP TABLE aliases;
DROP TABLE keys;
DROP TABLE waits;
DROP TABLE edges;
DROP TABLE replicas;
DROP TABLE new_keys;
ALTER TABLE tasks_new RENAME TO tasks;
ALTER TABLE payloads_new RENAME TO payloads;
ALTER TABLE results_new RENAME TO results;
ALTER TABLE secrets_new RENAME TO secrets;
ALTER TABLE events_new RENAME TO events;
ALTER TABLE aliases_new RENAME TO aliases;
ALTER TABLE waits_new RENAME TO waits;
ALTER TABLE edges_new RENAME TO edges;

CREATE UNIQUE INDEX tasks_id ON tasks (namespace, id);
-- Ordered by key within a namespace, and within a state. 6 is SUCCEEDED, the state of most tasks: those are found by
-- their namespace.
CREATE INDEX tasks_namespace ON tasks (namespace);
CREATE INDEX tasks_state ON tasks (state) WHERE state <> 6;
CREATE INDEX tasks_namespace_state ON tasks (namespace, state) WHERE state <> 6;
-- 2 is QUEUED. Only ready tasks are in this index: it is as small as the queue.
CREATE INDEX tasks_ready ON tasks (route, rank) WHERE state = 2;
CREATE INDEX tasks_due ON tasks (due) WHERE due IS NOT NULL;
CREATE INDEX tasks_ended ON tasks (ended) WHERE ended IS NOT NULL;
CREATE INDEX events_task ON events (task, first);
CREATE INDEX edges_dependent ON edges (dependent);
CREATE INDEX idempotency_keys_task ON idempotency_keys (task);
CREATE INDEX idempotency_keys_orphaned ON idempotency_keys (orphaned) WHERE orphaned IS NOT NULL;
