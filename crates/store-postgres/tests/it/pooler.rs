//! A database behind pgbouncer: session mode works, also through failures, and transaction mode is refused.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rota_store::{Error, Filter, Reply, Store};
use rota_store_postgres::{Options, Target};
use rota_testkit::postgres::PostgresServer;
use tempfile::TempDir;

use crate::doubt::{create, open};

const LIMIT: Duration = Duration::from_secs(180);
const PORT: u16 = 6432;

/// pgbouncer in front of a server, on a socket of its own.
struct Pooler {
    process: Child,
    folder: TempDir,
}

impl Pooler {
    async fn start(server: &PostgresServer, mode: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("rota-pool").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let (place, socket) = (folder.path().display(), server.socket().display());
        let text = format!(
            "[databases]\n* = host={socket} user=rota\n[pgbouncer]\nauth_type = any\npool_mode = {mode}\n\
            listen_addr =\nlisten_port = {PORT}\nunix_socket_dir = {place}\ndefault_pool_size = 50\n"
        );
        let settings = folder.path().join("pgbouncer.ini");
        std::fs::write(&settings, text).unwrap();
        // It does not run as root, and neither does the server.
        let user = std::fs::metadata(server.socket()).unwrap();
        let mut pooler = Command::new("pgbouncer");
        pooler.arg("--quiet").arg(&settings).uid(user.uid()).gid(user.gid()).current_dir("/");
        pooler.env("PATH", "/usr/sbin:/usr/bin:/bin").stdin(Stdio::null()).stderr(Stdio::null());
        let process = pooler.spawn().expect("pgbouncer is not installed (Debian: apt-get install pgbouncer)");
        let pooler = Self { process, folder };
        let listens = async {
            while !pooler.folder.path().join(format!(".s.PGSQL.{PORT}")).exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIMIT, listens).await.expect("it listens");
        pooler
    }

    fn target(&self, database: &str) -> Target {
        let place = self.folder.path().display().to_string().replace('/', "%2F");
        let name = database.rsplit('/').next().unwrap();
        Target::parse(&format!("postgres://rota@{place}:{PORT}/{name}"), None).unwrap()
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn session_mode_works() {
    let server = PostgresServer::shared();
    let database = server.database().unwrap();
    let pooler = Pooler::start(server, "session").await;
    let target = pooler.target(&database);
    let store = open(&target).await;
    for number in 0..20 {
        let replies = store.apply(vec![create(number)]).await.unwrap();
        assert!(matches!(replies[..], [Ok(Reply::Created(_))]), "{replies:?}");
        if number % 5 == 4 {
            let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                WHERE application_name LIKE 'rota-%' AND datname = current_database() AND pid <> pg_backend_pid()";
            server.sql(&database, end).unwrap();
        }
    }
    store.close().await;
    drop(store);
    // The next owner finds sessions that the pooler has kept.
    let next = open(&target).await;
    assert_eq!(next.list(Filter { limit: 100, ..Filter::default() }).await.unwrap().tasks.len(), 20);
    next.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transaction_mode_is_refused() {
    let server = PostgresServer::shared();
    let database = server.database().unwrap();
    let pooler = Pooler::start(server, "transaction").await;
    let options = Options::new(pooler.target(&database), "pooled");
    let refused = tokio::task::spawn_blocking(move || rota_store_postgres::open(options, None).map(drop));
    let error = refused.await.unwrap().unwrap_err();
    let Error::Unavailable { message, hint } = &error else { panic!("{error:?}") };
    assert!(
        message.contains("pooler in transaction mode") && hint.contains("pool_mode=session"),
        "{error:?}"
    );
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname = 'rota'";
    assert_eq!(server.sql(&database, schemas).unwrap(), "0", "nothing was changed");
}
