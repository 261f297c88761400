//! Encrypted connections to a database, whose authority is replaced while the control plane runs.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;

use rota_store::{Filter, Reply, Store};
use rota_store_postgres::Target;
use rota_testkit::postgres::{PostgresServer, Stop};
use tempfile::NamedTempFile;

use crate::doubt::{create, open};

/// Server on an address of its own of this machine, which encrypts.
struct Encrypted {
    server: PostgresServer,
    address: String,
    _access: NamedTempFile,
}

impl Encrypted {
    /// Starts a server without a certificate.
    fn start() -> Self {
        // The port is always the same.
        let address = format!("127.77.{}.{}", rand::random::<u8>(), 1 + rand::random::<u8>() % 250);
        let mut access = NamedTempFile::new_in("/tmp").unwrap();
        writeln!(access, "local all all trust\nhostssl all all 127.0.0.0/8 trust").unwrap();
        fs::set_permissions(access.path(), Permissions::from_mode(0o644)).unwrap();
        let settings = format!("hba_file = '{}'\nlisten_addresses = '{address}'", access.path().display());
        Self { server: PostgresServer::start(&settings).unwrap(), address, _access: access }
    }

    /// Gives the server a certificate, which is its own authority, and restarts it. Returns the certificate.
    fn certify(&self) -> String {
        let made = rcgen::generate_simple_self_signed(vec![self.address.clone()]).unwrap();
        let owner = fs::metadata(self.server.socket()).unwrap();
        let write = |name: &str, text: String| -> PathBuf {
            let path = self.server.socket().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
            path
        };
        let key = write("server.key", made.signing_key.serialize_pem());
        let certificate = write("server.crt", made.cert.pem());
        for setting in [
            format!("ssl_key_file = '{}'", key.display()),
            format!("ssl_cert_file = '{}'", certificate.display()),
            "ssl = on".to_owned(),
        ] {
            self.server.sql("postgres", &format!("ALTER SYSTEM SET {setting}")).unwrap();
        }
        self.server.stop(Stop::Fast).unwrap();
        self.server.resume().unwrap();
        made.cert.pem()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_authority_is_read_again() {
    let encrypted = Encrypted::start();
    let roots = NamedTempFile::new().unwrap();
    fs::write(roots.path(), encrypted.certify()).unwrap();
    let database = encrypted.server.database().unwrap();
    let name = database.rsplit('/').next().unwrap();
    let url = format!(
        "postgres://rota@{}/{name}?sslmode=require&sslrootcert={}",
        encrypted.address,
        roots.path().display()
    );
    let store = open(&Target::parse(&url, None).unwrap()).await;
    assert!(matches!(store.apply(vec![create(0)]).await.unwrap()[..], [Ok(Reply::Created(_))]));
    let plain = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE application_name LIKE 'rota-%' AND NOT ssl";
    assert_eq!(encrypted.server.sql(&database, plain).unwrap(), "0");

    fs::write(roots.path(), encrypted.certify()).unwrap();
    assert!(matches!(store.apply(vec![create(1)]).await.unwrap()[..], [Ok(Reply::Created(_))]));
    assert_eq!(store.list(Filter { limit: 10, ..Filter::default() }).await.unwrap().tasks.len(), 2);
    store.close().await;

    // A server of another authority is refused.
    fs::write(roots.path(), rcgen::generate_simple_self_signed(vec!["other".to_owned()]).unwrap().cert.pem())
        .unwrap();
    let options = rota_store_postgres::Options::new(Target::parse(&url, None).unwrap(), "foreign");
    let refused = tokio::task::spawn_blocking(move || rota_store_postgres::open(options, None).map(drop));
    assert!(refused.await.unwrap().is_err());
}

#[test]
fn file_without_certificates_is_refused() {
    let roots = NamedTempFile::new().unwrap();
    let url = format!("postgres://rota@db.example/rota?sslrootcert={}", roots.path().display());
    let error = Target::parse(&url, None).unwrap_err().to_string();
    assert!(error.contains("there are none"), "{error}");
}
