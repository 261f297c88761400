-- Model credentials that were limited or rejected, and how long their tasks wait.
CREATE TABLE cool_downs (
    namespace TEXT NOT NULL,
    credential TEXT NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (namespace, credential)
) STRICT, WITHOUT ROWID;
