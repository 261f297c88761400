-- Revision up to which an owner has committed, if it has found that the database lacks commits: the next one reports them lost.
ALTER TABLE shards ADD COLUMN reached bigint;

-- By bytes, as all names: the order of an ICU collation changes with its library, and its index with it.
ALTER TABLE group_members
    ALTER COLUMN namespace TYPE text COLLATE "C",
    ALTER COLUMN name TYPE text COLLATE "C";
