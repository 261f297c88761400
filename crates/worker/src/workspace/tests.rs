//! Workspaces on a real file system.

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use rota_proto::v1::{GitSource, TaskSpec, Workspace};

use rota_telemetry::clock;
use rota_telemetry::redact::Redactor;

use super::*;

pub(super) fn assign(mode: WorkspaceMode, path: &str, cleanup: WorkspaceCleanup, fence: i64) -> Assign {
    let workspace = Workspace {
        mode: mode.into(),
        path: path.to_owned(),
        git: None,
        cleanup: cleanup.into(),
        keep_files: Vec::new(),
        shared: false,
    };
    Assign {
        task_id: "t1".to_owned(),
        fence,
        namespace: "default".to_owned(),
        spec: Some(TaskSpec { workspace: Some(workspace), ..TaskSpec::default() }),
        ..Assign::default()
    }
}

pub(super) async fn prepared(root: &Root, assign: &Assign) -> Result<AttemptDirs, PrepareError> {
    let (_stop, mut stop) = watch::channel(None);
    let (home, branch) = (Scratch(&root.scratch(assign)).home(), crate::git::branch(&assign.task_id));
    let cloning = Cloning::of(assign, (root.state(), 0), home, None, Redactor::default(), branch);
    root.prepare(assign, cloning.as_ref(), &mut stop, async {}).await
}

#[tokio::test]
async fn read_only_fresh_workspace_is_removed() {
    let state = tempfile::tempdir().unwrap();
    let root = Root::open(state.path().to_owned(), "default", "w", None).unwrap();
    let dirs = prepared(&root, &assign(WorkspaceMode::Fresh, "", WorkspaceCleanup::Always, 1)).await.unwrap();
    let inner = dirs.workspace.join("cache");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(inner.join("file"), "x").unwrap();
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o500);
    std::fs::set_permissions(&inner, closed).unwrap();
    let own = dirs.own.clone();
    dirs.clear(true);
    assert!(!own.exists());
    // Deleted in the background, where it was moved to.
    let trash = state.path().join("trash");
    while std::fs::read_dir(&trash).unwrap().next().is_some() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn state_that_others_could_open_is_closed() {
    let state = tempfile::tempdir().unwrap();
    std::fs::set_permissions(state.path(), Permissions::from_mode(0o777)).unwrap();
    Root::open(state.path().to_owned(), "default", "w", None).unwrap();
    assert_eq!(state.path().metadata().unwrap().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn cleanup_on_success_keeps_failed_workspaces() {
    let state = tempfile::tempdir().unwrap();
    let root = Root::open(state.path().to_owned(), "default", "w", None).unwrap();
    for (fence, succeeded) in [(1, false), (2, true)] {
        let assign = assign(WorkspaceMode::Fresh, "", WorkspaceCleanup::OnSuccess, fence);
        let dirs = prepared(&root, &assign).await.unwrap();
        let (workspace, scratch) = (dirs.workspace.clone(), dirs.scratch.clone());
        dirs.clear(succeeded);
        assert_eq!(workspace.exists(), !succeeded);
        assert!(!scratch.exists());
    }
}

#[tokio::test]
async fn kept_workspace_is_reused_and_exclusive() {
    let state = tempfile::tempdir().unwrap();
    let root = Root::open(state.path().to_owned(), "default", "w", None).unwrap();
    let keep = |fence| assign(WorkspaceMode::Keep, "thread-1", WorkspaceCleanup::Always, fence);
    let mut first = prepared(&root, &keep(1)).await.unwrap();
    first.start(&keep(1));
    std::fs::write(first.workspace.join("note"), "x").unwrap();

    // The second attempt waits for the first, and can be stopped meanwhile.
    let (stopper, mut stop) = watch::channel(None);
    let second = keep(2);
    let mut waiting = Box::pin(root.prepare(&second, None, &mut stop, async {}));
    assert!(futures::poll!(&mut waiting).is_pending());
    stopper.send_replace(Some(Stop { grace: Duration::ZERO }));
    assert!(matches!(waiting.await, Err(PrepareError::Stopped)));

    first.clear(true);
    let third = prepared(&root, &keep(3)).await.unwrap();
    assert!(third.workspace.join("note").exists());
}

#[tokio::test]
async fn turn_comes_with_the_lock_before_the_clone() {
    let state = tempfile::tempdir().unwrap();
    let root = Root::open(state.path().to_owned(), "default", "w", None).unwrap();
    let keep = |name, fence| assign(WorkspaceMode::Keep, name, WorkspaceCleanup::Always, fence);
    let first = prepared(&root, &keep("thread", 1)).await.unwrap();
    let came = std::cell::Cell::new(false);
    let (stopper, mut stop) = watch::channel(None);
    let second = keep("thread", 2);
    let mut waiting = Box::pin(root.prepare(&second, None, &mut stop, async { came.set(true) }));
    assert!(futures::poll!(&mut waiting).is_pending());
    stopper.send_replace(Some(Stop { grace: Duration::ZERO }));
    assert!(matches!(waiting.await, Err(PrepareError::Stopped)) && !came.get());
    drop(first);

    let mut third = keep("other", 3);
    let git = Some(GitSource { url: "file:///nowhere".to_owned(), ..GitSource::default() });
    third.spec.as_mut().unwrap().workspace.as_mut().unwrap().git = git;
    let (home, branch) = (Scratch(&root.scratch(&third)).home(), crate::git::branch(&third.task_id));
    let cloning = Cloning::of(&third, (root.state(), 0), home, None, Redactor::default(), branch);
    let made = root.prepare(&third, cloning.as_ref(), &mut stop, async { came.set(true) }).await;
    assert!(made.is_err() && came.get(), "the clone fails");
}

#[tokio::test]
async fn names_that_escape_are_rejected() {
    let state = tempfile::tempdir().unwrap();
    let root = Root::open(state.path().to_owned(), "default", "w", None).unwrap();
    for bad in ["..", "../x", "a/b", ".hidden", "/etc", "a\0b", "ä"] {
        let made = prepared(&root, &assign(WorkspaceMode::Keep, bad, WorkspaceCleanup::Always, 1)).await;
        match made {
            Err(PrepareError::Failed(failed)) => assert_eq!(failed.class(), FailureClass::Invalid, "{bad}"),
            other => panic!("{bad}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn in_place_workspace_must_exist_and_stays() {
    let (state, project) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let root = Root::open(state.path().to_owned(), "default", "w", None).unwrap();
    let path = project.path().to_str().unwrap();
    let dirs =
        prepared(&root, &assign(WorkspaceMode::InPlace, path, WorkspaceCleanup::Always, 1)).await.unwrap();
    assert_eq!(dirs.workspace, project.path());
    dirs.clear(true);
    assert!(project.path().exists());
    for bad in ["relative", "/does/not/exist"] {
        let made = prepared(&root, &assign(WorkspaceMode::InPlace, bad, WorkspaceCleanup::Always, 1)).await;
        assert!(matches!(made, Err(PrepareError::Failed(_))), "{bad}");
    }
}

#[tokio::test]
async fn starting_worker_spares_namesake_of_another_namespace() {
    let state = tempfile::tempdir().unwrap();
    let open = |namespace| Root::open(state.path().to_owned(), namespace, "shell-1", None).unwrap();
    let (one, other) = (open("one"), open("other"));
    // Ids and fences are unique within a namespace only: both attempts may have the same ones.
    for (mode, path) in [(WorkspaceMode::Fresh, ""), (WorkspaceMode::Keep, "thread")] {
        for cleanup in [WorkspaceCleanup::Always, WorkspaceCleanup::OnSuccess] {
            let mut here = assign(mode, path, cleanup, 1);
            here.namespace = "one".to_owned();
            let there = Assign { namespace: "other".to_owned(), ..here.clone() };
            let (here, there) =
                (prepared(&one, &here).await.unwrap(), prepared(&other, &there).await.unwrap());
            std::fs::write(here.workspace.join("note"), "x").unwrap();
            other.sweep();
            there.clear(true);
            assert!(here.workspace.join("note").exists() && here.scratch.exists());
            one.sweep();
            assert!(!here.scratch.exists());
        }
    }
}

#[tokio::test]
async fn leftovers_of_earlier_versions_are_removed() {
    let state = tempfile::tempdir().unwrap();
    let left = |worker| state.path().join("attempts").join(worker).join("t1.1").join("scratch");
    std::fs::create_dir_all(left("w")).unwrap();
    std::fs::create_dir_all(left("w-2")).unwrap();
    Root::open(state.path().to_owned(), "default", "w", None).unwrap().sweep();
    assert!(!left("w").exists() && left("w-2").exists());
}

#[tokio::test]
async fn state_of_other_tasks_is_no_source() {
    let (state, project) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let root = Root::open(state.path().to_owned(), "default", "w", None).unwrap();
    let other = state.path().join("kept/default/other");
    std::fs::create_dir_all(&other).unwrap();
    let other = other.to_str().unwrap();
    let link = project.path().join("link");
    std::os::unix::fs::symlink(other, &link).unwrap();
    for path in [other, link.to_str().unwrap()] {
        let in_place = assign(WorkspaceMode::InPlace, path, WorkspaceCleanup::Always, 1);
        assert!(matches!(prepared(&root, &in_place).await, Err(PrepareError::Failed(_))), "{path}");
        let escaped = path.replace("link", "%6cink").replace("other", "%6fther");
        for url in [path.to_owned(), format!("file://{escaped}"), "../../kept/default/other".to_owned()] {
            let mut clone = assign(WorkspaceMode::Fresh, "", WorkspaceCleanup::Always, 1);
            let workspace = clone.spec.as_mut().unwrap().workspace.as_mut().unwrap();
            workspace.git = Some(GitSource { url: url.clone(), ..GitSource::default() });
            match prepared(&root, &clone).await {
                Err(PrepareError::Failed(failed)) => {
                    assert_eq!(failed.class(), FailureClass::Invalid, "{url}")
                }
                made => panic!("{url}: {made:?}"),
            }
        }
    }
}

#[tokio::test]
async fn directories_of_dead_workers_are_swept() {
    let state = tempfile::tempdir().unwrap();
    let open = |worker| Root::open(state.path().to_owned(), "default", worker, None).unwrap();
    let fresh = |fence| assign(WorkspaceMode::Fresh, "", WorkspaceCleanup::Always, fence);
    let [dead, alive, survived] = ["dead", "alive", "survived"].map(open);
    let mut left = Vec::new();
    for (fence, root) in [&dead, &alive, &survived].into_iter().enumerate() {
        left.push(prepared(root, &fresh(i64::try_from(fence).unwrap() + 1)).await.unwrap().own);
    }
    // The worker has ended, and a supervisor of it has not.
    let supervisor = File::create(&survived.supervisors).unwrap();
    supervisor.lock_shared().unwrap();
    drop((dead, survived));

    let sweeper = open("sweeper");
    sweeper.sweep_others(Duration::MAX);
    let exist = || left.iter().map(|own| own.exists()).collect::<Vec<_>>();
    assert_eq!(exist(), [false, true, true]);
    drop(supervisor);
    sweeper.sweep_others(Duration::MAX);
    assert_eq!(exist(), [false, true, false]);
}

/// The owner file is one that nothing can be written to.
#[tokio::test]
async fn lock_without_written_owner_is_kept() {
    let state = tempfile::tempdir().unwrap();
    let sealed = memfd_create("owner", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
    fcntl(&sealed, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)).unwrap();
    let owner = state.path().join("running/default/.w.owner");
    std::fs::create_dir_all(owner.parent().unwrap()).unwrap();
    let file = format!("/proc/self/fd/{}", sealed.as_raw_fd());
    assert!(std::fs::write(&file, "x").is_err());
    std::os::unix::fs::symlink(file, owner).unwrap();

    let open = |worker| Root::open(state.path().to_owned(), "default", worker, None).unwrap();
    let one = open("w");
    assert!(one.earlier_process_ended().await.unwrap() && one.owner.lock().is_some());
    assert!(!open("w").hold().unwrap(), "another process");
    // Its programs may run: it is unknown which file they lock.
    let attempts = one.attempts.clone();
    drop(one);
    open("sweeper").sweep_others(Duration::MAX);
    assert!(attempts.exists());
}

#[tokio::test(start_paused = true)]
async fn errors_of_locking_are_tried_again_and_reported() {
    let state = tempfile::tempdir().unwrap();
    let owner = state.path().join("running/default/.w.owner");
    std::fs::create_dir_all(&owner).unwrap();
    let root = Root::open(state.path().to_owned(), "default", "w", None).unwrap();
    root.earlier_process_ended().await.unwrap_err();
    let passes = async {
        tokio::time::sleep(LOCK_INTERVAL).await;
        std::fs::remove_dir(&owner).unwrap();
    };
    let (is_alone, ()) = tokio::join!(root.earlier_process_ended(), passes);
    assert!(is_alone.unwrap() && root.owner.lock().is_some());
    for (errno, expected) in [(Errno::ENOLCK, true), (Errno::ENOTSUP, true), (Errno::ENOSPC, false)] {
        assert_eq!(sweep::has_no_locks(&errno.into()), expected, "{errno}");
    }
}

#[tokio::test]
async fn unused_workspaces_are_removed() {
    let state = tempfile::tempdir().unwrap();
    let root = Root::open(state.path().to_owned(), "default", "w", None).unwrap();
    let kept = |name| assign(WorkspaceMode::Keep, name, WorkspaceCleanup::Always, 1);
    let used = prepared(&root, &kept("used")).await.unwrap();
    let unused_one = prepared(&root, &kept("unused")).await.unwrap();
    let config = unused_one.cli_config().unwrap();
    let failed =
        prepared(&root, &assign(WorkspaceMode::Fresh, "", WorkspaceCleanup::Never, 7)).await.unwrap();
    let (used_path, unused_path, failed_path) =
        (used.workspace.clone(), unused_one.workspace.clone(), failed.workspace.clone());
    unused_one.clear(true);
    let later = clock::now() + Duration::from_secs(60);
    let found = |before| {
        let mut paths: Vec<_> = unused(state.path(), before).into_iter().map(|found| found.path).collect();
        paths.sort();
        paths
    };
    // Times of files are at the mercy of every program of their user.
    let long_ago = std::time::UNIX_EPOCH;
    for path in [&unused_path, &failed_path] {
        std::fs::File::open(path).unwrap().set_modified(long_ago).unwrap();
        std::fs::File::open(Sibling(path).lock()).unwrap().set_modified(long_ago).unwrap();
    }
    assert_eq!(found(clock::now() - Duration::from_secs(60)), Vec::<PathBuf>::new());
    // One is locked, and the attempt of another one still has its directory.
    assert_eq!(found(later), std::slice::from_ref(&unused_path));
    failed.clear(false);
    let mut both = vec![unused_path.clone(), failed_path.clone()];
    both.sort();
    assert_eq!(found(later), both);
    assert_eq!(found(clock::now() - Duration::from_secs(60)), Vec::<PathBuf>::new());
    assert_eq!(remove_unused(state.path(), later).len(), 2);
    assert!(used_path.exists());
    assert!(!unused_path.exists() && !failed_path.exists() && !config.exists());
}

#[tokio::test]
async fn directory_in_place_is_exclusive_unless_shared() {
    let (state, other, project) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Workers with nothing in common but the machine.
    let one = Root::open(state.path().to_owned(), "default", "w", None).unwrap();
    let two = Root::open(other.path().to_owned(), "default", "v", None).unwrap();
    let path = project.path().to_str().unwrap();
    let place = |fence, shared| {
        let mut made = assign(WorkspaceMode::InPlace, path, WorkspaceCleanup::Always, fence);
        made.spec.as_mut().unwrap().workspace.as_mut().unwrap().shared = shared;
        made
    };
    let alone = place(1, false);
    assert_eq!(one.busy_workspace(&alone), None);
    let first = prepared(&one, &alone).await.unwrap();
    for shared in [false, true] {
        let (stopper, mut stop) = watch::channel(None);
        let second = place(2, shared);
        assert_eq!(two.busy_workspace(&second), Some(path));
        let mut waiting = Box::pin(two.prepare(&second, None, &mut stop, async {}));
        assert!(futures::poll!(&mut waiting).is_pending());
        stopper.send_replace(Some(Stop { grace: Duration::ZERO }));
        assert!(matches!(waiting.await, Err(PrepareError::Stopped)));
    }
    drop(first);
    let first = prepared(&two, &place(3, true)).await.unwrap();
    let second = prepared(&one, &place(4, true)).await.unwrap();
    assert_eq!(one.busy_workspace(&alone), Some(path));
    drop((first, second));
    assert_eq!(one.busy_workspace(&alone), None);
    prepared(&one, &alone).await.unwrap();
    assert_eq!(std::fs::read_dir(project.path()).unwrap().count(), 0, "nothing is written there");
}

#[tokio::test]
async fn left_workspaces_are_locked_and_checked() {
    let (state, project) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let root = Root::open(state.path().to_owned(), "default", "w", None).unwrap();
    let keep = assign(WorkspaceMode::Keep, "repo", WorkspaceCleanup::Always, 1);
    let next = Assign { task_id: "t2".to_owned(), ..keep.clone() };
    let mut left = Left::default();
    left.result.task_id = keep.task_id.clone();
    let mut dirs = prepared(&root, &keep).await.unwrap();
    dirs.start(&keep);
    left.workspace = dirs.workspace.to_str().unwrap().to_owned();
    drop(dirs);
    let (dirs, is_whole) = root.take_over(&left);
    assert!(is_whole);
    assert_eq!(root.busy_workspace(&next), Some("repo"));
    assert!(!root.take_over(&left).1, "another attempt works there");
    drop(dirs);
    prepared(&root, &next).await.unwrap().start(&next);
    assert!(!root.take_over(&left).1, "another task has worked there");

    let path = project.path().to_str().unwrap();
    let mut alone = assign(WorkspaceMode::InPlace, path, WorkspaceCleanup::Always, 2);
    left.workspace = path.to_owned();
    let taken = root.take_over(&left);
    assert!(taken.1 && root.busy_workspace(&alone).is_some());
    assert!(!root.take_over(&left).1);
    drop(taken);
    left.shared = true;
    let taken = root.take_over(&left);
    assert!(taken.1 && root.busy_workspace(&alone).is_some());
    alone.spec.as_mut().unwrap().workspace.as_mut().unwrap().shared = true;
    assert_eq!(root.busy_workspace(&alone), None);
}
