-- The hot table: what claims, timers and lists search for, and the record itself. Ids are UUIDs of
-- version 7, hence rows are added at the end.
CREATE TABLE tasks (
    id        BLOB    NOT NULL PRIMARY KEY,
    namespace TEXT    NOT NULL,
    state     INTEGER NOT NULL,
    route     INTEGER NOT NULL,
    rank      INTEGER NOT NULL,
    due       INTEGER,
    ended     INTEGER,
    record    BLOB    NOT NULL
) WITHOUT ROWID;
-- 2 is QUEUED. Only ready tasks are in this index: it is as small as the queue.
CREATE INDEX tasks_ready ON tasks (route, rank) WHERE state = 2;
CREATE INDEX tasks_due ON tasks (due) WHERE due IS NOT NULL;
-- For retention. Ids are no order by time: those chosen by callers are random.
CREATE INDEX tasks_ended ON tasks (ended) WHERE ended IS NOT NULL;

-- Payloads are written once and read at most a few times.
CREATE TABLE payloads (id BLOB NOT NULL PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE results (id BLOB NOT NULL PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE secrets (id BLOB NOT NULL PRIMARY KEY, sealed BLOB NOT NULL) WITHOUT ROWID;

-- What one commit added to one task's log is one row.
CREATE TABLE events (
    revision INTEGER PRIMARY KEY,
    task     BLOB    NOT NULL,
    first    INTEGER NOT NULL,
    body     BLOB    NOT NULL
);
CREATE INDEX events_task ON events (task, first);
-- The last revision that was given before rows were removed: revisions never repeat.
CREATE TABLE floor (one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL);
INSERT INTO floor (one, revision) VALUES (1, 0);

CREATE TABLE routes (id INTEGER PRIMARY KEY, route TEXT NOT NULL UNIQUE);
CREATE TABLE aliases (
    namespace TEXT NOT NULL, alias TEXT NOT NULL, id BLOB NOT NULL,
    PRIMARY KEY (namespace, alias)
) WITHOUT ROWID;
-- Keys outlive their tasks.
CREATE TABLE keys (
    namespace TEXT NOT NULL, key TEXT NOT NULL, id BLOB NOT NULL,
    PRIMARY KEY (namespace, key)
) WITHOUT ROWID;
CREATE TABLE waits (
    namespace TEXT NOT NULL, key TEXT NOT NULL, waiter BLOB NOT NULL,
    PRIMARY KEY (namespace, key, waiter)
) WITHOUT ROWID;
CREATE TABLE edges (
    id BLOB NOT NULL, dependent BLOB NOT NULL,
    PRIMARY KEY (id, dependent)
) WITHOUT ROWID;

CREATE TABLE agents (
    namespace TEXT NOT NULL, name TEXT NOT NULL, record BLOB NOT NULL,
    PRIMARY KEY (namespace, name)
) WITHOUT ROWID;
-- One row a worker; its epoch grows with each session.
CREATE TABLE sessions (
    namespace TEXT NOT NULL, worker TEXT NOT NULL, epoch INTEGER NOT NULL, open INTEGER NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (namespace, worker)
) WITHOUT ROWID;
-- One lease a control plane's replica. A single replica renews its own all the same.
CREATE TABLE replicas (name TEXT NOT NULL PRIMARY KEY, expires INTEGER NOT NULL) WITHOUT ROWID;
