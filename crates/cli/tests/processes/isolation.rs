//! Attempts that look for what belongs to their worker, to other attempts or to the user.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use anyhow::Result;
use rota_proto::v1::{TaskState, Workspace, WorkspaceMode};
use rota_testkit::tasks;

use crate::process::Process;
use crate::{Fixture, Graces, workload};

/// User without rights of which nothing else of the machine runs. Root is not isolated.
const UNPRIVILEGED: u32 = 65534;

/// Prints a line for each thing that it could do.
const PROBE: &str = r#"
worker=$(awk '/^PPid/ {print $2}' /proc/$PPID/status)
try() { if "$@" >/dev/null 2>&1; then echo "can: $*"; fi; }
try cat "$FIXTURE/token"
try sh -c 'cat "$FIXTURE"/*.token'
try cat "$FIXTURE/secrets/KEY"
try ls "$FIXTURE/workers/running"
try cat "$FIXTURE/workers/kept/default/neighbour/file"
try ls "$FIXTURE/home"
try cat /proc/$worker/environ
try cat /proc/$PPID/environ
try kill -0 $worker
try kill -0 $PPID
try sh -c 'echo > "$FIXTURE/tmp/created"'
try prlimit --pid $worker --nofile=64:64
try renice 19 $worker
try ls /dev/pts
try unshare --user --map-root-user true
exec 2>&1
prlimit --nofile=64 true && nice true && echo "set limits of its own"
git init -q . && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m first && git log --format='committed %s'
echo text > "$(mktemp)" && echo "wrote a temporary file"
sh -c 'sleep 60 & kill $!' && echo "signalled a child"
echo end
"#;

/// Starts a worker as an ordinary user, also where the tests run as root.
async fn worker(fixture: &Fixture, name: &str, more: &[&str]) -> Result<Process> {
    let path = |name: &str| fixture.dir().join(name);
    let mut command = fixture.command(&["worker", "--agent", workload::AGENT, "--worker", name]);
    command
        .args(["--slots", "2", "--state-dir"])
        .arg(path("workers"))
        .arg("--secrets-dir")
        .arg(path("secrets"));
    command.args(more);
    let token = fixture.worker_token(workload::AGENT, name).await?;
    own(&token, 0o600)?;
    command.env("ROTA_TOKEN_FILE", token);
    if nix::unistd::geteuid().is_root() {
        // The build directory may belong to root alone.
        let program = path("rota");
        if !program.exists() {
            std::fs::copy(env!("CARGO_BIN_EXE_rota"), &program)?;
        }
        let given: Vec<_> = command.as_std().get_args().map(ToOwned::to_owned).collect();
        let environment: Vec<_> = command
            .as_std()
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        command = tokio::process::Command::new(program);
        command
            .args(given)
            .env_clear()
            .envs(environment)
            .current_dir(fixture.dir())
            .uid(UNPRIVILEGED)
            .gid(UNPRIVILEGED);
    }
    let process = Process::start(name, command);
    tasks::connected(&fixture.client()?, name).await?;
    Ok(process)
}

fn own(path: &Path, mode: u32) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    if nix::unistd::geteuid().is_root() {
        chown(path, Some(UNPRIVILEGED), Some(UNPRIVILEGED))?;
    }
    Ok(())
}

async fn prepared() -> Result<Fixture> {
    let fixture = Fixture::start(Graces::LONG).await?;
    std::fs::set_permissions(fixture.dir(), std::fs::Permissions::from_mode(0o755))?;
    let neighbour = fixture.dir().join("workers/kept/default/neighbour");
    std::fs::create_dir_all(&neighbour)?;
    std::fs::write(neighbour.join("file"), "of another task")?;
    for directory in ["secrets", "home", "tmp", "project", "workers/kept/default", "workers/kept", "workers"]
    {
        std::fs::create_dir_all(fixture.dir().join(directory))?;
        own(&fixture.dir().join(directory), 0o700)?;
    }
    own(&neighbour, 0o700)?;
    std::fs::write(fixture.dir().join("secrets/KEY"), "secret-of-the-agent")?;
    own(&fixture.dir().join("secrets/KEY"), 0o600)?;
    own(&fixture.dir().join("token"), 0o600)?;
    workload::agent(&fixture.client()?).await?;
    Ok(fixture)
}

async fn probe(fixture: &Fixture, worker: &str, workspace: Option<Workspace>) -> Result<String> {
    let client = fixture.client()?;
    // A task cannot open directories by naming them as those of programs.
    let path = format!("/usr/local/bin:/usr/bin:/bin:{}", fixture.dir().join("secrets").display());
    let mut task = workload::shell(PROBE, &[("FIXTURE", fixture.dir().to_str().unwrap()), ("PATH", &path)]);
    let spec = task.spec.get_or_insert_default();
    spec.workspace = workspace;
    spec.target =
        Some(rota_proto::v1::Target { kind: Some(rota_proto::v1::target::Kind::Worker(worker.to_owned())) });
    let name = tasks::create(&client, task).await?.name;
    let status = tasks::ended(&client, &name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
    workload::printed(&client, &name).await
}

/// Lets git run a program of the task's choice, which copies the token. Returns whether it could.
async fn clone_copies_token(fixture: &Fixture, worker: &str) -> Result<bool> {
    let client = fixture.client()?;
    let copy = fixture.dir().join("tmp/copy");
    let command = format!("sh -c 'cat {} > {}' --", fixture.dir().join("token").display(), copy.display());
    let mut task = workload::shell("true", &[("GIT_SSH_COMMAND", &command)]);
    let spec = task.spec.get_or_insert_default();
    let git =
        rota_proto::v1::GitSource { url: "ssh://host.invalid/repository".to_owned(), ..Default::default() };
    spec.workspace = Some(Workspace { git: Some(git), ..Workspace::default() });
    spec.target =
        Some(rota_proto::v1::Target { kind: Some(rota_proto::v1::target::Kind::Worker(worker.to_owned())) });
    let name = tasks::create(&client, task).await?.name;
    // The clone fails, and is tried again: the repository may be back.
    tasks::until(&client, &name, |status| status.attempt >= 2).await?;
    tasks::cancel(&client, &name).await?;
    Ok(copy.exists())
}

/// Serves a clone, and prepares links for what comes after it: in the place of the working directory, and of files that the
/// worker writes.
const LINKING: &str = r#"
own=$(dirname "$(dirname "$HOME")")
for name in context output claude system-prompt; do ln -s "$FIXTURE/tmp" "$own/scratch/$name"; done
git init -q "$TMPDIR/served"
git -C "$TMPDIR/served" -c user.name=a -c user.email=a@b commit -q --allow-empty -m served
mv "$own/work" "$own/moved" && ln -s / "$own/work"
exec git-upload-pack "$TMPDIR/served"
"#;
/// Prints what came of them.
const LOOK: &str = r#"
for name in context output; do test -L "$HOME/../$name" && echo "a link: $name"; done
pwd -P | sed 's|.*/||'
git log --format=%s
"#;

/// A clone runs programs of the task's choice, within walls that are narrower than the attempt's.
#[tokio::test]
async fn clone_prepares_no_way_out() -> Result<()> {
    let fixture = prepared().await?;
    let _worker = worker(&fixture, "confined", &[]).await?;
    let client = fixture.client()?;
    let command = format!("sh -c '{LINKING}' --");
    let environment = [("GIT_SSH_COMMAND", command.as_str()), ("FIXTURE", fixture.dir().to_str().unwrap())];
    let mut task = workload::shell(LOOK, &environment);
    let spec = task.spec.get_or_insert_default();
    let git =
        rota_proto::v1::GitSource { url: "ssh://host.invalid/repository".to_owned(), ..Default::default() };
    spec.workspace = Some(Workspace { git: Some(git), ..Workspace::default() });
    spec.target = Some(rota_proto::v1::Target {
        kind: Some(rota_proto::v1::target::Kind::Worker("confined".to_owned())),
    });
    let name = tasks::create(&client, task).await?.name;
    let status = tasks::ended(&client, &name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
    assert_eq!(workload::printed(&client, &name).await?, "work\nserved\n");
    assert!(!fixture.dir().join("tmp/task.json").exists());
    Ok(())
}

const WORKS: &str =
    "set limits of its own\ncommitted first\nwrote a temporary file\nsignalled a child\nend\n";

#[tokio::test]
async fn attempts_open_only_their_own() -> Result<()> {
    let fixture = prepared().await?;
    let _worker = worker(&fixture, "confined", &[]).await?;
    let in_place = Workspace {
        mode: WorkspaceMode::InPlace.into(),
        path: fixture.dir().join("project").to_string_lossy().into_owned(),
        ..Workspace::default()
    };

    for workspace in [None, Some(in_place)] {
        assert_eq!(probe(&fixture, "confined", workspace).await?, WORKS);
    }
    assert!(fixture.dir().join("project/.git").is_dir());
    assert!(!clone_copies_token(&fixture, "confined").await?);
    let page = fixture.rota(&["workers", "confined"]).await;
    assert!(page.out.contains("Isolated"), "{}", page.out);
    Ok(())
}

/// Shows that the probe finds what is open.
#[tokio::test]
async fn unconfined_attempts_open_what_their_worker_can() -> Result<()> {
    let fixture = prepared().await?;
    let _worker = worker(&fixture, "open", &["--unconfined"]).await?;

    let printed = probe(&fixture, "open", None).await?;

    for expected in
        ["/token", "*.token", "/workers/running", "neighbour/file", "kill -0", "--nofile=64:64", "/dev/pts"]
    {
        assert!(printed.contains(expected), "{printed}");
    }
    assert!(clone_copies_token(&fixture, "open").await?);
    // Its memory and environment are closed even then.
    assert!(!printed.contains("environ"), "{printed}");
    assert!(printed.ends_with(WORKS), "{printed}");
    let page = fixture.rota(&["workers", "open"]).await;
    assert!(page.out.contains("no: the worker was started with --unconfined"), "{}", page.out);
    Ok(())
}
