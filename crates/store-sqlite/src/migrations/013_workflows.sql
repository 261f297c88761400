-- Workflows and their steps. Keys of workflows are from the same sequence as those of tasks.
CREATE TABLE workflows (
    key         INTEGER PRIMARY KEY,
    id          BLOB    NOT NULL,
    namespace   TEXT    NOT NULL,
    alias       TEXT,
    -- Idempotency key, kept as long as the workflow.
    idempotency TEXT,
    state       INTEGER NOT NULL,
    due         INTEGER,
    -- Until its removal begins.
    ended       INTEGER,
    record      BLOB    NOT NULL
);
CREATE UNIQUE INDEX workflows_id ON workflows (namespace, id);
CREATE INDEX workflows_alias ON workflows (namespace, alias) WHERE alias IS NOT NULL;
CREATE UNIQUE INDEX workflows_idempotency ON workflows (namespace, idempotency) WHERE idempotency IS NOT NULL;
CREATE INDEX workflows_due ON workflows (due) WHERE due IS NOT NULL;
CREATE INDEX workflows_ended ON workflows (ended) WHERE ended IS NOT NULL;
-- 5 is ENDING: their outputs are evaluated. 6 and above have ended.
CREATE INDEX workflows_ending ON workflows (key) WHERE state = 5;
CREATE INDEX workflows_unended ON workflows (key) WHERE state < 6;
CREATE TABLE workflow_specs (workflow INTEGER PRIMARY KEY, body BLOB NOT NULL);

CREATE TABLE steps (
    workflow INTEGER NOT NULL,
    step     INTEGER NOT NULL,
    state    INTEGER NOT NULL,
    -- Whether it continues only by a command of the driver.
    driven   INTEGER NOT NULL,
    due      INTEGER,
    record   BLOB    NOT NULL,
    PRIMARY KEY (workflow, step)
) WITHOUT ROWID;
-- 2 is HELD; 3, 4 and 5 are READY, RUNNING and ENDING.
CREATE INDEX steps_held ON steps (workflow, step) WHERE state = 2;
CREATE INDEX steps_active ON steps (workflow, step) WHERE state IN (3, 4, 5);
CREATE INDEX steps_driven ON steps (workflow, step) WHERE driven = 1;
CREATE INDEX steps_due ON steps (due) WHERE due IS NOT NULL;
CREATE TABLE step_specs (
    workflow INTEGER NOT NULL, step INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (workflow, step)
) WITHOUT ROWID;
-- Outputs of steps, and of the workflow itself under the largest number.
CREATE TABLE step_outputs (
    workflow INTEGER NOT NULL, step INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (workflow, step)
) WITHOUT ROWID;
-- A step, one that needs it, and whether that runs although the first has not succeeded.
CREATE TABLE step_edges (
    workflow INTEGER NOT NULL, step INTEGER NOT NULL, dependent INTEGER NOT NULL, continues INTEGER NOT NULL,
    PRIMARY KEY (workflow, step, dependent)
) WITHOUT ROWID;

-- Place of a task in the workflow that created it.
ALTER TABLE tasks ADD COLUMN workflow INTEGER;
ALTER TABLE tasks ADD COLUMN step INTEGER;
ALTER TABLE tasks ADD COLUMN round INTEGER;
ALTER TABLE tasks ADD COLUMN item INTEGER;
CREATE INDEX tasks_step ON tasks (workflow, step, round, item) WHERE workflow IS NOT NULL;
