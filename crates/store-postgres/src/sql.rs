//! Every SQL statement, so that a test can check the plan of each. The first parameter of most is the shard.

#[macro_use]
mod macros;
mod lease;

pub(crate) use self::lease::*;

statements! {
    /// Statements of the writer: none may scan a table.
    WRITER:
    ADVANCE = "SELECT advance($1, $2, $3, $4, $5, $6, $7)";
    CONFIRM = "SELECT 1 FROM shards WHERE id = $1 AND epoch = $2";
    INSERT_TASKS = "WITH new AS MATERIALIZED (
            SELECT * FROM unnest($2::int8[], $3::uuid[], $4::text[], $5::int2[], $6::int4[], $7::int8[], $8::int8[], $9::int8[],
                $10::bytea[], $11::bytea[], $12::int8[], $13::int8[], $14::int8[], $15::int8[])
            AS new (key, id, namespace, state, route, rank, due, ended, record, payload, workflow, step, round, item)),
        spec AS (INSERT INTO specs (shard, key, id, namespace, payload, workflow, step, round, item)
            SELECT $1, key, id, namespace, payload, workflow, step, round, item FROM new)
        INSERT INTO tasks (shard, key, id, namespace, state, route, rank, due, ended, record)
        SELECT $1, key, id, namespace, state, route, rank, due, ended, record FROM new";
    UPDATE_TASKS = update!("tasks" from "$2::int8[], $3::int2[], $4::int4[], $5::int8[], $6::int8[], $7::int8[], $8::bytea[]"
        as "key, state, route, rank, due, ended, record", "key",
        set "state = new.state, route = new.route, rank = new.rank, due = new.due, ended = new.ended, record = new.record");
    // A record that cannot be decoded is kept, but no longer found by its state or deadline: no state has this number.
    SET_ASIDE = update!("tasks" from "$2::int8[]" as "key", "key", set "state = 255, due = NULL, ended = NULL");
    DELETE_TASKS = delete!("tasks" by "key");
    DELETE_SPECS = delete!("specs" by "key");
    DELETE_RESULTS = delete!("results" by "key");
    DELETE_SECRETS = delete!("secrets" by "key");
    DELETE_ARTIFACTS = delete!("artifacts" by "task");
    DELETE_EVENTS = delete!("events" by "task");
    LEAVE_KEYS = update!("idempotency_keys" from "$2::int8[]" as "task", "task", set "orphaned = $3");
    DELETE_ALIASES = delete!("aliases" by "$2::text[], $3::text[], $4::int8[]" as "namespace, alias, task",
        "r.namespace = old.namespace AND r.task = old.task", "alias");
    DISCARD_ALIASES = "DELETE FROM aliases WHERE shard = $1 AND task = ANY ($2)";
    DELETE_DEPENDENTS = delete!("edges" by "dependent");
    DELETE_ROUTES = delete!("routes" by "$2::int4[]" as "id", "true", "id");
    DELETE_KEYS = delete!("idempotency_keys" by "$2::text[], $3::text[]" as "namespace, key",
        "r.namespace = old.namespace", "key");
    DELETE_THREADS = delete!("threads" by "$2::text[], $3::text[]" as "namespace, name",
        "r.namespace = old.namespace", "name");
    DELETE_WAITS = delete!("waits" by "$2::text[], $3::text[], $4::int8[]" as "namespace, key, waiter",
        "r.namespace = old.namespace AND r.key = old.key", "waiter");
    DELETE_AGENTS = delete!("agents" by "$2::text[], $3::text[]" as "namespace, name",
        "r.namespace = old.namespace", "name");
    DELETE_COOL_DOWNS = delete!("cool_downs" by "$2::text[], $3::text[]" as "namespace, credential",
        "r.namespace = old.namespace", "credential");
    DELETE_SESSIONS = delete!("sessions" by "$2::text[], $3::text[]" as "namespace, worker",
        "r.namespace = old.namespace", "worker");
    DELETE_FOLLOW_UPS = delete!("follow_ups" by "number");
    PUT_RESULTS = upsert!("results" ("key", "body") = "$2::int8[], $3::bytea[]", set "body = excluded.body");
    PUT_SECRETS = upsert!("secrets" ("key", "body") = "$2::int8[], $3::bytea[]", set "body = excluded.body");
    PUT_ARTIFACTS = upsert!("artifacts" ("task, attempt", "list") = "$2::int8[], $3::int8[], $4::bytea[]",
        set "list = excluded.list");
    APPEND = "INSERT INTO events (shard, revision, task, first, body)
        SELECT $1, new.* FROM unnest($2::int8[], $3::int8[], $4::int8[], $5::bytea[]) AS new";
    INSERT_ROUTES = "INSERT INTO routes (shard, id, route) SELECT $1, new.* FROM unnest($2::int4[], $3::text[]) AS new";
    PUT_ALIASES = upsert!("aliases" ("namespace, alias", "task") = "$2::text[], $3::text[], $4::int8[]",
        set "task = excluded.task");
    INSERT_KEYS = "INSERT INTO idempotency_keys (shard, namespace, key, id, task)
        SELECT $1, new.* FROM unnest($2::text[], $3::text[], $4::uuid[], $5::int8[]) AS new";
    PUT_THREADS = upsert!("threads" ("namespace, name", "idle, record") = "$2::text[], $3::text[], $4::int8[], $5::bytea[]",
        set "idle = excluded.idle, record = excluded.record");
    PUT_WAITS = "INSERT INTO waits (shard, namespace, key, waiter)
        SELECT $1, new.* FROM unnest($2::text[], $3::text[], $4::int8[]) AS new ON CONFLICT DO NOTHING";
    PUT_EDGES = "INSERT INTO edges (shard, task, dependent)
        SELECT $1, new.* FROM unnest($2::int8[], $3::int8[]) AS new ON CONFLICT DO NOTHING";
    PUT_FOLLOW_UPS = upsert!("follow_ups" ("number", "record") = "$2::int8[], $3::bytea[]", set "record = excluded.record");
    PUT_AGENTS = upsert!("agents" ("namespace, name", "record") = "$2::text[], $3::text[], $4::bytea[]",
        set "record = excluded.record");
    PUT_COOL_DOWNS = upsert!("cool_downs" ("namespace, credential", "record") = "$2::text[], $3::text[], $4::bytea[]",
        set "record = excluded.record");
    PUT_ACCOUNTS = upsert!("accounts" ("namespace, agent", "record") = "$2::text[], $3::text[], $4::bytea[]", set "record = excluded.record");
    PUT_DOCUMENTS = upsert!("documents" ("kind, namespace, name", "record")
        = "$2::text[], $3::text[], $4::text[], $5::bytea[]", set "record = excluded.record");
    DELETE_DOCUMENTS = delete!("documents" by "$2::text[], $3::text[], $4::text[]" as "kind, namespace, name",
        "r.kind = old.kind AND r.namespace = old.namespace", "name");
    PUT_SESSIONS = upsert!("sessions" ("namespace, worker", "epoch, open, ended, record")
        = "$2::text[], $3::text[], $4::int8[], $5::bool[], $6::int8[], $7::bytea[]",
        set "epoch = excluded.epoch, open = excluded.open, ended = excluded.ended, record = excluded.record");
    // From a bound below which no task is due: entries of earlier versions stay in the index as long as a snapshot lasts.
    NEXT_DUE = "SELECT due FROM tasks WHERE shard = $1 AND due >= $2 ORDER BY due LIMIT 1";

    LOAD_IDS = concat!("SELECT n, ", task_columns!(), " FROM unnest($2::text[], $3::uuid[]) WITH ORDINALITY AS want (namespace, id, n)
        CROSS JOIN LATERAL ", one!("key" of "specs", "r.namespace = want.namespace", "id" = "want.id"), " AS s", task_at!("s.key"), "ORDER BY n");
    LOAD_TASKS = concat!("SELECT n, ", task_columns!(), " FROM unnest($2::int8[]) WITH ORDINALITY AS want (key, n)", task_at!("want.key"), "ORDER BY n");
    // Up to a number of bytes: no more values are read.
    LOAD_PAYLOADS = concat!("SELECT key, payload FROM (SELECT n, want.key, payload, sum(octet_length(payload)) OVER (ORDER BY n) - octet_length(payload) AS before
            FROM unnest($2::int8[]) WITH ORDINALITY AS want (key, n)
            CROSS JOIN LATERAL ", one!("payload" of "specs", "key" = "want.key"), " AS s) AS t WHERE before < $3 ORDER BY n");
    LOAD_RESULTS = concat!("SELECT want.key, body FROM unnest($2::int8[]) AS want (key)
        CROSS JOIN LATERAL ", one!("body" of "results", "key" = "want.key"), " AS t ORDER BY want.key");
    LOAD_SECRETS = concat!("SELECT want.key, body FROM unnest($2::int8[]) AS want (key)
        CROSS JOIN LATERAL ", one!("body" of "secrets", "key" = "want.key"), " AS t ORDER BY want.key");
    LOAD_WAITING = concat!("SELECT want.key, route FROM unnest($2::int8[]) AS want (key)
        CROSS JOIN LATERAL ", one!("route, state" of "tasks", "key" = "want.key"), " AS t
        WHERE state IN (1, 2) ORDER BY want.key");
    LOAD_DEPENDENCIES = concat!("SELECT n, t.key, t.id, t.record
        FROM unnest($2::text[], $3::uuid[]) WITH ORDINALITY AS want (namespace, id, n)
        CROSS JOIN LATERAL ", one!("key" of "specs", "r.namespace = want.namespace", "id" = "want.id"), " AS s", task_at!("s.key"), "ORDER BY n");
    LOAD_ALIASES = concat!("SELECT n, t.key, t.id, t.record
        FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS want (namespace, alias, n)
        CROSS JOIN LATERAL ", one!("task" of "aliases", "r.namespace = want.namespace", "alias" = "want.alias"), " AS a",
        task_at!("a.task"), "ORDER BY n");
    LOAD_KEYS = concat!("SELECT n, ", task_columns!(), ", keys.id
        FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS want (namespace, key, n)
        CROSS JOIN LATERAL ", one!("id, task" of "idempotency_keys", "r.namespace = want.namespace", "key" = "want.key"), " AS keys
        LEFT JOIN LATERAL ", one!("key, id, record" of "tasks", "key" = "keys.task"), " AS t ON true ORDER BY n");
    LOAD_THREADS = concat!("SELECT n, t.record FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS want (namespace, name, n)
        CROSS JOIN LATERAL ", one!("record" of "threads", "r.namespace = want.namespace", "name" = "want.name"), " AS t ORDER BY n");
    LOAD_SESSIONS = concat!("SELECT n, t.record, t.epoch FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS want (namespace, worker, n)
        CROSS JOIN LATERAL ", one!("record, epoch" of "sessions", "r.namespace = want.namespace", "worker" = "want.worker"), " AS t ORDER BY n");
    LOAD_DOCUMENTS = concat!("SELECT n, t.record FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS want (kind, namespace, name, n)
        CROSS JOIN LATERAL ", one!("record" of "documents", "r.kind = want.kind AND r.namespace = want.namespace", "name" = "want.name"),
        " AS t ORDER BY n");
    LOAD_DEPENDENTS = concat!("SELECT n, ", task_columns!(), "
        FROM unnest($2::int8[], $3::int8[], $4::int8[], $5::int8[]) WITH ORDINALITY AS page (task, after, until, size, n)
        CROSS JOIN LATERAL (SELECT t.key, t.id, t.record FROM edges", task_at!("edges.dependent"),
        "WHERE edges.shard = $1 AND (edges.task, dependent) > (page.task, page.after) AND (edges.task, dependent) <= (page.task, page.until)
            ORDER BY edges.task, dependent LIMIT page.size) AS t ORDER BY n, t.key");
    LOAD_WAITS = "SELECT n, t.waiter FROM unnest($2::text[], $3::text[], $4::int8[]) WITH ORDINALITY AS page (namespace, key, size, n)
        CROSS JOIN LATERAL (SELECT waiter FROM waits WHERE waits.shard = $1 AND waits.namespace = page.namespace
            AND waits.key = page.key ORDER BY waiter LIMIT page.size) AS t ORDER BY n, t.waiter";
    LOAD_READY = concat!("SELECT n, ", task_columns!(), ", t.rank,
            CASE WHEN sum(t.bytes) OVER (ORDER BY n, t.rank, t.key) - t.bytes < $7
                THEN ", one!("payload" of "specs", "key" = "t.key"), " END
        FROM unnest($2::int4[], $3::int8[], $4::int8[], $5::int8[], $6::bool[]) WITH ORDINALITY
            AS page (route, after_rank, after_key, size, payloads, n)
        CROSS JOIN LATERAL (SELECT tasks.key, tasks.id, record, rank,
                CASE WHEN page.payloads THEN ", one!("octet_length(payload)" of "specs", "key" = "tasks.key"), " END AS bytes
            FROM tasks WHERE shard = $1 AND state = 2 AND route = page.route AND (rank, key) > (page.after_rank, page.after_key)
            ORDER BY rank, key LIMIT page.size) AS t ORDER BY n, t.rank, t.key");
    LOAD_DUE = concat!("SELECT 1::int8, ", task_columns!(), " FROM tasks AS t
        WHERE shard = $1 AND due >= $2 AND due <= $3 ORDER BY due, key LIMIT $4");
    // The lengths of values are read without the values.
    ENDED_BEFORE = concat!("SELECT t.ended, ", task_columns!(), ", log.rows, log.bytes FROM tasks AS t
        CROSS JOIN LATERAL (SELECT count(*) AS rows, coalesce(sum(size), 0)::int8 AS bytes FROM
            (SELECT octet_length(body) AS size FROM events WHERE events.shard = $1 AND events.task = t.key ORDER BY first LIMIT $6) AS one) AS log
        WHERE t.shard = $1 AND t.ended < $2 AND (t.ended, t.key) > ($3, $4) ORDER BY t.ended, t.key LIMIT $5");
    LOG_SIZES = "SELECT log.rows, log.bytes FROM unnest($2::int8[]) WITH ORDINALITY AS want (task, n)
        CROSS JOIN LATERAL (SELECT count(*) AS rows, coalesce(sum(size), 0)::int8 AS bytes FROM
            (SELECT octet_length(body) AS size FROM events WHERE events.shard = $1 AND events.task = want.task ORDER BY first LIMIT $3) AS one) AS log
        ORDER BY n";
    ORPHANED_KEYS = "SELECT namespace, key, orphaned FROM idempotency_keys WHERE shard = $1 AND orphaned < $2
        AND (orphaned, namespace, key) > ($3, $4, $5) ORDER BY orphaned, namespace, key LIMIT $6";
    IDLE_THREADS = "SELECT namespace, name, record, idle FROM threads WHERE shard = $1 AND idle < $2
        AND (idle, namespace, name) > ($3, $4, $5) ORDER BY idle, namespace, name LIMIT $6";
    LEFT_SESSIONS = "SELECT namespace, worker, ended FROM sessions WHERE shard = $1 AND ended < $2
        AND (ended, namespace, worker) > ($3, $4, $5) ORDER BY ended, namespace, worker LIMIT $6";
}

statements! {
    /// Statements of readers: none may scan a table.
    READER:
    TASK_BY_ID = concat!("SELECT 1::int8, ", task_columns!(), " FROM ", one!("key" of "specs", "r.namespace = $2", "id" = "$3"), " AS s", task_at!("s.key"));
    TASK_BY_ALIAS = concat!("SELECT 1::int8, ", task_columns!(), " FROM ", one!("task" of "aliases", "r.namespace = $2", "alias" = "$3"), " AS a",
        task_at!("a.task"));
    DOCUMENT = "SELECT record FROM documents WHERE shard = $1 AND kind = $2 AND namespace = $3 AND name = $4";
    DOCUMENTS = "SELECT namespace, name, record FROM documents WHERE shard = $1 AND kind = $2 AND (namespace, name) > ($3, $4)
        ORDER BY namespace, name LIMIT $5";
    DOCUMENTS_NAMESPACE = "SELECT namespace, name, record FROM documents
        WHERE shard = $1 AND kind = $2 AND namespace = $3 AND name > $4 ORDER BY name LIMIT $5";
    THREAD = "SELECT record FROM threads WHERE shard = $1 AND namespace = $2 AND name = $3";
    THREADS = "SELECT namespace, name, record FROM threads WHERE shard = $1 AND (namespace, name) > ($2, $3) ORDER BY namespace, name LIMIT $4";
    RESULTS = concat!("SELECT key, body FROM (SELECT n, want.key, body, sum(octet_length(body)) OVER (ORDER BY n) - octet_length(body) AS before
        FROM unnest($2::int8[]) WITH ORDINALITY AS want (key, n)
        CROSS JOIN LATERAL ", one!("body" of "results", "key" = "want.key"), " AS r) AS t WHERE before < $3 ORDER BY n");
    SEALED = concat!("SELECT secrets.key, namespace, id, body FROM secrets
        CROSS JOIN LATERAL ", one!("namespace, id" of "specs", "key" = "secrets.key"), " AS s
        WHERE secrets.shard = $1 AND secrets.key > $2 ORDER BY secrets.key LIMIT $3");
    ARTIFACTS = "SELECT task, attempt, list FROM artifacts WHERE shard = $1
        AND (task, attempt) >= ($2, $3) AND (task, attempt) <= ($4, $5) ORDER BY task, attempt LIMIT $6";
    // From the row that contains the wanted entry, up to a number of bytes.
    EVENTS = "SELECT first, body FROM (SELECT first, body, sum(octet_length(body)) OVER (ORDER BY first) - octet_length(body) AS before
            FROM events WHERE shard = $1 AND task = $2 AND first >=
                coalesce((SELECT max(first) FROM events WHERE shard = $1 AND task = $2 AND first <= $3), 0)
            ORDER BY first LIMIT $4) AS part WHERE before < $5 ORDER BY first";
    FEED = concat!("SELECT revision, t.key, t.record, body FROM
            (SELECT revision, task, body, sum(octet_length(body)) OVER (ORDER BY revision) - octet_length(body) AS before
            FROM events WHERE shard = $1 AND revision > $2 ORDER BY revision LIMIT $3) AS part",
        task_at!("part.task"), "WHERE before < $4 ORDER BY revision");
    // The last row of such a page, also if its task was removed.
    REVISION = "SELECT revision FROM commits WHERE shard = $1 ORDER BY revision DESC LIMIT 1";
    AHEAD = "SELECT count(*) FROM (SELECT rank FROM tasks WHERE shard = $1 AND state = 2 AND route = $2 AND rank < $3 ORDER BY rank OFFSET 0) AS t";
    PENDING = "SELECT count(*) FROM tasks WHERE shard = $1 AND state = 1 AND state <> 6";
    HEADS = "SELECT page.route, t.record FROM unnest($2::int4[]) WITH ORDINALITY AS page (route, n)
        CROSS JOIN LATERAL (SELECT record FROM tasks WHERE shard = $1 AND state = 2 AND tasks.route = page.route
            ORDER BY rank, key LIMIT 1) AS t ORDER BY n";
    LIST = "SELECT key, record FROM tasks WHERE shard = $1 AND key < $2 ORDER BY key DESC LIMIT $3";
    LIST_NAMESPACE = concat!("SELECT t.key, t.record FROM (SELECT key FROM specs
            WHERE shard = $1 AND namespace = $4 AND key < $2 ORDER BY key DESC LIMIT $3) AS s",
        task_at!("s.key"), "ORDER BY t.key DESC");
    LIST_STATES = "SELECT wanted.state, t.key FROM unnest($4::int2[]) AS wanted (state)
        CROSS JOIN LATERAL (SELECT key FROM tasks WHERE shard = $1 AND tasks.state = wanted.state AND state <> 6 AND key < $2
            ORDER BY key DESC LIMIT $3) AS t";
    LIST_NAMESPACE_STATES = "SELECT wanted.state, t.key FROM unnest($4::int2[]) AS wanted (state)
        CROSS JOIN LATERAL (SELECT key FROM tasks WHERE shard = $1 AND namespace = $5 AND tasks.state = wanted.state
            AND state <> 6 AND key < $2 ORDER BY key DESC LIMIT $3) AS t";
    REPLICAS = "SELECT name, version, address, id IS NOT DISTINCT FROM (SELECT owner FROM shards WHERE id = $1) AS owns,
            greatest(0, ceil(extract(epoch FROM expires - clock_timestamp()) * 1000))::int8
        FROM replicas WHERE id IN (SELECT owner FROM shards WHERE id = $1) OR expires > clock_timestamp()
        ORDER BY owns DESC, name, id LIMIT 100";
    LIST_KEYS = concat!("SELECT t.key, t.record FROM unnest($2::int8[]) AS want (key)", task_at!("want.key"), "ORDER BY t.key DESC");
}

statements! {
    /// Statements of the writer on workflows: none may scan a table.
    WORKFLOW_WRITER:
    INSERT_WORKFLOWS = "WITH new AS MATERIALIZED (
            SELECT * FROM unnest($2::int8[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::int2[], $8::int8[], $9::int8[],
                $10::bytea[], $11::bytea[])
            AS new (key, id, namespace, alias, idempotency, state, due, ended, record, spec)),
        spec AS (INSERT INTO workflow_specs (shard, workflow, body) SELECT $1, key, spec FROM new)
        INSERT INTO workflows (shard, key, id, namespace, alias, idempotency, state, due, ended, record)
        SELECT $1, key, id, namespace, alias, idempotency, state, due, ended, record FROM new";
    UPDATE_WORKFLOWS = update!("workflows" from "$2::int8[], $3::int2[], $4::int8[], $5::int8[], $6::bytea[]" as "key, state, due, ended, record", "key",
        set "state = new.state, due = new.due, ended = new.ended, record = new.record");
    INSERT_STEPS = "WITH new AS MATERIALIZED (
            SELECT * FROM unnest($2::int8[], $3::int8[], $4::int2[], $5::bool[], $6::int8[], $7::bytea[], $8::bytea[])
            AS new (workflow, step, state, driven, due, record, spec)),
        spec AS (INSERT INTO step_specs (shard, workflow, step, body) SELECT $1, workflow, step, spec FROM new)
        INSERT INTO steps (shard, workflow, step, state, driven, due, record)
        SELECT $1, workflow, step, state, driven, due, record FROM new";
    UPDATE_STEPS = update!("steps" from "$2::int8[], $3::int8[], $4::int2[], $5::bool[], $6::int8[], $7::bytea[]"
        as "workflow, step, state, driven, due, record", "r.workflow = new.workflow", "step",
        set "state = new.state, driven = new.driven, due = new.due, record = new.record");
    PUT_STEP_EDGES = "INSERT INTO step_edges (shard, workflow, step, dependent, continues)
        SELECT $1, new.* FROM unnest($2::int8[], $3::int8[], $4::int8[], $5::bool[]) AS new ON CONFLICT DO NOTHING";
    PUT_STEP_OUTPUTS = upsert!("step_outputs" ("workflow, step", "body") = "$2::int8[], $3::int8[], $4::bytea[]",
        set "body = excluded.body");
    DETACH_TASKS = update!("specs" from "$2::int8[]" as "key", "key", set "workflow = NULL, step = NULL, round = NULL, item = NULL");
    // What cannot be decoded is due, and expires, in three thousand years, in microseconds.
    SET_WORKFLOWS_ASIDE = update!("workflows" from "$2::int8[]" as "key", "key",
        set "due = old.due + 100000000000000000, ended = old.ended + 100000000000000000");
    SET_STEPS_ASIDE = update!("steps" from "$2::int8[], $3::int8[]" as "workflow, step", "r.workflow = new.workflow", "step",
        set "due = old.due + 100000000000000000");
    // At a start, that is taken back.
    RESTORE_DUE = "UPDATE workflows SET due = due - 100000000000000000 WHERE shard = $1 AND due > 100000000000000000";
    RESTORE_ENDED = "UPDATE workflows SET ended = ended - 100000000000000000 WHERE shard = $1 AND ended > 100000000000000000";
    RESTORE_STEPS = "UPDATE steps SET due = due - 100000000000000000 WHERE shard = $1 AND due > 100000000000000000";
    DELETE_WORKFLOWS = delete!("workflows" by "key");
    DELETE_WORKFLOW_SPECS = delete!("workflow_specs" by "workflow");
    DELETE_STEPS = delete!("steps" by "workflow");
    DELETE_STEP_SPECS = delete!("step_specs" by "workflow");
    DELETE_STEP_OUTPUTS = delete!("step_outputs" by "workflow");
    DELETE_STEP_EDGES = delete!("step_edges" by "workflow");
    DELETE_FIRST_OUTPUTS = delete!("step_outputs" by "$2::int8[], $3::int8[]" as "workflow, step", "r.workflow = old.workflow AND r.step <= old.step", "workflow");
    DELETE_FIRST_EDGES = delete!("step_edges" by "$2::int8[], $3::int8[], $4::int8[]" as "workflow, step, dependent",
        "r.workflow = old.workflow AND (r.step, r.dependent) <= (old.step, old.dependent)", "workflow");
    DELETE_FIRST_STEPS = delete!("steps" by "$2::int8[], $3::int8[]" as "workflow, step", "r.workflow = old.workflow AND r.step <= old.step", "workflow");
    DELETE_FIRST_SPECS = delete!("step_specs" by "$2::int8[], $3::int8[]" as "workflow, step", "r.workflow = old.workflow AND r.step <= old.step", "workflow");
    NEXT_WORKFLOW_DUE = "SELECT due FROM workflows WHERE shard = $1 AND due IS NOT NULL ORDER BY due LIMIT 1";
    NEXT_STEP_DUE = "SELECT due FROM steps WHERE shard = $1 AND due IS NOT NULL ORDER BY due LIMIT 1";

    LOAD_WORKFLOWS = concat!("SELECT t.key, t.record, t.id FROM unnest($2::int8[]) AS want (key)
        CROSS JOIN LATERAL ", one!("key, record, id" of "workflows", "key" = "want.key"), " AS t ORDER BY t.key");
    LOAD_WORKFLOW_IDS = concat!("SELECT t.key, t.record, t.id, n FROM unnest($2::text[], $3::uuid[]) WITH ORDINALITY AS want (namespace, id, n)
        CROSS JOIN LATERAL ", one!("key, record, id" of "workflows", "r.namespace = want.namespace", "id" = "want.id"), " AS t");
    LOAD_WORKFLOW_NAMES = concat!("SELECT n, t.key FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS want (namespace, name, n)
        CROSS JOIN LATERAL ", one!("key" of "workflows", "r.namespace = want.namespace", "idempotency" = "want.name"), " AS t ORDER BY n");
    LOAD_STEPS = concat!("SELECT t.workflow, t.step, t.record FROM unnest($2::int8[], $3::int8[]) AS want (workflow, step)
        CROSS JOIN LATERAL ", one!("workflow, step, record" of "steps", "r.workflow = want.workflow", "step" = "want.step"), " AS t");
    LOAD_STEP_DEPENDENTS = concat!("SELECT t.workflow, t.step, t.record, t.continues, n
        FROM unnest($2::int8[], $3::int8[], $4::int8[], $5::int8[]) WITH ORDINALITY AS page (workflow, step, first, size, n)
        CROSS JOIN LATERAL (SELECT one.workflow, one.step, record, continues FROM step_edges AS edge
            CROSS JOIN LATERAL ", one!("workflow, step, record" of "steps", "r.workflow = edge.workflow", "step" = "edge.dependent"), " AS one
            WHERE edge.shard = $1 AND edge.workflow = page.workflow AND edge.step = page.step AND edge.dependent >= page.first
            ORDER BY edge.dependent LIMIT page.size) AS t ORDER BY n, t.step");
    LOAD_HELD_STEPS = "SELECT t.workflow, t.step, t.record, n
        FROM unnest($2::int8[], $3::int8[], $4::int8[]) WITH ORDINALITY AS page (workflow, first, size, n)
        CROSS JOIN LATERAL (SELECT workflow, step, record FROM steps WHERE shard = $1 AND steps.workflow = page.workflow
            AND step >= page.first AND state = 2 ORDER BY step LIMIT page.size) AS t ORDER BY n, t.step";
    LOAD_ACTIVE_STEPS = "SELECT t.workflow, t.step, t.record, n
        FROM unnest($2::int8[], $3::int8[], $4::int8[]) WITH ORDINALITY AS page (workflow, first, size, n)
        CROSS JOIN LATERAL (SELECT workflow, step, record FROM steps WHERE shard = $1 AND steps.workflow = page.workflow
            AND step >= page.first AND state IN (3, 4, 5) ORDER BY step LIMIT page.size) AS t ORDER BY n, t.step";
    OUTPUT_SIZES = "SELECT t.step, t.size, n FROM unnest($2::int8[], $3::int8[]) WITH ORDINALITY AS page (workflow, size, n)
        CROSS JOIN LATERAL (SELECT step, octet_length(body)::int8 AS size FROM step_outputs WHERE shard = $1 AND step_outputs.workflow = page.workflow ORDER BY step LIMIT page.size) AS t ORDER BY n, t.step";
    EDGE_KEYS = "SELECT t.step, t.dependent, n FROM unnest($2::int8[], $3::int8[]) WITH ORDINALITY AS page (workflow, size, n)
        CROSS JOIN LATERAL (SELECT step, dependent FROM step_edges WHERE shard = $1 AND step_edges.workflow = page.workflow ORDER BY step, dependent LIMIT page.size) AS t ORDER BY n, t.step, t.dependent";
    STEP_SIZES = concat!("SELECT t.step, t.size, n FROM unnest($2::int8[], $3::int8[]) WITH ORDINALITY AS page (workflow, size, n)
        CROSS JOIN LATERAL (SELECT steps.step, (octet_length(record) + coalesce(octet_length(body), 0))::int8 AS size FROM steps
            LEFT JOIN LATERAL ", one!("body" of "step_specs", "r.workflow = steps.workflow", "step" = "steps.step"), " AS spec ON true
            WHERE steps.shard = $1 AND steps.workflow = page.workflow ORDER BY steps.step LIMIT page.size) AS t ORDER BY n, t.step");
    LOAD_STEP_TASKS = concat!("SELECT n, ", task_columns!(), " FROM
            unnest($2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::bool[], $7::int8[]) WITH ORDINALITY
            AS page (workflow, step, round, item, open, size, n)
        CROSS JOIN LATERAL (SELECT tasks.key, tasks.id, record, place.step, place.round, place.item FROM specs AS place
            CROSS JOIN LATERAL ", one!("key, id, record, state" of "tasks", "key" = "place.key"), " AS tasks
            WHERE place.shard = $1 AND place.workflow = page.workflow
                AND (place.step, place.round, place.item) > (page.step, page.round, page.item) AND (NOT page.open OR tasks.state < 6)
            ORDER BY place.step, place.round, place.item LIMIT page.size) AS t ORDER BY n, t.step, t.round, t.item");
    INSERT_GROUP_MEMBERS = "INSERT INTO group_members (shard, namespace, name, workflow, step, holds, capacity, joined)
        SELECT $1, new.* FROM unnest($2::text[], $3::text[], $4::int8[], $5::int8[], $6::bool[], $7::int8[], $8::int8[]) AS new";
    DELETE_GROUP_MEMBERS = delete!("group_members" by "$2::text[], $3::text[], $4::int8[], $5::int8[]" as "namespace, name, workflow, step",
        "r.namespace = old.namespace AND r.name = old.name AND r.holds = ANY ('{t,f}'::bool[]) AND r.workflow = old.workflow", "step");
    GROUP_MEMBERS = "SELECT t.workflow, t.step, t.holds, t.capacity, t.joined, n
        FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS want (namespace, name, n)
        CROSS JOIN LATERAL ((SELECT workflow, step, holds, capacity, joined FROM group_members AS m
            WHERE m.shard = $1 AND m.namespace = want.namespace AND m.name = want.name AND m.holds
            ORDER BY workflow, step OFFSET 0)
            UNION ALL (SELECT workflow, step, holds, capacity, joined FROM group_members AS m
            WHERE m.shard = $1 AND m.namespace = want.namespace AND m.name = want.name AND NOT m.holds
            ORDER BY workflow, step LIMIT $4)) AS t ORDER BY n, t.holds DESC, t.workflow, t.step";
    MEMBERSHIPS = "SELECT workflow, step, namespace, name FROM group_members WHERE shard = $1 AND workflow = $2 LIMIT $3";
    DUE_WORKFLOWS = "SELECT key FROM workflows WHERE shard = $1 AND due <= $2 ORDER BY due, key LIMIT $3";
    DUE_STEPS = "SELECT workflow, step FROM steps WHERE shard = $1 AND due <= $2 ORDER BY due, workflow, step LIMIT $3";
    ENDED_WORKFLOWS = "SELECT key FROM workflows WHERE shard = $1 AND ended < $2 ORDER BY ended, key LIMIT $3";
}

statements! {
    /// Statements of readers on workflows: none may scan a table.
    WORKFLOW_READER:
    WORKFLOW_BY_ID = "SELECT key, record FROM workflows WHERE shard = $1 AND namespace = $2 AND id = $3";
    WORKFLOW_BY_ALIAS = "SELECT key, record FROM workflows WHERE shard = $1 AND namespace = $2 AND alias = $3 ORDER BY key DESC LIMIT 1";
    WORKFLOW_BY_KEY = one!("key, record, id" of "workflows", "key" = "$2");
    LIST_WORKFLOWS = "SELECT key, record FROM workflows WHERE shard = $1 AND key < $2 ORDER BY key DESC LIMIT $3";
    ENDING_WORKFLOWS = "SELECT key, record FROM workflows WHERE shard = $1 AND state = 5 AND key > $2 ORDER BY key LIMIT $3";
    UNENDED_WORKFLOWS = "SELECT count(*) FROM workflows WHERE shard = $1 AND state < 6";
    WORKFLOW_SPEC = "SELECT 0::int8, body FROM workflow_specs WHERE shard = $1 AND workflow = $2";
    STEPS = "SELECT workflow, step, record FROM steps WHERE shard = $1 AND workflow = $2 AND step >= $3 ORDER BY step LIMIT $4";
    STEPS_AT = concat!("SELECT t.workflow, t.step, t.record FROM unnest($3::int8[]) WITH ORDINALITY AS want (step, n)
        CROSS JOIN LATERAL ", one!("workflow, step, record" of "steps", "r.workflow = $2", "step" = "want.step"), " AS t ORDER BY n");
    STEP_SPECS_AT = concat!("SELECT t.step, t.body FROM unnest($3::int8[]) WITH ORDINALITY AS want (step, n)
        CROSS JOIN LATERAL ", one!("step, body" of "step_specs", "r.workflow = $2", "step" = "want.step"), " AS t ORDER BY n");
    DRIVEN_STEPS = "SELECT workflow, step, record FROM steps WHERE shard = $1 AND driven AND (workflow, step) > ($2, $3)
        ORDER BY workflow, step LIMIT $4";
    STEP_SPECS = "SELECT step, body FROM step_specs WHERE shard = $1 AND workflow = $2 AND step >= $3 ORDER BY step LIMIT $4";
    WORKFLOW_OUTCOMES = concat!("SELECT t.key, t.record, ", one!("body" of "step_outputs", "r.workflow = t.key", "step" = "$4"), "
        FROM unnest($3::uuid[]) WITH ORDINALITY AS want (id, n)
        CROSS JOIN LATERAL ", one!("key, record" of "workflows", "r.namespace = $2", "id" = "want.id"), " AS t ORDER BY n");
    STEP_OUTPUTS = concat!("SELECT t.step, t.body FROM unnest($3::int8[]) WITH ORDINALITY AS want (step, n)
        CROSS JOIN LATERAL ", one!("step, body" of "step_outputs", "r.workflow = $2", "step" = "want.step"), " AS t ORDER BY n");
    // Up to the task whose result exceeds a number of bytes.
    STEP_RESULTS = concat!("SELECT key, record, body FROM (SELECT tasks.key, record, body, place.item,
            sum(coalesce(octet_length(body), 0)) OVER (ORDER BY place.item) - coalesce(octet_length(body), 0) AS before
            FROM specs AS place
            CROSS JOIN LATERAL ", one!("key, record" of "tasks", "key" = "place.key"), " AS tasks
            LEFT JOIN LATERAL ", one!("body" of "results", "key" = "place.key"), " AS results ON true
            WHERE place.shard = $1 AND place.workflow = $2 AND place.step = $3 AND place.round = $4
            AND place.item >= $7 ORDER BY place.item LIMIT $5) AS part WHERE before <= $6 ORDER BY item");
}

statements! {
    /// Statements that run at a start, or after a failure.
    COLD:
    STORE = "SELECT id FROM store";
    SHARD = "SELECT revision, last_route, written_at, (SELECT away FROM shards WHERE id = $1) FROM commits WHERE shard = $1 ORDER BY revision DESC LIMIT 1";
    ASIDE = "SELECT 1 FROM workflows WHERE shard = $1 AND (due > 100000000000000000 OR ended > 100000000000000000)
        UNION ALL SELECT 1 FROM steps WHERE shard = $1 AND due > 100000000000000000 LIMIT 1";
    UNDECODABLE = "SELECT route, key, id, record FROM tasks WHERE shard = $1 AND state = 255 AND state <> 6 ORDER BY key";
    ROUTES = "SELECT id, route FROM routes WHERE shard = $1 ORDER BY id";
    AGENTS = "SELECT record, namespace, name FROM agents WHERE shard = $1 ORDER BY namespace, name";
    SESSIONS = "SELECT record, namespace, worker, epoch FROM sessions WHERE shard = $1 AND open ORDER BY namespace, worker";
    QUEUED = "SELECT route, count(*) FROM tasks WHERE shard = $1 AND state = 2 GROUP BY route ORDER BY route";
    PENDING_OF_ROUTES = "SELECT route, count(*) FROM tasks WHERE shard = $1 AND state = 1 AND state <> 6 GROUP BY route ORDER BY route";
    ON_WORKERS = concat!("SELECT 1::int8, ", task_columns!(), ", t.route FROM tasks AS t
        WHERE shard = $1 AND state IN (3, 4, 5) AND state <> 6 ORDER BY key");
    FIRST_DUE = "SELECT due FROM tasks WHERE shard = $1 AND due IS NOT NULL ORDER BY due LIMIT 1";
    COOL_DOWNS = "SELECT record, namespace, credential FROM cool_downs WHERE shard = $1 ORDER BY namespace, credential";
    ACCOUNTS = "SELECT record, namespace, agent FROM accounts WHERE shard = $1 ORDER BY namespace, agent";
    FOLLOW_UPS = "SELECT number, record FROM follow_ups WHERE shard = $1 ORDER BY number";
}

/// The origin of the server's data, and its timeline: the first part of the name of a file of the write-ahead log.
pub(crate) const TIMELINE: &str = "SELECT system_identifier,
    ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int8 FROM pg_control_system()";
/// Identity of the server's files, and of the database in them.
pub(crate) const DATABASE: &str =
    "SELECT system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database())
    FROM pg_control_system()";
