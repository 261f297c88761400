-- Books of agents and namespaces: what they have spent, and the budgets of namespaces, whose agent is empty.
CREATE TABLE accounts (
    namespace TEXT NOT NULL,
    agent TEXT NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (namespace, agent)
) STRICT, WITHOUT ROWID;
