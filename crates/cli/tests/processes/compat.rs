//! Two versions together: workers of an earlier one with this control plane, the reverse, and replicas of both. `make compat` builds
//! the earlier programs and runs these tests with them.

mod record;
mod replicas;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rota_client::Client;
use rota_proto::v1::{self, TaskState, script_step::Kind as Step};
use rota_testkit::{history, output, tasks};
use tokio::process::Command;

use crate::process::Process;
use crate::{Fixture, Graces, workload};

const SCRIPTED: &str = "echo";

fn earlier() -> Result<PathBuf> {
    let program = rota_telemetry::env::var_os("ROTA_OLD_BIN");
    Ok(program.context("ROTA_OLD_BIN is not set: make compat")?.into())
}

/// Returns the command of a worker of a version with a token.
fn worker_command(fixture: &Fixture, program: Option<&Path>, agent: &str, token: PathBuf) -> Command {
    let args = ["worker", "--agent", agent, "--worker", agent, "--slots", "4"];
    let mut command = match program {
        Some(program) => fixture.command_of(program, &args),
        None => fixture.command(&args),
    };
    command.arg("--state-dir").arg(fixture.dir().join(agent)).env("ROTA_TOKEN_FILE", token);
    command
}

/// Starts a worker of a version with a token.
async fn worker(fixture: &Fixture, program: Option<&Path>, agent: &str, token: PathBuf) -> Result<Process> {
    let command = worker_command(fixture, program, agent, token);
    let process = Process::start(agent, command);
    tasks::connected(&fixture.client()?, agent).await?;
    Ok(process)
}

/// Creates the agents with which both versions have worked.
async fn agents(client: &Client) -> Result<()> {
    tasks::agent(client, SCRIPTED, tasks::script([]), &[]).await?;
    workload::agent(client).await
}

/// Runs what a worker does: output, progress, usage, a question, a failure and its retry, a cancellation, a large result,
/// and a restart of the control plane in between.
async fn work(fixture: &mut Fixture, client: &Client) -> Result<()> {
    let usage = v1::ScriptUsage { input_tokens: 10, output_tokens: 5, cost_micro_usd: 7 };
    let failing = v1::ScriptFailure { class: "crash".into(), attempts: 1, ..Default::default() };
    let steps = vec![
        output::line(1, 2),
        Step::Progress(0.5),
        Step::Usage(usage),
        Step::Fail(failing),
        output::line(2, 2),
    ];
    let retried = tasks::create(client, tasks::scripted(SCRIPTED, steps)).await?.name;
    let asks = [Step::Ask("Go on?".into()), Step::Succeed("answered".into())];
    let asking = tasks::create(client, tasks::scripted(SCRIPTED, asks)).await?.name;
    let hanging = tasks::create(client, tasks::scripted(SCRIPTED, [Step::Hang(true)])).await?.name;
    let printing = tasks::create(client, workload::shell("seq 100000", &[])).await?.name;
    let waiting = "echo begun; until [ -e \"$GO\" ]; do sleep 0.1; done; echo over";
    let go = fixture.dir().join("go");
    let lasting = workload::shell(waiting, &[("GO", go.to_str().context("a path")?)]);
    let lasting = tasks::create(client, lasting).await?.name;

    tasks::until_state(client, &hanging, TaskState::Running).await?;
    tasks::cancel(client, &hanging).await?;
    tasks::answer(client, &asking, "yes").await?;
    workload::prints(client, &lasting, "begun").await?;
    fixture.kill_server().await;
    fixture.start_server().await?;
    std::fs::write(&go, "")?;
    for (name, state, attempt) in [
        (&retried, TaskState::Succeeded, 2),
        (&asking, TaskState::Succeeded, 1),
        (&hanging, TaskState::Cancelled, 1),
        (&printing, TaskState::Succeeded, 1),
        (&lasting, TaskState::Succeeded, 1),
    ] {
        let status = tasks::ended(client, name).await?.status.unwrap_or_default();
        ensure!((status.state(), status.attempt) == (state, attempt), "{name}: {status:?}");
    }
    ensure!(workload::printed(client, &printing).await?.lines().count() == 100_000);
    Ok(())
}

#[tokio::test]
#[ignore = "needs an earlier program: make compat"]
async fn earlier_workers_serve_this_control_plane() -> Result<()> {
    let earlier = earlier()?;
    let mut fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    agents(&client).await?;
    let mut workers = Vec::new();
    for agent in [SCRIPTED, workload::AGENT] {
        let token = fixture.worker_token(agent, agent).await?;
        workers.push(worker(&fixture, Some(&earlier), agent, token).await?);
    }
    work(&mut fixture, &client).await?;
    history::check(&client, true).await?.check()
}

#[tokio::test]
#[ignore = "needs an earlier program: make compat"]
async fn these_workers_serve_an_earlier_control_plane() -> Result<()> {
    let mut fixture = Fixture::bare();
    fixture.server_program = Some(earlier()?);
    fixture.start_server().await?;
    let client = fixture.client()?;
    agents(&client).await?;
    let mut workers = Vec::new();
    for agent in [SCRIPTED, workload::AGENT] {
        // It knows no tokens of workers.
        workers.push(worker(&fixture, None, agent, fixture.dir().join("token")).await?);
    }
    work(&mut fixture, &client).await
}
