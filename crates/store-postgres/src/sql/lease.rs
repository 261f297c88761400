//! Statements of replicas and of the owner's lease, prepared where they are used.

/// An epoch above all earlier ones: a database that was restored, or continues on an asynchronous standby, has an older one than was
/// given out, and would give it out again.
macro_rules! next_epoch {
    () => {
        "greatest(epoch + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::int8)"
    };
}

/// Whether a lease is not over, nor from before the clock was set back: then it ends later than one of this length in milliseconds, and
/// its replica has vanished, or renews it soon.
macro_rules! is_current {
    ($length:literal) => {
        concat!(
            "expires > clock_timestamp() AND expires <= clock_timestamp() + ",
            $length,
            " * interval '1 millisecond'"
        )
    };
}

pub(crate) const REGISTER: &str = "INSERT INTO replicas (id, name, version, address, expires)
    VALUES ($1, $2, $3, $4, clock_timestamp() + $5 * interval '1 millisecond')
    ON CONFLICT (id) DO UPDATE SET expires = excluded.expires";
/// [`REGISTER`] for an owner. One that was replaced while it was frozen is not registered: its successor, which has removed its row,
/// would count it as a replica that waits.
pub(crate) const REGISTER_OWNER: &str = "INSERT INTO replicas (id, name, version, address, expires)
    SELECT $1, $2, $3, $4, clock_timestamp() + $5 * interval '1 millisecond'
    WHERE EXISTS (SELECT 1 FROM shards WHERE owner = $1)
    ON CONFLICT (id) DO UPDATE SET expires = excluded.expires";
/// Wakes the timer of the owner, which then knows of a control plane that waits before its next renewal.
pub(crate) const ANNOUNCE: &str = "SELECT pg_notify('rota_replicas', '')";
pub(crate) const LISTEN: &str = "LISTEN rota_replicas";
/// The owner and the rest of its lease, in the columns of [`ACQUIRE`], the last commit, and when the lease ends.
pub(crate) const OWNER: &str = "SELECT owner, name, address,
        ceil(extract(epoch FROM expires - clock_timestamp()) * 1000)::int8,
        (SELECT revision FROM commits WHERE shard = $1 ORDER BY revision DESC LIMIT 1),
        (extract(epoch FROM expires) * 1000000)::int8
    FROM shards LEFT JOIN replicas ON replicas.id = owner WHERE shards.id = $1";
/// Ends a lease that is not over, unless it was renewed since it was read: who waits may have been suspended meanwhile.
pub(crate) const END_LEASE: &str = "UPDATE replicas SET expires = clock_timestamp()
    WHERE id = $1 AND (extract(epoch FROM expires) * 1000000)::int8 = $2 AND expires > clock_timestamp()";
/// Takes the shard, unless the schema has a newer version than `$3`: no row then.
pub(crate) const ACQUIRE: &str =
    "SELECT new_epoch, owner_name, owner_address, left_ms FROM acquire($1, $2, $3)";
/// Versions of other control planes that wait for a shard.
pub(crate) const WAITING: &str =
    concat!("SELECT version FROM replicas WHERE id <> $1 AND ", is_current!("$2"));
pub(crate) const RECLAIM: &str =
    concat!("UPDATE shards SET epoch = ", next_epoch!(), " WHERE id = $1 AND owner = $2 RETURNING epoch");
/// Takes the shard from its owner.
pub(crate) const DEPOSE: &str =
    concat!("UPDATE shards SET epoch = ", next_epoch!(), ", owner = NULL WHERE id = $1");
pub(crate) const RENEW: &str =
    "UPDATE replicas SET expires = clock_timestamp() + $2 * interval '1 millisecond' WHERE id = $1";
pub(crate) const OWNS: &str = concat!(
    "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8,
    EXISTS (SELECT 1 FROM shards WHERE id = $1 AND owner = $2),
    EXISTS (SELECT 1 FROM replicas WHERE id <> $2 AND ",
    is_current!("$3"),
    ")"
);
pub(crate) const FORGET_COMMITS: &str =
    "DELETE FROM commits WHERE shard = $1 AND revision < (SELECT revision FROM commits
    WHERE shard = $1 ORDER BY revision DESC LIMIT 1) - 10000";
/// The revision that an owner knows of, if the database lacks it.
pub(crate) const REACHED: &str = "SELECT reached FROM shards WHERE id = $1";
pub(crate) const NOTE_REACHED: &str =
    "UPDATE shards SET reached = greatest(reached, $3) WHERE id = $1 AND owner = $2";
pub(crate) const RELEASE: &str = "UPDATE shards SET owner = NULL WHERE id = $1 AND owner = $2";
/// Replicas that have ended without a word. After a step back of the clock by less than an hour, those that are there have the time to
/// renew their leases.
pub(crate) const FORGET_REPLICAS: &str = "DELETE FROM replicas
    WHERE expires NOT BETWEEN clock_timestamp() - interval '1 hour' AND clock_timestamp() + interval '1 hour'
    AND id NOT IN (SELECT owner FROM shards WHERE owner IS NOT NULL)";
pub(crate) const UNREGISTER: &str = "DELETE FROM replicas WHERE id = $1";
/// Sessions of an owner that may still hold locks: a process that was frozen in the middle of a commit or an import, or one that has
/// ended.
pub(crate) const END_SESSIONS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = ANY ($1) AND pid <> pg_backend_pid() AND usename = current_user";
/// Owners whose lease is over.
pub(crate) const EXPIRED_OWNER: &str =
    "SELECT owner FROM shards WHERE id = $1 AND owner IS NOT NULL AND NOT EXISTS
    (SELECT 1 FROM replicas WHERE replicas.id = owner AND expires > clock_timestamp())";
