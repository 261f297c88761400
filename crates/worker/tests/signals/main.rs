//! Supervisors whose signals do not reach the processes, as in containers with a strict seccomp profile. In a binary of its
//! own, since each process has one kind of supervisor.
#![expect(clippy::unwrap_used, reason = "test helpers are tests")]

use std::path::PathBuf;
use std::time::Duration;

use rota_worker::runtimes::Environment;
use rota_worker::supervise::{EndedBy, Error, Program, Running, SUBCOMMAND, Supervisor, start, stuck};
use tokio::io::AsyncReadExt;

/// Starts a program that ignores requests to end, and waits until it does.
async fn stubborn(line: &str) -> Running {
    let environment = Environment([("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into());
    let args = vec!["-c".to_owned(), format!("trap '' INT TERM; echo begun; {line}")];
    let program = Program { program: "sh".to_owned(), args, environment, directory: PathBuf::from("/") };
    let mut running = start(program).await.unwrap();
    let mut first = [0; 6];
    running.stdout.as_mut().unwrap().read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"begun\n");
    running
}

#[tokio::test]
async fn undeliverable_signals_end_in_a_clear_failure() {
    let folder = tempfile::tempdir().unwrap();
    let denied = folder.path().join("denied");
    let args = vec!["deny".into(), denied.clone().into(), SUBCOMMAND.into()];
    Supervisor { program: env!("CARGO_BIN_EXE_rota-worker-test").into(), args }.install();
    let grace = Duration::from_millis(300);

    // Without process descriptors there are still plain signals.
    std::fs::write(&denied, "pidfd_open pidfd_send_signal").unwrap();
    let mut running = stubborn("sleep 600 & sleep 600").await;
    let (exit, by) = running.end(grace).await.unwrap();
    assert_eq!((exit.signal, by), (Some(9), EndedBy::Kill));

    // Nothing reaches them: they end by themselves, later.
    std::fs::write(&denied, "pidfd_open pidfd_send_signal kill").unwrap();
    let mut running = stubborn("read line; exit 3").await;
    let error = running.end(grace).await.unwrap_err();
    let Error::Stuck(processes) = &error else { panic!("{error}") };
    assert!(processes.contains("(sh, state S)"), "{processes}");
    assert!(error.to_string().starts_with("processes cannot be ended: "), "{error}");
    assert_eq!(stuck().as_ref(), Some(processes), "the worker takes nothing new");
    // Its input ends, and it with it.
    drop(running);
    let over = async {
        while stuck().is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), over).await.expect("the end of the program was noticed");
}
