//! The supervisor process, with real programs.

use std::path::PathBuf;
use std::time::Duration;

use rota_worker::runtimes::Environment;
use rota_worker::supervise::{EndedBy, Error, Group, Program, start};
use tempfile::tempdir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    exited, is_alive, is_frozen, kill, parent, pid_in, stubborn_pids, stubborn_processes, supervised, until,
};

/// Enough for a program to end that was asked to.
const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(600);

fn shell(line: &str) -> Program {
    supervised();
    let path = "/usr/local/bin:/usr/bin:/bin".to_owned();
    Program {
        program: "sh".to_owned(),
        args: vec!["-c".to_owned(), line.to_owned()],
        environment: Environment(
            [("PATH".to_owned(), path), ("KEY".to_owned(), "hunter2".to_owned())].into(),
        ),
        directory: PathBuf::from("/"),
    }
}

#[tokio::test]
async fn streams_environment_and_exit_code() {
    let mut running = start(shell("cat; env; echo bad >&2; exit 7")).await.unwrap();
    running.stdin.take().unwrap().write_all(b"hello\n").await.unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    running.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
    running.stderr.take().unwrap().read_to_string(&mut err).await.unwrap();
    let exit = running.wait().await.unwrap();
    assert_eq!((exit.code, exit.signal, exit.orphans), (Some(7), None, 0));
    assert_eq!(err, "bad\n");
    let mut lines: Vec<_> = out.lines().filter_map(|line| line.split('=').next()).collect();
    lines.sort_unstable();
    // Without those that the shell adds; none is inherited from the supervisor or the worker.
    lines.retain(|name| !["PWD", "SHLVL", "OLDPWD", "_"].contains(name));
    assert_eq!(lines, ["KEY", "PATH", "hello"]);
}

#[tokio::test]
async fn start_errors_have_their_kind() {
    for (program, directory) in [("no-such-program", "/"), ("sh", "/no/such/directory")] {
        let program = Program { program: program.to_owned(), directory: directory.into(), ..shell("true") };
        match start(program).await {
            Err(Error::Start { source, .. }) => assert_eq!(source.kind(), std::io::ErrorKind::NotFound),
            other => panic!("{other:?}"),
        }
    }
    let program = Program { program: "/etc/passwd".to_owned(), ..shell("true") };
    assert!(matches!(start(program).await, Err(Error::Start { source, .. })
        if source.kind() == std::io::ErrorKind::PermissionDenied));
}

#[tokio::test]
async fn exit_reports_signal() {
    let exit = start(shell("kill -SEGV $$")).await.unwrap().wait().await.unwrap();
    assert_eq!((exit.code, exit.signal), (None, Some(11)));
}

#[tokio::test]
async fn strays_are_killed_before_exit_is_reported() {
    let directory = tempdir().unwrap();
    let line = format!("{}; cat", stubborn_processes(directory.path()));
    let mut running = start(shell(&line)).await.unwrap();
    let pids = stubborn_pids(directory.path()).await;
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    running.stdin = None;
    let exit = running.wait().await.unwrap();
    // Immediately: the exit means that the slot is free.
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
    assert_eq!(exit.code, Some(0));
    assert!(exit.orphans >= 3, "{exit:?}");
}

#[tokio::test]
async fn interrupt_ends_most_programs() {
    // Not a shell, which may lose an interrupt while it starts a program.
    let sleep = Program { program: "sleep".to_owned(), args: vec!["1000".to_owned()], ..shell("") };
    let mut running = start(sleep).await.unwrap();
    let (exit, ended) = running.end(LONG).await.unwrap();
    assert_eq!((exit.signal, ended), (Some(2), EndedBy::Interrupt));
    assert!(!is_alive(running.pid()));
}

#[tokio::test]
async fn end_escalates_as_far_as_needed() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("pid");
    // The request to terminate comes after a third of the time, and the program must end within the next one.
    let terminated = Duration::from_secs(12);
    for (ignored, grace, by, signal) in
        [("INT", terminated, EndedBy::Terminate, 15), ("INT TERM", SHORT, EndedBy::Kill, 9)]
    {
        let _ = std::fs::remove_file(&file);
        let line = format!("trap '' {ignored}; echo $$ > {}; while :; do sleep 0.01; done", file.display());
        let mut running = start(shell(&line)).await.unwrap();
        let pid = pid_in(&file).await;
        assert_eq!(pid, running.pid());
        let (exit, ended) = running.end(grace).await.unwrap();
        assert_eq!((exit.signal, ended), (Some(signal), by));
        assert!(!is_alive(pid));
    }
}

#[tokio::test]
async fn end_kills_every_descendant() {
    let directory = tempdir().unwrap();
    let line =
        format!("trap '' INT TERM; {}; while :; do sleep 1000; done", stubborn_processes(directory.path()));
    let mut running = start(shell(&line)).await.unwrap();
    let pids = stubborn_pids(directory.path()).await;
    let (_, by) = running.end(SHORT).await.unwrap();
    assert_eq!(by, EndedBy::Kill);
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
}

#[tokio::test]
async fn killed_supervisor_leaves_no_process() {
    let directory = tempdir().unwrap();
    let line = format!("{}; while :; do sleep 1000; done", stubborn_processes(directory.path()));
    let mut running = start(shell(&line)).await.unwrap();
    let pids = stubborn_pids(directory.path()).await;
    kill(parent(running.pid()));
    assert!(matches!(running.wait().await, Err(Error::Lost(_))));
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
    assert!(!is_alive(running.pid()));
}

#[tokio::test]
async fn dropped_program_is_killed() {
    let directory = tempdir().unwrap();
    let line = format!("{}; while :; do sleep 1000; done", stubborn_processes(directory.path()));
    let group = Group::default();
    let pids = group
        .scope(async {
            let running = start(shell(&line)).await.unwrap();
            let pids = stubborn_pids(directory.path()).await;
            drop(running);
            pids
        })
        .await;
    group.ended().await;
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
}

#[tokio::test]
async fn group_is_frozen_and_thawed_together() {
    let directory = tempdir().unwrap();
    let line = format!("{}; while :; do sleep 1000; done", stubborn_processes(directory.path()));
    let group = Group::default();
    let mut running = group.scope(start(shell(&line))).await.unwrap();
    let mut pids = stubborn_pids(directory.path()).await;
    pids.push(running.pid());
    let all = |wanted: bool| pids.iter().all(|pid| is_frozen(*pid) == wanted).then_some(());
    group.set_paused(true);
    until("frozen", || all(true)).await;
    group.set_paused(false);
    until("thawed", || all(false)).await;
    // A frozen program can be ended as well.
    group.set_paused(true);
    until("frozen", || all(true)).await;
    running.end(SHORT).await.unwrap();
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
}

#[tokio::test]
async fn secrets_are_only_in_the_program() {
    let mut running = start(shell("cat")).await.unwrap();
    let supervisor = parent(running.pid());
    for what in ["environ", "cmdline"] {
        let seen = std::fs::read(format!("/proc/{supervisor}/{what}")).unwrap();
        assert!(!String::from_utf8_lossy(&seen).contains("hunter2"), "{what}");
    }
    // Nor does the program see the supervisor's variables.
    let seen = std::fs::read(format!("/proc/{}/environ", running.pid())).unwrap();
    assert!(!String::from_utf8_lossy(&seen).contains("ROTA_SUPERVISE"));
    running.end(SHORT).await.unwrap();
    exited(&[supervisor]).await;
}
