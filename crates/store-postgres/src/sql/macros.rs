//! Shapes that statements share. Rows are found by the items of arrays, one by one, each by its key in one index: a join or
//! `= ANY` also allows a plan that reads the whole shard, which is chosen for a table that is small or has no statistics yet.

/// Declares statements, listed in a constant for those that prepare or test them.
macro_rules! statements {
    ($(#[$doc:meta])* $list:ident: $($name:ident = $sql:expr;)*) => {
        $(pub(crate) const $name: &str = $sql;)*
        $(#[$doc])*
        #[cfg_attr(not(test), allow(dead_code, reason = "those of readers are prepared when they are used"))]
        pub(crate) const $list: &[&str] = &[$($name),*];
    };
}

/// The row of a table with a key, whose last column is named apart. A range in the order of that column has one plan, however
/// many rows there seem to be: an equality may also be tested on each row of the shard.
macro_rules! one {
    ($columns:literal of $table:literal, $key:literal = $value:literal) => {
        one!($columns of $table, "true", $key = $value)
    };
    ($columns:literal of $table:literal, $others:literal, $key:literal = $value:literal) => {
        concat!(
            "(SELECT ",
            $columns,
            " FROM ",
            $table,
            " AS r WHERE r.shard = $1 AND ",
            $others,
            " AND r.",
            $key,
            " BETWEEN ",
            $value,
            " AND ",
            $value,
            " ORDER BY r.",
            $key,
            " LIMIT 1)"
        )
    };
}

/// Columns from which `rows::task` reads a [`rota_store::TaskRow`], of a table or subquery `t`. Whether a task has dependents is
/// not an `EXISTS`, which may be computed from all edges.
macro_rules! task_columns {
    () => {
        concat!("t.key, t.id, t.record, ", one!("true" of "edges", "task" = "t.key"), " IS NOT NULL")
    };
}

/// Joins the row `t` of a task with a key.
macro_rules! task_at {
    ($key:literal) => {
        concat!(" CROSS JOIN LATERAL ", one!("key, id, record" of "tasks", "key" = $key), " AS t ")
    };
}

/// An upsert of rows from arrays. The shard is the first of the columns, which the first parameter names.
macro_rules! upsert {
    ($table:literal ($keys:literal, $columns:literal) = $arrays:literal, set $set:literal) => {
        concat!(
            "INSERT INTO ",
            $table,
            " (shard, ",
            $keys,
            ", ",
            $columns,
            ") SELECT $1, new.* FROM unnest(",
            $arrays,
            ") AS new ON CONFLICT (shard, ",
            $keys,
            ") DO UPDATE SET ",
            $set
        )
    };
}

/// Joins the places `found` of the rows of a table that have the key of an item.
macro_rules! places {
    ($table:literal, $others:literal, $key:literal of $item:literal) => {
        concat!(
            " CROSS JOIN LATERAL (SELECT ctid AS at FROM ",
            $table,
            " AS r WHERE r.shard = $1 AND ",
            $others,
            " AND r.",
            $key,
            " BETWEEN ",
            $item,
            ".",
            $key,
            " AND ",
            $item,
            ".",
            $key,
            " ORDER BY r.",
            $key,
            " OFFSET 0) AS found"
        )
    };
}

/// An update of the rows `old` of a table from arrays, with the columns of `new`, by those that are the key.
macro_rules! update {
    ($table:literal from $arrays:literal as $columns:literal, $key:literal, set $set:literal) => {
        update!($table from $arrays as $columns, "true", $key, set $set)
    };
    ($table:literal from $arrays:literal as $columns:literal, $others:literal, $key:literal, set $set:literal) => {
        concat!(
            "UPDATE ",
            $table,
            " AS old SET ",
            $set,
            " FROM (SELECT new.*, found.at FROM unnest(",
            $arrays,
            ") AS new (",
            $columns,
            ")",
            places!($table, $others, $key of "new"),
            ") AS new WHERE old.ctid = new.at"
        )
    };
}

/// A deletion of the rows `r` of a table that the items `old` of arrays name, in an order that one index has.
macro_rules! delete {
    ($table:literal by $key:literal) => {
        delete!($table by "$2::int8[]" as $key, "true", $key)
    };
    ($table:literal by $arrays:literal as $columns:literal, $others:literal, $key:literal) => {
        concat!(
            "DELETE FROM ",
            $table,
            " WHERE ctid = ANY (ARRAY(SELECT found.at FROM unnest(",
            $arrays,
            ") AS old (",
            $columns,
            ")",
            places!($table, $others, $key of "old"),
            "))"
        )
    };
}
