-- The state of each shard: SQLite has one. The epoch grows with each opening, and a write names the revision that it
-- follows, so that an earlier writer changes nothing.
CREATE TABLE shards (
    id         INTEGER NOT NULL PRIMARY KEY,
    epoch      INTEGER NOT NULL,
    revision   INTEGER NOT NULL,
    last_route INTEGER NOT NULL
);
INSERT INTO shards (id, epoch, revision, last_route) VALUES (
    0,
    0,
    max((SELECT revision FROM floor), coalesce((SELECT max(revision) FROM events), 0)),
    coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'routes'), (SELECT max(id) FROM routes), 0)
);
DROP TABLE floor;

-- 255 is the number of no state: records that could not be decoded, looked at again by each opening.
CREATE INDEX tasks_undecodable ON tasks (state) WHERE state = 255;
