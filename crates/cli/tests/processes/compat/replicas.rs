//! Replicas of two versions on one database, as during an upgrade and while one is taken back.

use anyhow::Result;
use rota_testkit::postgres::PostgresServer;

use super::earlier;
use crate::replicas::Replicas;
use crate::{Fixture, workload};

/// An earlier program owns the database, this one takes over, and the earlier one takes over again, unless this one has migrated the
/// schema. Tasks are created through both, and a worker keeps all attempts.
#[tokio::test]
#[ignore = "needs an earlier program: make compat"]
async fn replicas_of_two_versions_share_a_database() -> Result<()> {
    let server = PostgresServer::shared();
    let mut replicas = Replicas::prepare(Fixture::bare(), server.database()?, 2)?;
    let [old, new] = [replicas.addrs[0], replicas.addrs[1]];
    replicas.fixture.server_program = Some(earlier()?);
    replicas.start_one(0, "listening on").await;
    let url = replicas.url.clone();
    let schema = || server.sql(&url, "SELECT max(version) FROM rota.migrations");
    let before = schema()?;
    replicas.fixture.server_program = None;
    replicas.start_one(1, "standing by").await;
    workload::agent(&replicas.fixture.client()?).await?;
    let _worker = replicas.fixture.worker(workload::AGENT, "one", 5).await?;
    let mut names = replicas.run_tasks(2).await?;
    replicas.fixture.connect_to(old);
    names.extend(replicas.run_tasks(1).await?);

    replicas.running[0].take().unwrap().kill().await;
    replicas.owner_of(&[1]).await?;
    replicas.fixture.connect_to(new);
    names.extend(replicas.run_tasks(1).await?);

    replicas.fixture.server_program = Some(earlier()?);
    if schema()? == before {
        replicas.start_one(0, "standing by").await;
        replicas.running[1].take().unwrap().kill().await;
        replicas.owner_of(&[0]).await?;
        replicas.fixture.server_program = None;
        replicas.start_one(1, "standing by").await;
        names.extend(replicas.run_tasks(1).await?);
    } else {
        replicas.start_one(0, "the schema of a newer version").await;
        let ended = replicas.running[0].take().unwrap().ended().await;
        assert!(!ended.status.success(), "{ended:?}");
    }
    replicas.end_tasks(&names).await
}
