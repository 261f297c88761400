-- Lists of the artifacts of attempts, and of the input of a task, with attempt 0. The artifacts themselves are elsewhere.
CREATE TABLE artifacts (task INTEGER NOT NULL, attempt INTEGER NOT NULL, list BLOB NOT NULL);
CREATE UNIQUE INDEX artifacts_task ON artifacts (task, attempt);
