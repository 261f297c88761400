-- Members of concurrency groups: steps, and workflows under the largest number as their step.
CREATE TABLE group_members (
    shard     integer NOT NULL,
    namespace text    NOT NULL,
    -- After the kind of its members.
    name      text    NOT NULL,
    holds     boolean NOT NULL,
    workflow  bigint  NOT NULL,
    step      bigint  NOT NULL,
    -- Members that may hold the group when this one is admitted.
    capacity  bigint  NOT NULL,
    -- Revision with which it joined.
    joined    bigint  NOT NULL,
    PRIMARY KEY (shard, namespace, name, holds, workflow, step)
);
