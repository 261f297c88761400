//! The page of docs about the HTTP API: its commands are run as they are written.

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use tokio::process::Command;

use crate::Fixture;
use crate::process::Process;

const PAGE: &str = include_str!("../../../../docs/http-api.md");
const AGENT: &str = "\
apiVersion: rota.dev/v1alpha1
kind: Agent
metadata: {name: shell}
spec: {runtime: {command: {}}, slots: 2, maxReplicas: 2}
";

#[tokio::test]
async fn commands_of_the_page_run() -> Result<()> {
    let fixture = Fixture::bare();
    let mut dev =
        Process::start("dev", fixture.command(&["dev", "--data-dir", "data", "--listen", "127.0.0.1:0"]));
    let line = dev.prints("rota dev is running at ").await;
    let endpoint = line.rsplit(' ').next().context("an address")?;
    fixture.apply("agent.yaml", AGENT).await.success();

    let mut script = "set -eu\n".to_owned();
    let blocks = PAGE.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.for_each(|block| script.push_str(block));
    let script = script
        .replace("http://127.0.0.1:7420", endpoint)
        .replace("~/.rota/dev/token", fixture.dir().join("data/token").to_str().context("a path")?);
    let mut bash = Command::new("bash");
    bash.arg("-c").arg(script).current_dir(fixture.dir()).kill_on_drop(true);
    let run = tokio::time::timeout(std::time::Duration::from_secs(300), bash.output()).await??;
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{out}\n{err}");
    for part in
        [r#""alias":"hello""#, "TASK_STATE_SUCCEEDED", "event: end", "TASK_NOT_FOUND", r#""text":"hello"#]
    {
        assert!(out.contains(part), "no {part} in:\n{out}\n{err}");
    }
    dev.signal(Signal::SIGINT);
    assert_eq!(dev.ended().await.status.code(), Some(0));
    Ok(())
}
