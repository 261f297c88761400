//! Delivery of what an earlier attempt has left, perhaps on another worker.

use std::path::Path;

use rota_proto::v1::{
    ArtifactList, Changes, CommandRuntime, FailureClass, GitSource, Push, Workspace, runtime,
};
use rota_proto::worker::v1::session_response::Kind as ToWorker;
use rota_proto::worker::v1::{Checkpoints, UndeliveredWork, result};

use crate::control_plane::{FakeControlPlane, Worker, assign};

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

/// A stolen token of a worker stores a list, of which another worker makes a request at the forge.
#[tokio::test]
async fn only_the_tasks_branch_is_delivered() {
    let source = tempfile::tempdir().unwrap();
    git(source.path(), &["init", "--quiet", "--initial-branch=main"]);
    git(source.path(), &["commit", "--quiet", "--allow-empty", "-m", "first"]);
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
    let mut task = assign(1, runtime::Kind::Command(CommandRuntime::default()));
    task.checkpoints = Some(Checkpoints { deliver: true, ..Checkpoints::default() });
    let url = format!("file://{}", source.path().display());
    let git_source = GitSource { url, push: Some(Push::default()), ..GitSource::default() };
    task.spec.as_mut().unwrap().workspace = Some(Workspace { git: Some(git_source), ..Workspace::default() });
    session.send(ToWorker::Assign(Box::new(task))).await;
    session.accepted(1).await;
    let (_, ended) = session.result().await;
    let Some(result::Kind::Failed(failed)) = ended.kind else { panic!("{ended:?}") };
    assert_eq!(failed.class(), FailureClass::Delivery);
    assert!(failed.message.ends_with("it is of the branch \"release/1\""), "{failed:?}");
    assert_eq!(git(source.path(), &["branch", "-a"]), branches);
}
