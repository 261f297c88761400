//! A log as long as a log may be, read from its start: neither the control plane nor the command holds more than a part of it.
//! `make long-log` has the full size, and prints the resident memory that `docs/limits.md` has.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use rota_proto::v1;
use rota_proto::worker::v1::session_request::Kind as Outgoing;
use rota_proto::worker::v1::session_response::Kind as Incoming;
use rota_proto::worker::v1::{Result as AttemptResult, result};
use rota_testkit::raw::{RawWorker, hello, output};
use rota_testkit::tasks;
use tokio::io::AsyncReadExt;

use crate::hostile::peak;
use crate::{Fixture, Graces};

/// Environment variable: size of the log, in MiB.
const SIZE: &str = "ROTA_LOG_MIB";
/// MiB of an attempt: less than its part of the log of a task.
const ATTEMPT_MIB: usize = 250;
/// Growth of a process's memory with a log of any length: nearly three times what `docs/limits.md` has, and half of the log of the test.
const MAX_GROWTH_MIB: u64 = 96;
/// Number of outputs that have a mebibyte together.
const OUTPUTS: usize = 8;

/// Has the kernel forget the largest resident memory of a process so far.
fn forget_peak(pid: i32) -> Result<()> {
    Ok(std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}

/// Lets the attempts of a task print some mebibytes, one after the other.
async fn print(worker: &mut RawWorker, mut mebibytes: usize) -> Result<()> {
    let events = vec![output(&("x".repeat((1 << 20) / OUTPUTS - 1) + "\n")); OUTPUTS];
    loop {
        let assign = worker.take().await?;
        let size = mebibytes.min(ATTEMPT_MIB);
        for number in 0..size {
            worker.report(&assign, i64::try_from(number * OUTPUTS)? + 1, events.clone());
            // One after the other, so that only the control plane could hold many.
            while !matches!(worker.receive().await?, Incoming::ReportAck(_)) {}
        }
        mebibytes -= size;
        let last = i64::try_from(size * OUTPUTS)?;
        if mebibytes == 0 {
            worker.succeed(&assign, last, "done");
            return Ok(());
        }
        let failure = v1::Failure { class: v1::FailureClass::Agent.into(), ..v1::Failure::default() };
        worker.send(Outgoing::Result(Box::new(AttemptResult {
            task_id: assign.task_id.clone(),
            fence: assign.fence,
            last_attempt_seq: last,
            kind: Some(result::Kind::Failed(failure)),
            ..AttemptResult::default()
        })));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_log_is_read_with_little_memory() -> Result<()> {
    let mebibytes: usize = rota_telemetry::env::var(SIZE).map_or(Ok(200), |text| text.parse())?;
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    tasks::agent(&client, "echo", tasks::script([]), &[]).await?;
    let token = std::fs::read_to_string(fixture.worker_token("echo", "hand").await?)?;
    let worker = fixture.client_with(token.trim(), std::time::Duration::from_secs(60))?;
    let mut worker = RawWorker::join(&worker, hello("echo", "hand", 1)).await?;
    let mut task = tasks::task("echo");
    let retry = task.spec.get_or_insert_default().retry.get_or_insert_default();
    (retry.max_attempts, retry.initial_backoff) = (10, Some(tasks::millis(1)));
    let name = tasks::create(&client, task).await?.name;
    let server = fixture.server().pid();
    forget_peak(server)?;
    let idle = peak(server)?;
    print(&mut worker, mebibytes).await?;
    tasks::ended(&client, &name).await?;
    let written = peak(server)?;

    forget_peak(server)?;
    let before = peak(server)?;
    let mut command = fixture.command(&["logs", name.rsplit('/').next().unwrap_or_default()]);
    let mut reader = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let pid = i32::try_from(reader.id().context("it has ended")?)?;
    let mut output = reader.stdout.take().context("no output")?;
    let (mut buffer, mut count, mut own) = (vec![0; 1 << 20], 0, 0);
    loop {
        // While there is something to read, the process is there.
        own = peak(pid).unwrap_or(own).max(own);
        let read = output.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        count += buffer[..read].iter().filter(|byte| matches!(byte, b'x' | b'\n')).count();
    }
    ensure!(reader.wait().await?.success(), "`rota logs` failed");
    let read = peak(server)?;
    println!(
        "log of {mebibytes} MiB: the control plane has {idle} MiB, {written} MiB at most while it is written, {before} MiB \
         then, {read} MiB at most while it is read; `rota logs` {own} MiB at most"
    );
    ensure!(count >= mebibytes << 20, "{count} bytes of the log were printed");
    // Built without optimization, the command has most of that without a log.
    for (what, from, to) in [("written", idle, written), ("read", before, read), ("printed", 64, own)] {
        ensure!(to <= from + MAX_GROWTH_MIB, "{from} MiB, and {to} MiB while the log is {what}");
    }
    Ok(())
}
