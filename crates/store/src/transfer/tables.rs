//! Tables of an export, as both databases have them, whatever their columns are called there. Records are encoded alike.

use uuid::Uuid;

/// Kind of a column. Each may be null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Int,
    Text,
    Uuid,
    Bytes,
    Bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Null,
    Int(i64),
    Text(String),
    Uuid(Uuid),
    Bytes(Vec<u8>),
    Bool(bool),
}

impl Value {
    /// Returns about the bytes that it takes.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            _ => size_of::<Uuid>(),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    pub name: &'static str,
    /// Columns, those of the key first.
    pub columns: &'static [(&'static str, Kind)],
    /// Number of columns of the key, by which rows are ordered.
    pub keys: usize,
}

macro_rules! tables {
    ($($name:ident ($($key:ident $key_kind:ident),+; $($column:ident $kind:ident),*);)+) => {
        /// Tables, each after those that it needs.
        pub const TABLES: &[Table] = &[$(Table {
            name: stringify!($name),
            columns: &[$((stringify!($key), Kind::$key_kind)),+ $(, (stringify!($column), Kind::$kind))*],
            keys: [$(stringify!($key)),+].len(),
        }),+];
    };
}

tables! {
    routes (id Int; route Text);
    agents (namespace Text, name Text; record Bytes);
    tasks (key Int; id Uuid, namespace Text, state Int, route Int, rank Int, due Int, ended Int, record Bytes);
    specs (key Int; id Uuid, namespace Text, payload Bytes, workflow Int, step Int, round Int, item Int);
    results (key Int; body Bytes);
    secrets (key Int; body Bytes);
    artifacts (task Int, attempt Int; list Bytes);
    events (revision Int; task Int, first Int, body Bytes);
    aliases (namespace Text, alias Text; task Int);
    idempotency_keys (namespace Text, key Text; id Uuid, task Int, orphaned Int);
    waits (namespace Text, key Text, waiter Int;);
    edges (task Int, dependent Int;);
    follow_ups (number Int; record Bytes);
    sessions (namespace Text, worker Text; epoch Int, open Bool, ended Int, record Bytes);
    cool_downs (namespace Text, credential Text; record Bytes);
    threads (namespace Text, name Text; idle Int, record Bytes);
    accounts (namespace Text, agent Text; record Bytes);
    documents (kind Text, namespace Text, name Text; record Bytes);
    workflows (key Int; id Uuid, namespace Text, alias Text, idempotency Text, state Int, due Int, ended Int, record Bytes);
    workflow_specs (workflow Int; body Bytes);
    steps (workflow Int, step Int; state Int, driven Bool, due Int, record Bytes);
    step_specs (workflow Int, step Int; body Bytes);
    step_outputs (workflow Int, step Int; body Bytes);
    step_edges (workflow Int, step Int, dependent Int; continues Bool);
    group_members (namespace Text, name Text, holds Bool, workflow Int, step Int; capacity Int, joined Int);
}

/// Returns the table of this name, with its place among them.
pub(super) fn find(name: &str) -> Option<(usize, &'static Table)> {
    TABLES.iter().enumerate().find(|(_, table)| table.name == name)
}
