-- Threads of tasks. The records have the rest.
CREATE TABLE threads (
    namespace TEXT NOT NULL, name TEXT NOT NULL,
    -- When it was last used, in microseconds, if all of its tasks have ended.
    idle INTEGER,
    record BLOB NOT NULL,
    PRIMARY KEY (namespace, name)
) WITHOUT ROWID;
CREATE INDEX threads_idle ON threads (idle) WHERE idle IS NOT NULL;
