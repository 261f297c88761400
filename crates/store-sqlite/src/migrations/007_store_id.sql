-- Identity of the store: clients find out that a control plane has another one. A backup has the same; its revision is lower.
ALTER TABLE shards ADD COLUMN store BLOB;
UPDATE shards SET store = randomblob(16);
