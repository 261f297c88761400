-- Members of concurrency groups: steps, and workflows under the largest number as their step.
CREATE TABLE group_members (
    namespace TEXT    NOT NULL,
    -- After the kind of its members.
    name      TEXT    NOT NULL,
    holds     INTEGER NOT NULL,
    workflow  INTEGER NOT NULL,
    step      INTEGER NOT NULL,
    -- Members that may hold the group when this one is admitted.
    capacity  INTEGER NOT NULL,
    -- Revision with which it joined.
    joined    INTEGER NOT NULL,
    PRIMARY KEY (namespace, name, holds, workflow, step)
) WITHOUT ROWID;
