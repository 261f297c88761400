-- When the last write was, and the times in which no worker could take a task (a MessagePack list), which queue timeouts do
-- not count.
ALTER TABLE shards ADD COLUMN written_at INTEGER;
ALTER TABLE shards ADD COLUMN away BLOB;
