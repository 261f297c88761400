//! Repositories over SSH: OpenSSH's own server, with one key of its own and one that opens it.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::unistd::{User, geteuid};
use rota_proto::v1::{self, FailureClass, TaskState};
use rota_telemetry::free_addresses;
use rota_testkit::tasks;
use tokio::process::Command;

use super::delivering::retried;
use super::site;
use crate::process::Process;
use crate::workload;

/// Not on the PATH of users. It starts itself again for each connection, by this path.
const SSHD: &str = "/usr/sbin/sshd";
/// Directory that it enters until a caller has signed in, if it runs as root. Created by the service of a system.
const EMPTY_DIRECTORY: &str = "/run/sshd";

struct SshHost {
    /// User, address and port of its URLs.
    authority: String,
    /// Address and port, as `known_hosts` has them.
    name: String,
    _process: Process,
}

impl SshHost {
    /// Starts a server for the user of this process, with the keys in a folder.
    async fn start(folder: &Path) -> Result<Self> {
        let user = User::from_uid(geteuid())?.context("this user has no name")?.name;
        let is_root = geteuid().is_root();
        if is_root {
            std::fs::create_dir_all(EMPTY_DIRECTORY)?;
        }
        let pam = if is_root && is_locked(&user) { "yes" } else { "no" };
        let port = free_addresses(1)?[0].port();
        let settings = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n\
             PidFile none\nStrictModes no\nUsePAM {pam}\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\n",
            folder = folder.display(),
        );
        let path = folder.join("sshd_config");
        std::fs::write(&path, settings)?;
        let mut command = Command::new(SSHD);
        command.args(["-D", "-e", "-f"]).arg(path);
        let mut process = Process::start("sshd", command);
        process.prints("Server listening on").await;
        let (authority, name) = (format!("{user}@127.0.0.1:{port}"), format!("[127.0.0.1]:{port}"));
        Ok(Self { authority, name, _process: process })
    }
}

/// Whether an account is locked: the server then refuses its keys, too, unless it asks PAM, as only that of root can.
fn is_locked(user: &str) -> bool {
    let accounts = std::fs::read_to_string("/etc/shadow").unwrap_or_default();
    accounts.lines().any(|account| account.starts_with(&format!("{user}:!")))
}

/// Creates a pair of keys in a folder, and returns the line of the public one.
async fn key(folder: &Path, name: &str) -> Result<String> {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(folder.join(name));
    ensure!(command.status().await?.success(), "ssh-keygen fails");
    Ok(std::fs::read_to_string(folder.join(format!("{name}.pub")))?)
}

#[tokio::test]
async fn work_is_fetched_and_pushed_over_ssh() -> Result<()> {
    let (site, folder) = (site(1).await?, tempfile::tempdir()?);
    let client = site.fixture.client()?;
    let (own, other) = (key(folder.path(), "host").await?, key(folder.path(), "other").await?);
    key(folder.path(), "user").await?;
    let host = SshHost::start(folder.path()).await?;
    // The workers know another key of this host.
    let known_hosts = site.fixture.state_dir().join("git-home/known_hosts");
    std::fs::create_dir_all(known_hosts.parent().context("a file has a folder")?)?;
    let pin = |key: &str| std::fs::write(&known_hosts, format!("{} {key}", host.name));
    pin(&other)?;

    let url = format!("ssh://{}{}", host.authority, site.host.path("project").display());
    let source = v1::GitSource { url, push: Some(v1::Push::default()), ..site.source() };
    let mut task = site.task_with("ssh", "head -n 1 README.md; echo a > a", source, |_| ());
    let private = std::fs::read_to_string(folder.path().join("user"))?;
    task.spec.get_or_insert_default().secrets = [("GIT".to_owned(), private)].into();
    retried(&mut task);
    let task = tasks::create(&client, task).await?;
    let forget = format!("ssh-keygen -R '{}'", host.name);
    let is_refusal =
        |failure: &v1::Failure| failure.class() == FailureClass::Source && failure.hint.contains(&forget);
    tasks::eventually("the key of the host is refused", async || {
        let log = tasks::log(&client, &task.name).await?;
        Ok(log.iter().any(|event| match &event.kind {
            Some(v1::event::Kind::State(change)) => change.failure.as_ref().is_some_and(is_refusal),
            _ => false,
        }))
    })
    .await?;

    pin(&own)?;
    let status = tasks::ended(&client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
    assert_eq!(workload::printed(&client, &task.name).await?, "one\n");
    let pushed = site.at_host(&format!("rota/{}", task.uid)).await;
    assert_eq!(pushed.as_deref(), Some(".gitignore\nREADME.md\na\nsrc/main.rs"));
    assert_eq!(std::fs::read_to_string(&known_hosts)?, format!("{} {own}", host.name));
    Ok(())
}
