-- Words of tasks, and the revision that they are complete up to. Derived from the tasks, and built again when it is missing: no part of
-- exports. Words have no positions.
CREATE TABLE search_tasks (
    shard integer NOT NULL,
    key bigint NOT NULL,
    words tsvector NOT NULL,
    PRIMARY KEY (shard, key)
);
CREATE INDEX search_tasks_words ON search_tasks USING gin (words);
CREATE TABLE search_position (
    shard integer PRIMARY KEY,
    version integer NOT NULL,
    revision bigint NOT NULL
);
