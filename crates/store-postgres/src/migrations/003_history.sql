-- Revision up to which an owner has committed, if it has found that the database lacks commits: the next one reports them lost.
ALTER TABLE shards ADD COLUMN reached bigint;

-- By bytes, as all names: the order of an ICU collation changes with its library, and its index with it.
ALTER TABLE group_members
    ALTER COLUMN namespace TYPE text COLLATE "C",
    ALTER COLUMN name TYPE text COLLATE "C";

-- Takes a shard as the function of two arguments did, for a caller that knows the newest version of the schema up to `in_schema`.
-- Returns no row to one that does not know this schema.
CREATE FUNCTION acquire(in_shard integer, in_replica uuid, in_schema integer)
RETURNS TABLE (new_epoch bigint, owner_name text, owner_address text, left_ms bigint) LANGUAGE plpgsql AS $$
DECLARE
    holder uuid;
    lease timestamptz;
BEGIN
    SELECT owner INTO holder FROM shards WHERE id = in_shard FOR UPDATE;
    IF EXISTS (SELECT 1 FROM migrations WHERE version > in_schema) THEN
        RETURN;
    END IF;
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

-- Callers of versions before know neither this schema nor the check: they end instead of taking the shard.
CREATE OR REPLACE FUNCTION acquire(in_shard integer, in_replica uuid)
RETURNS TABLE (new_epoch bigint, owner_name text, owner_address text, left_ms bigint) LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the database has the schema of a newer version of Rota: run that version or a later one';
END $$;
