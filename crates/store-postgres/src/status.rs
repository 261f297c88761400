//! State of the database, for those who operate it. Its statements are rare, and use a connection for reads.

use rota_core::Timestamp;
use rota_store::codec::unsigned;
use rota_store::{DatabaseStatus, Standbys};
use tokio::time::Instant;

use crate::errors::Fault;
use crate::readers::Loan;
use crate::rows::{SHARD, get};

/// The number of connections is that of the server's statistics: other users' sessions are hidden from most users.
const STATUS: &str = "SELECT current_setting('server_version'), (SELECT coalesce(max(version), 0) FROM migrations),
        current_setting('fsync') = 'on', current_setting('full_page_writes') = 'on', current_setting('synchronous_commit'),
        pg_database_size(current_database()), (SELECT coalesce(sum(numbackends), 0)::int8 FROM pg_stat_database),
        current_setting('max_connections')::int8, (extract(epoch FROM clock_timestamp()) * 1000000)::int8,
        count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')),
        count(*) FILTER (WHERE sync_state IN ('async', 'potential')),
        count(*) FILTER (WHERE sync_state IS NULL),
        (SELECT epoch FROM shards WHERE id = $1),
        coalesce((SELECT revision FROM commits WHERE shard = $1 ORDER BY revision DESC LIMIT 1), 0)
    FROM pg_stat_replication";
/// A commit that changes no row, and reaches the disk, and a synchronous standby, like any other.
const COMMIT: &str = "SELECT pg_logical_emit_message(true, 'rota', 'latency')";

pub(crate) async fn read(loan: &Loan) -> Result<DatabaseStatus, Fault> {
    let rows = loan.query(STATUS, &[&SHARD]).await?;
    let row = rows.first().ok_or(Fault::Timeout)?;
    // Prepared first: only the commit itself is measured.
    loan.query(COMMIT, &[]).await?;
    let began = Instant::now();
    loan.query(COMMIT, &[]).await?;
    let commit_latency = began.elapsed();
    let count = |column| Ok::<_, Fault>(u32::try_from(get::<i64>(row, column)?).unwrap_or(0));
    Ok(DatabaseStatus {
        version: get(row, 0)?,
        migration: u32::try_from(get::<i32>(row, 1)?).unwrap_or(0),
        fsync: get(row, 2)?,
        full_page_writes: get(row, 3)?,
        synchronous_commit: get(row, 4)?,
        size_bytes: unsigned(get(row, 5)?),
        connections: count(6)?,
        max_connections: count(7)?,
        now: Timestamp(get(row, 8)?),
        standbys: Standbys { synchronous: count(9)?, asynchronous: count(10)?, unknown: count(11)? },
        commit_latency,
        epoch: unsigned(get(row, 12)?),
        revision: unsigned(get(row, 13)?),
    })
}
