//! Checks of the database of a control plane, and of the replicas that share it.

use std::time::Duration;

use rota_client::{Client, Code};
use rota_proto::v1::{DatabaseStatus, GetDatabaseStatusRequest, Replica};
use tokio::time::timeout;

use super::Check;
use crate::output::{between, count, duration, moment};

const NAME: &str = "database";
/// Time for the answer of the database.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Time of a commit that slows everything down.
const SLOW_COMMIT: Duration = Duration::from_millis(100);
/// Part of the server's connections that are many.
const MANY_CONNECTIONS_PERCENT: i32 = 80;
/// Difference of the clocks that makes times hard to read. Deadlines follow the database.
const SKEW_WARNING: Duration = Duration::from_secs(2);

/// Fetches the state of the database, and checks it. A store that is a file has none.
pub(super) async fn checks(client: &Client, replicas: &[Replica]) -> Vec<Check> {
    let answer = match timeout(CALL_TIMEOUT, client.get_database_status(GetDatabaseStatusRequest {})).await {
        Err(_) => {
            let message = format!("no response within {}", duration(CALL_TIMEOUT));
            return vec![Check::fail(NAME, message, "check the load of the database and the network to it")];
        }
        Ok(answer) => answer,
    };
    match answer {
        Ok(status) if status.version.is_empty() => Vec::new(),
        Ok(status) => judge(&status, replicas),
        // Older than this call, or not for this caller.
        Err(error) if matches!(error.code, Code::Unimplemented | Code::PermissionDenied) => Vec::new(),
        Err(error) => vec![Check::fail(NAME, error.to_string(), error.hint.unwrap_or_default())],
    }
}

fn judge(status: &DatabaseStatus, replicas: &[Replica]) -> Vec<Check> {
    let mib = status.size_bytes / (1 << 20);
    let server = format!("PostgreSQL {}, schema {}, {mib} MiB", status.version, status.migration);
    let mut checks = vec![Check::ok(NAME, server), durability(status), standbys(status)];
    let latency = status.commit_latency.as_ref().map_or(Duration::ZERO, span);
    let message = format!("a commit takes {:.1} ms", latency.as_secs_f64() * 1000.0);
    checks.push(match latency > SLOW_COMMIT {
        true => Check::warn(
            NAME,
            message,
            "check the disk of the database, its synchronous standby and the network",
        ),
        false => Check::ok(NAME, message),
    });
    let message = format!("{} of {} connections are in use", status.connections, status.max_connections);
    let many = status.connections.saturating_mul(100) >= status.max_connections * MANY_CONNECTIONS_PERCENT;
    checks.push(match many {
        true => Check::warn(NAME, message, "raise max_connections, or end other connections"),
        false => Check::ok(NAME, message),
    });
    checks.extend(clock(status));
    checks.extend(owner(replicas));
    checks
}

fn durability(status: &DatabaseStatus) -> Check {
    let hint = "set it to on in postgresql.conf";
    if !status.fsync {
        return Check::fail(NAME, "fsync is off: a crash loses acknowledged tasks", hint);
    }
    if !status.full_page_writes {
        return Check::warn(NAME, "full_page_writes is off: a crash may damage the database", hint);
    }
    match status.synchronous_commit.as_str() {
        "off" | "local" => {
            let message = format!(
                "synchronous_commit is {}: a crash or a failover loses acknowledged tasks",
                status.synchronous_commit
            );
            Check::fail(
                NAME,
                message,
                "let no setting of the user or the database override that of the session",
            )
        }
        mode => Check::ok(NAME, format!("fsync on, synchronous_commit {mode}")),
    }
}

/// States whether a failover of the database loses tasks.
fn standbys(status: &DatabaseStatus) -> Check {
    let (waited_for, others) = (status.synchronous_standbys, status.asynchronous_standbys);
    if waited_for > 0 {
        let message = format!(
            "{}: a failover to one loses no acknowledged task",
            count(waited_for, "synchronous standby")
        );
        return Check::ok(NAME, message);
    }
    if status.unknown_standbys > 0 {
        let message = format!(
            "{} of a kind that is hidden from the user of the store",
            count(status.unknown_standbys, "standby")
        );
        return Check::warn(
            NAME,
            message,
            "GRANT pg_monitor to the user of the store, to see whether a failover loses tasks",
        );
    }
    if others > 0 {
        let message = format!(
            "{}: a failover loses tasks that it has not received",
            count(others, "asynchronous standby")
        );
        return Check::warn(
            NAME,
            message,
            "name it in synchronous_standby_names, if no acknowledged task may be lost",
        );
    }
    Check::ok(NAME, "no standby is connected")
}

fn clock(status: &DatabaseStatus) -> Option<Check> {
    let (database, server) = (moment(status.database_time.as_ref()?), moment(status.server_time.as_ref()?));
    let skew = between(server, database).max(between(database, server));
    let which = if database > server { "ahead of" } else { "behind" };
    Some(match skew > SKEW_WARNING {
        true => {
            let message = format!("its clock is {} {which} the control plane's", duration(skew));
            Check::warn(
                NAME,
                message,
                "synchronize both clocks, for example with NTP; deadlines follow the database",
            )
        }
        false => Check::ok(NAME, "its clock is in sync with the control plane"),
    })
}

fn owner(replicas: &[Replica]) -> Option<Check> {
    let owner = replicas.iter().find(|one| one.owner)?;
    let lease = owner.lease.as_ref().map_or(0, |lease| lease.seconds);
    let others = i32::try_from(replicas.len() - 1).unwrap_or(i32::MAX);
    let message =
        format!("owned by {} with a lease of {lease}s; {} standing by", owner.name, count(others, "replica"));
    Some(match lease {
        0 => Check::warn(NAME, message, "the lease is over: see the log of the owner"),
        _ => Check::ok(NAME, message),
    })
}

fn span(span: &pbjson_types::Duration) -> Duration {
    Duration::new(u64::try_from(span.seconds).unwrap_or(0), u32::try_from(span.nanos).unwrap_or(0))
}

/// Describes the database in a line.
pub fn describe(status: &DatabaseStatus) -> String {
    let latency = status.commit_latency.as_ref().map_or(Duration::ZERO, span);
    format!(
        "PostgreSQL {}, schema {}, {} MiB, {} of {} connections, a commit takes {:.1} ms",
        status.version,
        status.migration,
        status.size_bytes / (1 << 20),
        status.connections,
        status.max_connections,
        latency.as_secs_f64() * 1000.0
    )
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn healthy() -> DatabaseStatus {
        DatabaseStatus {
            version: "16.4".to_owned(),
            migration: 3,
            fsync: true,
            full_page_writes: true,
            synchronous_commit: "on".to_owned(),
            size_bytes: 5 << 20,
            connections: 9,
            max_connections: 100,
            commit_latency: Some(pbjson_types::Duration { seconds: 0, nanos: 1_200_000 }),
            database_time: Some(pbjson_types::Timestamp { seconds: 100, nanos: 0 }),
            server_time: Some(pbjson_types::Timestamp { seconds: 100, nanos: 5 }),
            ..DatabaseStatus::default()
        }
    }

    /// Returns the checks that are not fine.
    fn bad(change: impl FnOnce(&mut DatabaseStatus)) -> Vec<(Verdict, String)> {
        let mut status = healthy();
        change(&mut status);
        let lease = |seconds| Some(pbjson_types::Duration { seconds, nanos: 0 });
        let owner = Replica { name: "one".to_owned(), owner: true, lease: lease(8), ..Replica::default() };
        let checks = judge(&status, &[owner, Replica::default()]).into_iter();
        checks
            .filter(|check| check.verdict != Verdict::Ok)
            .map(|check| (check.verdict, check.message))
            .collect()
    }

    #[test]
    fn healthy_database_has_no_findings() {
        let changed = bad(|status| status.synchronous_standbys = 2);
        assert!(bad(|_| {}).is_empty() && changed.is_empty(), "{changed:?}");
        let line = describe(&healthy());
        assert_eq!(line, "PostgreSQL 16.4, schema 3, 5 MiB, 9 of 100 connections, a commit takes 1.2 ms");
    }

    #[test]
    fn each_problem_is_named() {
        let one = |change: fn(&mut DatabaseStatus), verdict, words: &str| {
            let found = bad(change);
            assert!(
                matches!(&found[..], [(is, text)] if *is == verdict && text.contains(words)),
                "{words}: {found:?}"
            );
        };
        one(|status| status.fsync = false, Verdict::Fail, "fsync is off");
        one(|status| status.full_page_writes = false, Verdict::Warn, "full_page_writes");
        one(
            |status| status.synchronous_commit = "local".to_owned(),
            Verdict::Fail,
            "synchronous_commit is local",
        );
        one(
            |status| status.asynchronous_standbys = 1,
            Verdict::Warn,
            "1 asynchronous standby: a failover loses",
        );
        one(|status| status.unknown_standbys = 1, Verdict::Warn, "hidden");
        one(|status| status.connections = 80, Verdict::Warn, "80 of 100");
        let slow = Some(pbjson_types::Duration { seconds: 1, nanos: 0 });
        assert!(bad(|status| status.commit_latency = slow)[0].1.contains("1000.0 ms"));
        one(
            |status| status.database_time = Some(pbjson_types::Timestamp { seconds: 90, nanos: 0 }),
            Verdict::Warn,
            "behind",
        );
    }
}
