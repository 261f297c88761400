-- A route is removed when no task waits on it; its id must never be reused.
CREATE TABLE routes_new (id INTEGER PRIMARY KEY AUTOINCREMENT, route TEXT NOT NULL UNIQUE);
INSERT INTO routes_new (id, route) SELECT id, route FROM routes;
DROP TABLE routes;
ALTER TABLE routes_new RENAME TO routes;

-- A key outlives its task for a limited time: when the task was removed, in microseconds.
ALTER TABLE keys ADD COLUMN gone INTEGER;
UPDATE keys SET gone = CAST(strftime('%s', 'now') AS INTEGER) * 1000000
    WHERE NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.id = keys.id);
CREATE INDEX keys_id ON keys (id);
CREATE INDEX keys_gone ON keys (gone) WHERE gone IS NOT NULL;

-- When a worker's last session ended; unset while it is open.
ALTER TABLE sessions ADD COLUMN ended INTEGER;
UPDATE sessions SET ended = CAST(strftime('%s', 'now') AS INTEGER) * 1000000 WHERE NOT open;
CREATE INDEX sessions_ended ON sessions (ended) WHERE ended IS NOT NULL;
