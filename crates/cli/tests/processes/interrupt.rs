//! Ctrl-C on commands that follow a task: the task continues.

use anyhow::Result;
use nix::sys::signal::Signal;
use rota_proto::v1::TaskState;
use rota_testkit::{history, tasks};

use crate::process::Process;
use crate::{Fixture, Graces, workload};

/// Sends Ctrl-C once a command has printed some text, and returns its output.
async fn interrupted(fixture: &Fixture, args: &[&str], once: &str) -> String {
    let mut process = Process::start(args[0], fixture.command(args));
    process.prints(once).await;
    process.signal(Signal::SIGINT);
    let ended = process.ended().await;
    assert_eq!(ended.status.code(), Some(130), "{ended:?}");
    ended.output
}

#[tokio::test]
async fn interrupted_commands_leave_tasks_running() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "one", 1).await?;
    let gate = fixture.dir().join("gate");
    let line = "echo \"I am at it\"; until [ -e \"$GATE\" ]; do sleep 0.02; done; echo done";
    let set = format!("GATE={}", gate.display());
    let run =
        ["run", "--agent", "shell", "--name", "long", "--env", &set, "--command", "--", "sh", "-c", line];
    let output = interrupted(&fixture, &run, "I am at it").await;
    let task = fixture.rota(&["get", "task", "long", "-o", "json"]).await.json();
    let id = task["uid"].as_str().unwrap();
    for hint in ["The task continues", &format!("rota watch {id}"), &format!("rota cancel {id}")] {
        assert!(output.contains(hint), "{hint:?} is not in {output}");
    }
    for args in
        [&["watch", "long"][..], &["logs", "-f", "long"], &["events", "-f", "long"], &["attach", "long"]]
    {
        let output = interrupted(&fixture, args, "I am at it").await;
        assert!(
            output.contains("The task continues") && output.contains(&format!("rota cancel {id}")),
            "{output}"
        );
    }
    let manifest = "apiVersion: rota.dev/v1alpha1\nkind: Task\nmetadata: {name: behind}\n\
                    spec: {agent: shell, runtime: {command: {shell: exit}}}\n";
    std::fs::write(fixture.dir().join("behind.yaml"), manifest)?;
    let output = interrupted(&fixture, &["apply", "--wait", "-f", "behind.yaml"], "behind Queued").await;
    assert!(output.contains("The tasks continue") && output.contains("rota cancel behind"), "{output}");
    // These commands print nothing before the signal.
    for args in [&["wait", "long"][..], &["watch"], &["events"]] {
        let process = Process::start(args[0], fixture.command(args));
        // The signal is sent once the handler is installed.
        tasks::eventually("a handler", async || Ok(handles_interrupts(process.pid()))).await?;
        process.signal(Signal::SIGINT);
        let ended = process.ended().await;
        assert_eq!(ended.status.code(), Some(130), "{args:?} {ended:?}");
    }
    assert_eq!(
        tasks::get(&client, &format!("namespaces/default/tasks/{id}")).await?.status.unwrap().attempt,
        1
    );
    std::fs::write(gate, "")?;
    let name = "namespaces/default/tasks/long";
    let status = tasks::ended(&client, name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1));
    fixture.rota(&["wait", "behind"]).await.success();
    history::check(&client, true).await?.check()
}

fn handles_interrupts(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    caught & (1 << (Signal::SIGINT as u32 - 1)) != 0
}
