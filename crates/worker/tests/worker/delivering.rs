//! Delivery into repositories on the worker's machine, and of what an earlier attempt has left, perhaps on another worker.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rota_proto::v1::{
    Artifact, ArtifactList, Changes, CommandRuntime, FailureClass, GitSource, Push, Runtime, TaskResult,
    TaskState, Workspace, runtime,
};
use rota_proto::worker::v1::session_response::Kind as ToWorker;
use rota_proto::worker::v1::{Checkpoints, UndeliveredWork, result};
use rota_testkit::{Backend, Cluster, tasks};
use tempfile::TempDir;

use crate::control_plane::{FakeControlPlane, Worker, assign};
use crate::support::supervised;

fn git(folder: &Path, args: &[&str]) -> String {
    let done = std::process::Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// Makes a repository with one commit.
fn repository() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    git(folder.path(), &["init", "--quiet", "--initial-branch=main"]);
    git(folder.path(), &["commit", "--quiet", "--allow-empty", "-m", "first"]);
    folder
}

/// Assigns a task that pushes to a repository, with what earlier attempts have left.
fn pushing(repository: &Path, checkpoints: Checkpoints) -> ToWorker {
    let mut task = assign(1, runtime::Kind::Command(CommandRuntime::default()));
    task.checkpoints = Some(checkpoints);
    let url = format!("file://{}", repository.display());
    let source = GitSource { url, push: Some(Push::default()), ..GitSource::default() };
    task.spec.as_mut().unwrap().workspace = Some(Workspace { git: Some(source), ..Workspace::default() });
    ToWorker::Assign(Box::new(task))
}

/// A stolen token of a worker stores a list, of which another worker makes a request at the forge.
#[tokio::test]
async fn only_the_tasks_branch_is_delivered() {
    let source = repository();
    let (first, branches) =
        (git(source.path(), &["rev-parse", "HEAD"]), git(source.path(), &["branch", "-a"]));
    let mut plane = FakeControlPlane::start().await;
    let changes = Changes {
        base_commit: first.clone(),
        commit: first.replace(|digit: char| digit.is_ascii_hexdigit(), "1"),
        branch: "release/1".to_owned(),
        bundle: "git/changes.bundle".to_owned(),
        ..Changes::default()
    };
    let artifacts = Some(ArtifactList { changes: Some(changes), ..ArtifactList::default() });
    plane.left(UndeliveredWork { artifacts, ..UndeliveredWork::default() });
    let _worker = Worker::start(&plane);
    let mut session = plane.welcomed().await;
    let checkpoints = Checkpoints { deliver: true, ..Checkpoints::default() };
    session.send(pushing(source.path(), checkpoints)).await;
    session.accepted(1).await;
    let (_, ended) = session.result().await;
    let Some(result::Kind::Failed(failed)) = ended.kind else { panic!("{ended:?}") };
    assert_eq!(failed.class(), FailureClass::Delivery);
    assert!(failed.message.ends_with("it is of the branch \"release/1\""), "{failed:?}");
    assert_eq!(git(source.path(), &["branch", "-a"]), branches);
}

/// What an agent has worked for stays to be delivered: the task does not end, and the agent does not work again.
#[tokio::test]
async fn work_that_cannot_be_fetched_stays_undelivered() {
    let source = repository();
    let mut plane = FakeControlPlane::start().await;
    let changes = Changes { bundle: "git/changes.bundle".to_owned(), ..Changes::default() };
    // Refused before any part is fetched.
    let bundle = Artifact { name: changes.bundle.clone(), size: i64::MAX, ..Artifact::default() };
    let list = ArtifactList { artifacts: vec![bundle], changes: Some(changes), ..ArtifactList::default() };
    let result = Some(TaskResult { text: "done".to_owned(), ..TaskResult::default() });
    plane.left(UndeliveredWork { artifacts: Some(list), result, ..UndeliveredWork::default() });
    let _worker = Worker::start(&plane);
    let mut session = plane.welcomed().await;
    let checkpoints = Checkpoints { deliver: true, ..Checkpoints::default() };
    session.send(pushing(source.path(), checkpoints)).await;
    session.accepted(1).await;
    let (_, ended) = session.result().await;
    assert_eq!(ended.undelivered.map(|result| result.text).as_deref(), Some("done"));
    let Some(result::Kind::Failed(failed)) = ended.kind else { panic!("{:?}", ended.kind) };
    assert_eq!(failed.class(), FailureClass::Delivery, "{failed:?}");
    assert!(
        failed.message.contains("GiB of files") && failed.hint.contains("put the part back"),
        "{failed:?}"
    );
}

/// Its branch, the start of its clone and its checkpoint are of one answer.
#[tokio::test(flavor = "multi_thread")]
async fn continuing_attempts_ask_once_for_earlier_work() {
    supervised();
    let source = repository();
    let mut plane = FakeControlPlane::start().await;
    let _worker = Worker::start(&plane);
    let mut session = plane.welcomed().await;
    let checkpoints = Checkpoints { exist: true, continues: true, ..Checkpoints::default() };
    session.send(pushing(source.path(), checkpoints)).await;
    session.accepted(1).await;
    let (_, ended) = session.result().await;
    let Some(result::Kind::Failed(failed)) = ended.kind else { panic!("{ended:?}") };
    // The last part that needs the answer has it.
    assert!(failed.message.contains("there is no checkpoint of it"), "{failed:?}");
    assert_eq!(plane.checkpoint_requests(), 1);
}

/// A program of another attempt can make a repository, and a task can name it: git runs hooks and commands of a repository that
/// receives a push, with the variables of the call but without its settings.
#[tokio::test(flavor = "multi_thread")]
async fn receiving_repositories_run_nothing() {
    supervised();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("made")).unwrap();
    git(&path("made"), &["init", "--quiet", "--initial-branch=main"]);
    git(&path("made"), &["commit", "--quiet", "--allow-empty", "-m", "first"]);
    for name in ["alternate", "hostile"] {
        git(folder.path(), &["clone", "--quiet", "--bare", "made", name]);
    }
    let program = path("program");
    let ran = path("ran");
    let line = format!("echo \"$0 $HOME\" >> '{}'; echo '[http]' > \"$HOME/.gitconfig\"", ran.display());
    std::fs::write(&program, format!("#!/bin/sh\n{line}\n")).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o700)).unwrap();
    for hook in ["pre-receive", "update", "reference-transaction", "post-receive", "post-update"] {
        std::fs::copy(&program, path("hostile/hooks").join(hook)).unwrap();
    }
    let objects = format!("{}\n", path("alternate/objects").display());
    std::fs::write(path("hostile/objects/info/alternates"), objects).unwrap();
    let hostile = path("hostile");
    git(&hostile, &["config", "core.alternateRefsCommand", program.to_str().unwrap()]);
    git(&hostile, &["config", "receive.denyCurrentBranch", "updateInstead"]);

    let cluster = Cluster::start(Backend::Memory).await.unwrap();
    let client = cluster.client();
    let runtime = Runtime {
        kind: Some(runtime::Kind::Command(CommandRuntime {
            shell: "echo a > a".to_owned(),
            ..Default::default()
        })),
    };
    tasks::agent(client, "coder", runtime, &[]).await.unwrap();
    let state = path("state");
    let _worker = cluster.worker_in("coder", "w", 1, state.clone()).unwrap();
    let mut task = tasks::task("coder");
    let url = hostile.to_str().unwrap().to_owned();
    let source = GitSource { url, push: Some(Push::default()), ..GitSource::default() };
    task.spec.as_mut().unwrap().workspace = Some(Workspace { git: Some(source), ..Workspace::default() });
    let task = tasks::create(client, task).await.unwrap();
    let status = tasks::ended(client, &task.name).await.unwrap().status.unwrap();

    assert_eq!(status.state(), TaskState::Succeeded, "{status:?}");
    assert_eq!(git(&hostile, &["show", &format!("rota/{}:a", task.uid)]), "a");
    assert!(!ran.exists(), "{}", std::fs::read_to_string(&ran).unwrap());
    assert!(!state.join("git-home/.gitconfig").exists());
}
