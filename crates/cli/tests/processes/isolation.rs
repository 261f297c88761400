//! Attempts that look for what belongs to their worker, to other attempts or to the user.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use anyhow::Result;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rota_proto::v1::{self, TaskState, Workspace, WorkspaceMode};
use rota_testkit::git_host::{self, GitHost};
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
pub(crate) async fn worker(fixture: &Fixture, name: &str, more: &[&str]) -> Result<Process> {
    let path = |name: &str| fixture.dir().join(name);
    let mut command = fixture.command(&["worker", "--agent", workload::AGENT, "--worker", name]);
    command
        .args(["--slots", "10", "--state-dir"])
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
            // By another process: one that this one starts meanwhile would inherit the open file, which cannot be executed then.
            let copied =
                std::process::Command::new("cp").arg(env!("CARGO_BIN_EXE_rota")).arg(&program).status()?;
            anyhow::ensure!(copied.success(), "cp: {copied}");
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

pub(crate) async fn prepared() -> Result<Fixture> {
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

/// Copies the token, and passes its input on with a mark.
const STEAL: &str = r#"#!/bin/sh
cat FIXTURE/token > FIXTURE/tmp/stolen
cat && echo filtered
"#;
/// Has git run that wherever it can, and writes into what other attempts share.
const HOSTILE: &str = r#"
printf '%s' "$STEAL" > "$TMPDIR/steal" && chmod +x "$TMPDIR/steal"
git config core.fsmonitor "$TMPDIR/steal"
git config core.sshCommand "$TMPDIR/steal"
git config filter.steal.clean "$TMPDIR/steal"
mkdir -p .git/hooks && cp "$TMPDIR/steal" .git/hooks/post-index-change
echo 'a filter=steal' > .gitattributes
cache=$(dirname "$(cat .git/objects/info/alternates)")
for path in objects/x hooks config; do echo x > "$cache/$path" && echo "wrote $path"; done 2>/dev/null
git --git-dir="$cache" update-ref refs/remotes/origin/main "$(git commit-tree -m x HEAD^{tree})" 2>/dev/null && echo "moved a branch"
git fetch -q --depth=1 "$cache" 2>/dev/null
echo /nowhere >> .git/objects/info/alternates
printf '#!/bin/sh\nexit 1\n' | tee .git/hooks/pre-commit .git/hooks/pre-push > /dev/null; chmod +x .git/hooks/pre-*
echo a > a; rm -rf "$HOME/../git"; ln -s "$FIXTURE/tmp" "$HOME/../git"
echo end
"#;

/// Works on the same repository at the same time: nothing of the hostile agent is in its way.
const NEIGHBOUR: &str = r#"
cat .git/objects/info/alternates | wc -l
test -e .git/shallow && echo shallow
git config --get-regexp 'fsmonitor|filter'
echo "$NUMBER" > "of-$NUMBER" && git add . && git commit -qm work && git log --oneline | wc -l
"#;

/// What an agent leaves in its repository runs within the attempt's walls, and what attempts share is closed to it.
#[tokio::test]
async fn repositories_prepare_no_way_out() -> Result<()> {
    let fixture = prepared().await?;
    let _worker = worker(&fixture, "confined", &[]).await?;
    let folder = tempfile::tempdir()?;
    let host = GitHost::start(folder.path()).await?;
    let url = host.repository("project", &[("README.md", "one")]).await?;
    let client = fixture.client()?;
    let path = fixture.dir().to_str().unwrap();
    let ssh = format!("sh -c 'cat {path}/token > {path}/tmp/stolen' --");
    let steal = STEAL.replace("FIXTURE", path);
    // The clone does not take the task's variables.
    let environment = [("FIXTURE", path), ("STEAL", &steal), ("GIT_SSH_COMMAND", &ssh), ("GIT_DIR", "/")];
    let workspace = || {
        let push = Some(rota_proto::v1::Push::default());
        let git = rota_proto::v1::GitSource { url: url.clone(), push, ..Default::default() };
        Some(Workspace { git: Some(git), ..Workspace::default() })
    };
    let gate = workload::Gate::closed().await?;
    let mut task = workload::shell(&format!("unset GIT_DIR\n{}\n{HOSTILE}", gate.line()), &environment);
    task.spec.get_or_insert_default().workspace = workspace();
    task.alias = "hostile".to_owned();
    let mut all = vec![tasks::create(&client, task).await?];
    for number in 1..10 {
        let line = format!("{}\n{NEIGHBOUR}", gate.line());
        let mut task = workload::shell(&line, &[("NUMBER", &number.to_string())]);
        task.spec.get_or_insert_default().workspace = workspace();
        all.push(tasks::create(&client, task).await?);
    }
    gate.open(&client, &all).await?;
    let name = all.remove(0).name;
    let status = tasks::ended(&client, &name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded, "{:?}", status.failure);
    assert_eq!(workload::printed(&client, &name).await?, "here\nend\n");
    for (number, task) in (1..).zip(all) {
        let status = tasks::ended(&client, &task.name).await?.status.unwrap();
        let printed = workload::printed(&client, &task.name).await?;
        assert_eq!(
            (status.state(), printed.as_str()),
            (TaskState::Succeeded, "here\n1\n2\n"),
            "{:?}",
            status.failure
        );
        let (project, branch) = (host.path("project"), format!("rota/{}", task.uid));
        let pushed = git_host::git(&project, &["ls-tree", "--name-only", &branch]).await?;
        assert_eq!(pushed, format!("README.md\nof-{number}"));
    }
    let shown = fixture.rota(&["diff", "hostile"]).await.success();
    let (_, id) = name.rsplit_once('/').unwrap();
    let pushed = git_host::git(&host.path("project"), &["show", &format!("rota/{id}:a")]).await?;
    assert_eq!(pushed, "a\nfiltered");
    // The filter did run.
    assert!(shown.contains("+a\n+filtered"), "{shown}");
    let left: Vec<_> =
        std::fs::read_dir(fixture.dir().join("tmp"))?.flatten().map(|entry| entry.file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

/// Prints as its result what the worker has written for it, and whether it can change that.
const CLI: &str = r#"#!/bin/sh
for arg; do case "$arg" in --system-prompt-file=*) file=${arg#*=} ;; esac; done
read -r initialize; read -r prompt
given=$(cat "$file")
(echo more >> "$file") 2>/dev/null && given="$given, which it can change"
echo '{"type":"system","subtype":"init","session_id":"s1","model":"m"}'
printf '{"type":"result","subtype":"success","is_error":false,"result":"%s","num_turns":1}\n' "$given"
"#;
/// Links of what the worker writes to the user's own file, as a dependency that is installed can make them.
const PLANT: &str = r#"
mkdir -p "$HOME/../script"
for path in settings.json system-prompt script/conversation.txt events; do
  ln -s "$FIXTURE/home/user" "$HOME/../$path"
done
ln -s "$FIXTURE/home/user" link
"#;

/// The worker may write what its attempts may not: it follows none of their links.
#[tokio::test]
async fn links_of_setup_prepare_no_way_out() -> Result<()> {
    let fixture = prepared().await?;
    let (victim, tools) = (fixture.dir().join("home/user"), fixture.dir().join("tools"));
    std::fs::write(&victim, "of the user")?;
    own(&victim, 0o600)?;
    std::fs::create_dir(&tools)?;
    std::fs::write(tools.join("claude"), CLI)?;
    own(&tools.join("claude"), 0o700)?;
    own(&tools, 0o700)?;
    let _worker = worker(&fixture, "confined", &["--allow-read", tools.to_str().unwrap()]).await?;
    let client = fixture.client()?;
    let write = v1::ScriptFile { path: "link".to_owned(), text: "of the author".to_owned() };
    let script = |step| {
        let steps = vec![v1::ScriptStep { kind: Some(step) }];
        v1::runtime::Kind::Scripted(v1::ScriptedRuntime { steps, seed: 0 })
    };
    let claude = v1::ClaudeRuntime {
        program: tools.join("claude").to_string_lossy().into_owned(),
        system_prompt: "of Rota".to_owned(),
        ..Default::default()
    };
    let shell = v1::CommandRuntime { shell: "echo a pipe".to_owned(), ..Default::default() };
    for (runtime, expected) in [
        (v1::runtime::Kind::Claude(claude), Ok("of Rota")),
        (v1::runtime::Kind::Command(shell), Ok("a pipe")),
        (script(v1::script_step::Kind::WriteFile(write)), Err(v1::FailureClass::Invalid)),
        (script(v1::script_step::Kind::Remember("a line".to_owned())), Err(v1::FailureClass::Invalid)),
    ] {
        let mut task = workload::shell("", &[("FIXTURE", fixture.dir().to_str().unwrap())]);
        let spec = task.spec.get_or_insert_default();
        spec.runtime = Some(v1::Runtime { kind: Some(runtime) });
        let argv = ["/bin/sh", "-ec", PLANT].map(str::to_owned).into();
        spec.setup = vec![v1::WorkspaceCommand { argv, ..Default::default() }];
        spec.retry = Some(v1::RetryPolicy { max_attempts: 1, ..Default::default() });
        let name = tasks::create(&client, task).await?.name;
        let status = tasks::ended(&client, &name).await?.status.unwrap();
        let failure = status.failure.as_ref().map(v1::Failure::class);
        let text = status.result.as_ref().map(|result| result.text.as_str());
        assert_eq!(text.ok_or(failure.unwrap_or_default()), expected, "{:?}", status.failure);
        assert_eq!(std::fs::read_to_string(&victim)?, "of the user");
    }
    Ok(())
}

/// Landlock does not keep an attempt from changing modes: the worker takes back what opens its own.
#[tokio::test]
async fn changed_modes_open_nothing_of_the_worker() -> Result<()> {
    let fixture = prepared().await?;
    let _worker = worker(&fixture, "confined", &[]).await?;
    let client = fixture.client()?;
    let line =
        r#"chmod 777 "$FIXTURE/workers" "$FIXTURE/secrets"; chmod 666 "$FIXTURE/confined.token"; echo done"#;
    let name = tasks::create(&client, workload::shell(line, &[("FIXTURE", fixture.dir().to_str().unwrap())]))
        .await?
        .name;
    tasks::ended(&client, &name).await?;
    assert_eq!(workload::printed(&client, &name).await?, "done\n");
    for entry in std::fs::read_dir(fixture.dir())? {
        let path = entry?.path();
        let is_token = path.extension().is_some_and(|extension| extension == "token");
        if is_token || path.ends_with("workers") || path.ends_with("secrets") {
            assert_eq!(path.metadata()?.permissions().mode() & 0o077, 0, "{}", path.display());
        }
    }
    let log = tasks::log(&client, &name).await?;
    let opened = log.iter().filter(|event| {
        matches!(&event.kind, Some(v1::event::Kind::Notice(notice)) if notice.code == "private_path_opened")
    });
    assert_eq!(opened.count(), 3);
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
    // Its memory and environment are closed even then.
    assert!(!printed.contains("environ"), "{printed}");
    assert!(printed.ends_with(WORKS), "{printed}");
    let page = fixture.rota(&["workers", "open"]).await;
    assert!(page.out.contains("no: the worker was started with --unconfined"), "{}", page.out);
    Ok(())
}

/// The programs do call what turns dumps off.
#[tokio::test]
async fn control_plane_and_worker_dump_no_core() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_CORE)?;
    // Inherited by what this test starts.
    setrlimit(Resource::RLIMIT_CORE, most, most)?;
    let fixture = Fixture::start(Graces::LONG).await?;
    workload::agent(&fixture.client()?).await?;
    let worker = fixture.worker(workload::AGENT, "one", 1).await?;
    for process in [fixture.server(), &worker] {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.pid()))?;
        let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size"));
        assert_eq!(core.and_then(|values| values.split_whitespace().next()), Some("0"), "{limits}");
    }
    Ok(())
}
