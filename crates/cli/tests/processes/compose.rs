//! `deploy/compose`: its names, files and ports fit each other, and its parts run as processes: the command of a replica, the
//! backup and the restore, on a real PostgreSQL. Images are not pulled, and the proxy does not run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rota_proto::v1::TaskState;
use rota_testkit::postgres::PostgresServer;
use rota_testkit::tasks;
use serde_json::Value;
use tokio::process::Command;

use crate::process::Process;
use crate::responses::Response;
use crate::{Fixture, workload};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/compose")
}

fn compose() -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string(folder().join("compose.yaml")).unwrap()).unwrap()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|one| one.as_str().unwrap().to_owned()).collect()
}

/// Returns the command of a replica without its name.
fn command(compose: &Value, name: &str) -> Vec<String> {
    let command = texts(&compose["services"][name]["command"]);
    command.into_iter().map(|flag| flag.replace(name, "NAME")).collect()
}

#[test]
fn replicas_differ_in_their_names_alone() {
    let compose = compose();
    assert_eq!(command(&compose, "rota-1"), command(&compose, "rota-2"));
    let proxy = std::fs::read_to_string(folder().join("Caddyfile")).unwrap();
    for name in ["rota-1", "rota-2"] {
        let flags = texts(&compose["services"][name]["command"]);
        assert!(flags.contains(&format!("--advertise={name}:7420")), "{flags:?}");
        assert!(
            proxy.contains(&format!("h2c://{name}:7420")) && proxy.contains(&format!("http://{name}:7420"))
        );
    }
    assert!(command(&compose, "rota-1").contains(&"--http-listen=0.0.0.0:7421".to_owned()));
    assert!(proxy.contains("health_port 7421") && proxy.contains("health_uri /readyz"));
}

#[test]
fn services_name_what_exists() {
    let compose = compose();
    let init = std::fs::read_to_string(folder().join("init")).unwrap();
    let services = compose["services"].as_object().unwrap();
    let networks: BTreeSet<_> = compose["networks"].as_object().unwrap().keys().collect();
    for (name, service) in services {
        let service = if service.get("<<").is_some() || service.get("image").is_none() {
            &compose["x-rota"]
        } else {
            service
        };
        let image = service["image"].as_str().unwrap();
        let tag = image.rsplit_once(':').unwrap_or_else(|| panic!("{name} has an image without a tag")).1;
        assert_ne!(tag, "latest", "{name}");
        for volume in texts(&service["volumes"]) {
            let source = volume.split(':').next().unwrap();
            let Some(file) = source.strip_prefix("./") else {
                assert!(compose["volumes"].get(source).is_some(), "{name}: {volume}");
                continue;
            };
            let is_made = file.starts_with("secrets") || file.starts_with("state/");
            assert!(folder().join(file).exists() || is_made && init.contains(file), "{name}: {volume}");
        }
        for network in texts(&service["networks"]) {
            assert!(networks.contains(&network), "{name}: {network}");
        }
        let is_open = texts(&service["networks"]).iter().any(|network| network == "outside");
        assert_eq!(service.get("ports").is_some(), is_open, "{name}: only the proxy is reached from outside");
        assert_eq!(is_open, name == "proxy");
    }
    assert_eq!(compose["networks"]["inside"]["internal"], true);
}

/// The deployment in a directory of its own, on a server of the tests.
struct Deployment {
    fixture: Fixture,
    root: PathBuf,
    url: String,
}

impl Deployment {
    async fn init() -> Result<Self> {
        let fixture = Fixture::bare();
        let root = fixture.dir().join("compose");
        std::fs::create_dir(&root)?;
        for file in ["init", "backup"] {
            std::fs::copy(folder().join(file), root.join(file))?;
        }
        let init = |fixture: &Fixture| {
            let mut init = fixture.command_of(Path::new("/bin/sh"), &[]);
            init.arg(root.join("init"))
                .env("ROTA_USER", format!("{}:{}", nix::unistd::getuid(), nix::unistd::getgid()));
            init
        };
        Response::of(init(&fixture), "").await.success();
        let secrets = || {
            ["key", "token", "database-password"].map(|name| std::fs::read(root.join("secrets").join(name)))
        };
        let made = secrets();
        // A second time, nothing changes.
        Response::of(init(&fixture), "").await.success();
        for (before, after) in made.into_iter().zip(secrets()) {
            assert_eq!(before?, after?);
        }
        // The one that the fixture has.
        std::fs::write(root.join("secrets/token"), std::fs::read(fixture.dir().join("token"))?)?;
        Ok(Self { fixture, root, url: PostgresServer::shared().database()? })
    }

    /// Starts the first replica with its command, with files and addresses of this test.
    async fn start(&mut self) -> Result<Process> {
        let compose = compose();
        let volumes = texts(&compose["x-rota"]["volumes"]);
        let mounted = |flag: String| {
            let mut flag = flag.replace("/tmp/rota", self.root.join("data").to_str().unwrap());
            for volume in &volumes {
                let mut parts = volume.split(':');
                let (source, target) = (parts.next().unwrap(), parts.next().unwrap());
                flag = flag.replace(target, self.root.join(source).to_str().unwrap());
            }
            flag
        };
        let flags = texts(&compose["services"]["rota-1"]["command"]).into_iter().map(|flag| {
            match flag.split_once('=') {
                Some(("--store", _)) => format!("--store={}", self.url),
                Some(("--listen" | "--http-listen", _)) => {
                    format!("{}=127.0.0.1:0", flag.split('=').next().unwrap())
                }
                _ => mounted(flag),
            }
        });
        let mut command = self.fixture.command(&[]);
        command.args(flags);
        let mut process = Process::start("rota-1", command);
        let line = process.prints("listening on http://").await;
        self.fixture.connect_to(line.rsplit('/').next().context("an address")?.parse()?);
        Ok(process)
    }

    /// Returns the command of the backup's container.
    fn backup(&self, arguments: &[&str]) -> Command {
        let mut backup = self.shell();
        backup.arg(self.root.join("backup")).args(arguments);
        backup.env("DIRECTORY", self.root.join("state/backups")).env("KEEP", "2").env("INTERVAL", "86400");
        backup
    }

    /// Returns the commands of the README that restore a backup, in the backup's container.
    fn restore(&self, backup: &Path) -> Command {
        let readme = std::fs::read_to_string(folder().join("README.md")).unwrap();
        let (_, script) = readme.split_once("exec backup sh -ec '").unwrap();
        let (script, _) = script.split_once('\'').unwrap();
        let mut restore = self.shell();
        restore.arg("-ec").arg(script.replace("/backups/rota-TIME.dump", &backup.display().to_string()));
        restore
    }

    /// Returns a shell with the environment of the backup's container, and the programs of the server's version.
    fn shell(&self) -> Command {
        let server = PostgresServer::shared();
        let dump = server.program("pg_dump", &self.url);
        let programs = Path::new(dump.get_program()).parent().unwrap();
        let mut shell = self.fixture.command_of(Path::new("/bin/sh"), &[]);
        shell.env("PATH", format!("{}:/usr/bin:/bin", programs.display()));
        shell.env("PGHOST", server.socket()).env("PGUSER", "rota");
        shell.env("PGDATABASE", self.url.rsplit('/').next().unwrap());
        shell.env("PASSWORD_FILE", self.root.join("secrets/database-password"));
        shell
    }

    fn backups(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.root.join("state/backups")).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

#[tokio::test]
async fn parts_run_and_a_backup_is_restored() -> Result<()> {
    let mut deployment = Deployment::init().await?;
    let process = deployment.start().await?;
    let client = deployment.fixture.client()?;
    workload::agent(&client).await?;
    let kept = tasks::create(&client, workload::shell("echo kept", &[])).await?;
    let backups = deployment.root.join("state/backups");
    for old in ["rota-20200101T000000Z.dump", "rota-20200102T000000Z.dump"] {
        std::fs::write(backups.join(old), "")?;
    }
    let made = Response::of(deployment.backup(&["once"]), "").await.success();
    assert!(made.contains("complete") && made.contains("rota-20200101T000000Z.dump: removed"), "{made}");
    let [_, newest] = &deployment.backups()[..] else { panic!("{:?}", deployment.backups()) };
    // One that fails leaves the others alone.
    let mut failing = deployment.backup(&["once"]);
    failing.env("PGDATABASE", "absent");
    assert_ne!(Response::of(failing, "").await.code, 0);
    assert_eq!(deployment.backups().len(), 2);
    // As a service, it makes one at its start, unless there is one of its interval.
    let mut service = deployment.backup(&[]);
    service.env("INTERVAL", "30");
    let mut service = Process::start("backup", service);
    service.prints("complete").await;
    service.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(service.ended().await.status.success());

    let lost = tasks::create(&client, workload::shell("echo lost", &[])).await?;
    process.kill().await;
    // As after an upgrade: what it has added must not be left.
    PostgresServer::shared().sql(&deployment.url, "CREATE TABLE rota.later ()")?;
    let damaged = deployment.root.join("damaged.dump");
    let complete = std::fs::read(newest)?;
    std::fs::write(&damaged, &complete[..complete.len() - 100])?;
    for unusable in [damaged, deployment.root.join("absent.dump")] {
        assert_ne!(Response::of(deployment.restore(&unusable), "").await.code, 0);
        PostgresServer::shared()
            .sql(&deployment.url, "SELECT 1 FROM rota.later")
            .context("records are lost")?;
    }
    Response::of(deployment.restore(newest), "").await.success();
    assert!(PostgresServer::shared().sql(&deployment.url, "SELECT 1 FROM rota.later").is_err());
    let _process = deployment.start().await?;
    let client = deployment.fixture.client()?;
    assert!(tasks::get(&client, &lost.name).await.is_err());
    let _worker = deployment.fixture.worker(workload::AGENT, "one", 1).await?;
    assert_eq!(tasks::ended(&client, &kept.name).await?.status.unwrap().state(), TaskState::Succeeded);
    Ok(())
}
