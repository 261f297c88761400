//! The state of the database, as a user without special rights sees it.

use rota_store::Store;
use rota_store_postgres::Target;
use rota_testkit::postgres::PostgresServer;

use crate::doubt::open;

#[tokio::test(flavor = "multi_thread")]
async fn user_without_rights_sees_the_status() {
    let server = PostgresServer::shared();
    let database = server.database().unwrap();
    let name = database.rsplit('/').next().unwrap();
    let role = format!("plain_{name}");
    server
        .sql(&database, &format!("CREATE ROLE {role} LOGIN; GRANT CREATE ON DATABASE {name} TO {role}"))
        .unwrap();
    let target = Target::parse(&database.replacen("rota@", &format!("{role}@"), 1), None).unwrap();
    let store = open(&target).await;
    let status = store.database_status().await.unwrap().unwrap();
    let version: u32 = status.version.split('.').next().unwrap().parse().unwrap();
    assert!(version >= 15 && status.migration >= 1, "{status:?}");
    assert!(status.fsync && status.full_page_writes && status.synchronous_commit == "on", "{status:?}");
    assert!(
        status.size_bytes > 1 << 20 && status.connections >= 2 && status.max_connections == 300,
        "{status:?}"
    );
    assert!(!status.commit_latency.is_zero() && status.now.0 > 0, "{status:?}");
    assert_eq!(status.standbys, rota_store::Standbys::default());
    store.close().await;
}
