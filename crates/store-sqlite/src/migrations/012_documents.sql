-- Named, versioned records of low rate, such as schedules. Payloads may be large: the rows are not in the key's tree.
CREATE TABLE documents (
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (kind, namespace, name)
) STRICT;
