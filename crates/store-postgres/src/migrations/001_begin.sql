-- Identity of the store: clients find out that a control plane has another one.
CREATE TABLE store (one boolean PRIMARY KEY DEFAULT true CHECK (one), id uuid NOT NULL DEFAULT gen_random_uuid());
INSERT INTO store DEFAULT VALUES;

-- Control planes that hold or seek a shard. A lease ends by the database's clock.
CREATE TABLE replicas (
    id      uuid        PRIMARY KEY,
    name    text        NOT NULL,
    version text        NOT NULL,
    -- Where other control planes reach it, as HOST:PORT; empty if they do not.
    address text        NOT NULL,
    expires timestamptz NOT NULL
);

-- A shard has one owner. Its epoch grows with each change of the owner, and with each new connection of it.
CREATE TABLE shards (
    id    integer PRIMARY KEY,
    epoch bigint  NOT NULL,
    owner uuid,
    -- Times in which no worker could take a task (a MessagePack list), which queue timeouts do not count.
    away  bytea
);
INSERT INTO shards (id, epoch) VALUES (0, 0);

-- The last commits of each shard. The row of the shard is locked by a commit and not updated: under a long snapshot, such as
-- that of a backup, each commit would have to pass all earlier versions of it.
CREATE TABLE commits (
    shard      integer NOT NULL,
    revision   bigint  NOT NULL,
    last_route integer NOT NULL,
    written_at bigint,
    PRIMARY KEY (shard, revision)
);
INSERT INTO commits (shard, revision, last_route) VALUES (0, 0, 0);

-- What is looked up of a task: the columns that change, and the record itself. A record is keyed by the revision of its
-- creation.
CREATE TABLE tasks (
    shard     integer  NOT NULL,
    key       bigint   NOT NULL,
    id        uuid     NOT NULL,
    namespace text     NOT NULL COLLATE "C",
    state     smallint NOT NULL,
    route     integer  NOT NULL,
    rank      bigint   NOT NULL,
    -- Of a task that is not on a worker; the writer has the others in memory.
    due       bigint,
    ended     bigint,
    record    bytea    NOT NULL,
    PRIMARY KEY (shard, key)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
-- 2 is QUEUED. Only ready tasks are in this index: it is as small as the queue.
CREATE INDEX tasks_ready ON tasks (shard, route, rank, key) WHERE state = 2;
CREATE INDEX tasks_due ON tasks (shard, due, key) WHERE due IS NOT NULL;
CREATE INDEX tasks_ended ON tasks (shard, ended, key) WHERE ended IS NOT NULL;
-- 6 is SUCCEEDED, the state of most tasks: those are found by their namespace.
CREATE INDEX tasks_state ON tasks (shard, state, key) WHERE state <> 6;
CREATE INDEX tasks_namespace_state ON tasks (shard, namespace, state, key) WHERE state <> 6;

-- What never changes of a task. In a table of its own, so that a change of a task's state adds nothing to the indexes of its id
-- and its namespace.
CREATE TABLE specs (
    shard     integer NOT NULL,
    key       bigint  NOT NULL,
    id        uuid    NOT NULL,
    namespace text    NOT NULL COLLATE "C",
    payload   bytea   NOT NULL,
    -- Place of the task in the workflow that created it.
    workflow  bigint,
    step      bigint,
    round     bigint,
    item      bigint,
    PRIMARY KEY (shard, key)
);
CREATE UNIQUE INDEX specs_id ON specs (shard, namespace, id);
CREATE INDEX specs_step ON specs (shard, workflow, step, round, item) WHERE workflow IS NOT NULL;
CREATE INDEX specs_namespace ON specs (shard, namespace, key);

CREATE TABLE results (shard integer NOT NULL, key bigint NOT NULL, body bytea NOT NULL, PRIMARY KEY (shard, key));
CREATE TABLE secrets (shard integer NOT NULL, key bigint NOT NULL, body bytea NOT NULL, PRIMARY KEY (shard, key));
-- Lists of the artifacts of attempts, and of the input of a task, with attempt 0.
CREATE TABLE artifacts (
    shard integer NOT NULL, task bigint NOT NULL, attempt bigint NOT NULL, list bytea NOT NULL,
    PRIMARY KEY (shard, task, attempt)
);
-- What one commit added to one task's log is one row.
CREATE TABLE events (
    shard integer NOT NULL, revision bigint NOT NULL, task bigint NOT NULL, first bigint NOT NULL, body bytea NOT NULL,
    PRIMARY KEY (shard, revision)
);
CREATE INDEX events_task ON events (shard, task, first);

CREATE TABLE routes (shard integer NOT NULL, id integer NOT NULL, route text NOT NULL, PRIMARY KEY (shard, id));
CREATE TABLE aliases (
    shard integer NOT NULL, namespace text NOT NULL COLLATE "C", alias text NOT NULL COLLATE "C", task bigint NOT NULL,
    PRIMARY KEY (shard, namespace, alias)
);
-- Idempotency keys outlive their tasks for a limited time.
CREATE TABLE idempotency_keys (
    shard integer NOT NULL, namespace text NOT NULL COLLATE "C", key text NOT NULL COLLATE "C", id uuid NOT NULL,
    -- The task, and the time at which it was removed, in microseconds.
    task bigint NOT NULL, orphaned bigint,
    PRIMARY KEY (shard, namespace, key)
);
CREATE INDEX idempotency_keys_task ON idempotency_keys (shard, task);
CREATE INDEX idempotency_keys_orphaned ON idempotency_keys (shard, orphaned, namespace, key) WHERE orphaned IS NOT NULL;
CREATE TABLE waits (
    shard integer NOT NULL, namespace text NOT NULL COLLATE "C", key text NOT NULL COLLATE "C", waiter bigint NOT NULL,
    PRIMARY KEY (shard, namespace, key, waiter)
);
-- A task, and one that needs it: from the creation of the second to its end, so that the first is not removed before.
CREATE TABLE edges (
    shard integer NOT NULL, task bigint NOT NULL, dependent bigint NOT NULL, PRIMARY KEY (shard, task, dependent)
);
CREATE INDEX edges_dependent ON edges (shard, dependent);
-- What commands have left for later commits.
CREATE TABLE follow_ups (shard integer NOT NULL, number bigint NOT NULL, record bytea NOT NULL, PRIMARY KEY (shard, number));

CREATE TABLE agents (
    shard integer NOT NULL, namespace text NOT NULL COLLATE "C", name text NOT NULL COLLATE "C", record bytea NOT NULL,
    PRIMARY KEY (shard, namespace, name)
);
-- One row a worker; its epoch grows with each session.
CREATE TABLE sessions (
    shard integer NOT NULL, namespace text NOT NULL COLLATE "C", worker text NOT NULL COLLATE "C",
    epoch bigint NOT NULL, open boolean NOT NULL,
    -- When the last session ended, in microseconds.
    ended bigint,
    record bytea NOT NULL,
    PRIMARY KEY (shard, namespace, worker)
);
CREATE INDEX sessions_ended ON sessions (shard, ended, namespace, worker) WHERE ended IS NOT NULL;
-- Model credentials that were limited or rejected, and how long their tasks wait.
CREATE TABLE cool_downs (
    shard integer NOT NULL, namespace text NOT NULL COLLATE "C", credential text NOT NULL COLLATE "C", record bytea NOT NULL,
    PRIMARY KEY (shard, namespace, credential)
);
CREATE TABLE threads (
    shard integer NOT NULL, namespace text NOT NULL COLLATE "C", name text NOT NULL COLLATE "C",
    -- When it was last used, in microseconds, if all of its tasks have ended.
    idle bigint,
    record bytea NOT NULL,
    PRIMARY KEY (shard, namespace, name)
);
CREATE INDEX threads_idle ON threads (shard, idle, namespace, name) WHERE idle IS NOT NULL;
-- Books of agents and namespaces; the agent of the books of a namespace is empty.
CREATE TABLE accounts (
    shard integer NOT NULL, namespace text NOT NULL COLLATE "C", agent text NOT NULL COLLATE "C", record bytea NOT NULL,
    PRIMARY KEY (shard, namespace, agent)
);
-- Named, versioned records of low rate, such as schedules.
CREATE TABLE documents (
    shard integer NOT NULL, kind text NOT NULL COLLATE "C", namespace text NOT NULL COLLATE "C", name text NOT NULL COLLATE "C",
    record bytea NOT NULL,
    PRIMARY KEY (shard, kind, namespace, name)
);

-- Workflows and their steps. Keys of workflows are from the same sequence as those of tasks.
CREATE TABLE workflows (
    shard       integer  NOT NULL,
    key         bigint   NOT NULL,
    id          uuid     NOT NULL,
    namespace   text     NOT NULL COLLATE "C",
    alias       text     COLLATE "C",
    -- Idempotency key, kept as long as the workflow.
    idempotency text     COLLATE "C",
    state       smallint NOT NULL,
    due         bigint,
    -- Until its removal begins.
    ended       bigint,
    record      bytea    NOT NULL,
    PRIMARY KEY (shard, key)
);
CREATE UNIQUE INDEX workflows_id ON workflows (shard, namespace, id);
CREATE INDEX workflows_alias ON workflows (shard, namespace, alias, key) WHERE alias IS NOT NULL;
CREATE UNIQUE INDEX workflows_idempotency ON workflows (shard, namespace, idempotency) WHERE idempotency IS NOT NULL;
CREATE INDEX workflows_due ON workflows (shard, due, key) WHERE due IS NOT NULL;
CREATE INDEX workflows_ended ON workflows (shard, ended, key) WHERE ended IS NOT NULL;
-- 5 is ENDING: their outputs are evaluated. 6 and above have ended.
CREATE INDEX workflows_ending ON workflows (shard, key) WHERE state = 5;
CREATE INDEX workflows_unended ON workflows (shard, key) WHERE state < 6;
CREATE TABLE workflow_specs (shard integer NOT NULL, workflow bigint NOT NULL, body bytea NOT NULL, PRIMARY KEY (shard, workflow));

CREATE TABLE steps (
    shard    integer  NOT NULL,
    workflow bigint   NOT NULL,
    step     bigint   NOT NULL,
    state    smallint NOT NULL,
    -- Whether it continues only by a command of the driver.
    driven   boolean  NOT NULL,
    due      bigint,
    record   bytea    NOT NULL,
    PRIMARY KEY (shard, workflow, step)
);
-- 2 is HELD; 3, 4 and 5 are READY, RUNNING and ENDING.
CREATE INDEX steps_held ON steps (shard, workflow, step) WHERE state = 2;
CREATE INDEX steps_active ON steps (shard, workflow, step) WHERE state IN (3, 4, 5);
CREATE INDEX steps_driven ON steps (shard, workflow, step) WHERE driven;
CREATE INDEX steps_due ON steps (shard, due, workflow, step) WHERE due IS NOT NULL;
CREATE TABLE step_specs (
    shard integer NOT NULL, workflow bigint NOT NULL, step bigint NOT NULL, body bytea NOT NULL,
    PRIMARY KEY (shard, workflow, step)
);
-- Outputs of steps, and of the workflow itself under the largest number.
CREATE TABLE step_outputs (
    shard integer NOT NULL, workflow bigint NOT NULL, step bigint NOT NULL, body bytea NOT NULL,
    PRIMARY KEY (shard, workflow, step)
);
-- A step, one that needs it, and whether that runs although the first has not succeeded.
CREATE TABLE step_edges (
    shard integer NOT NULL, workflow bigint NOT NULL, step bigint NOT NULL, dependent bigint NOT NULL, continues boolean NOT NULL,
    PRIMARY KEY (shard, workflow, step, dependent)
);

-- The first statement of each commit. It fails unless the writer owns the shard and has seen its last commit: statements that
-- are sent behind it fail as well then. A statement that only changed no row would not stop them.
CREATE FUNCTION advance(
    in_shard integer, in_epoch bigint, in_before bigint, in_revision bigint, in_route integer, in_at bigint, in_away bytea
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    last bigint;
BEGIN
    PERFORM 1 FROM shards WHERE id = in_shard AND epoch = in_epoch FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'shard % has another owner', in_shard USING ERRCODE = 'RT001';
    END IF;
    SELECT revision INTO last FROM commits WHERE shard = in_shard ORDER BY revision DESC LIMIT 1;
    IF last IS DISTINCT FROM in_before THEN
        RAISE EXCEPTION 'shard % has revision % instead of %', in_shard, last, in_before USING ERRCODE = 'RT002';
    END IF;
    INSERT INTO commits (shard, revision, last_route, written_at) VALUES (in_shard, in_revision, in_route, in_at);
    IF in_away IS NOT NULL THEN
        UPDATE shards SET away = in_away WHERE id = in_shard;
    END IF;
END $$;

-- Takes a shard whose owner has released it or lost its lease. Returns the owner and the rest of its lease otherwise.
CREATE FUNCTION acquire(in_shard integer, in_replica uuid)
RETURNS TABLE (new_epoch bigint, owner_name text, owner_address text, left_ms bigint) LANGUAGE plpgsql AS $$
DECLARE
    holder uuid;
    lease timestamptz;
BEGIN
    SELECT owner INTO holder FROM shards WHERE id = in_shard FOR UPDATE;
    -- Locked, so that it is not renewed meanwhile.
    SELECT name, address, expires INTO owner_name, owner_address, lease FROM replicas WHERE id = holder FOR UPDATE;
    IF FOUND AND lease > clock_timestamp() THEN
        left_ms := ceil(extract(epoch FROM lease - clock_timestamp()) * 1000);
        RETURN NEXT;
        RETURN;
    END IF;
    UPDATE shards SET epoch = epoch + 1, owner = in_replica WHERE id = in_shard RETURNING epoch INTO new_epoch;
    DELETE FROM replicas WHERE id = holder;
    RETURN NEXT;
END $$;
