-- 1 is PENDING. Counting them must not look at every task that ever was.
CREATE INDEX tasks_pending ON tasks (state) WHERE state = 1;
