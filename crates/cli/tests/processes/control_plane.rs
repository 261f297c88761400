//! The control plane is killed during a run: the agent does not notice, and no output is lost.

use anyhow::Result;
use rota_proto::v1::{TaskState, event};
use rota_testkit::{history, tasks};

use crate::procfs::ProcessInfo;
use crate::{Fixture, Graces, workload};

/// Prints its process id, then counts, with a progress report every tenth line. Waits twice.
const COUNTS: &str = r#"
exec 3>"$ROTA_EVENTS"
count() {
    i=$1
    while [ "$i" -le "$2" ]; do
        echo "line $i"
        [ $((i % 10)) -ne 0 ] || echo "{\"progress\":0.5,\"step\":\"$i\"}" >&3
        i=$((i + 1))
        sleep 0.01
    done
}
echo "pid $$"
count 1 200
until [ -e "$GATES/first" ]; do sleep 0.02; done
count 201 400
until [ -e "$GATES/second" ]; do sleep 0.02; done
count 401 600
echo "pid $$"
"#;

#[tokio::test]
async fn agent_survives_killed_control_plane() -> Result<()> {
    let mut fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let _worker = fixture.worker(workload::AGENT, "one", 1).await?;
    let gates = fixture.dir().to_owned();
    let task = workload::shell(COUNTS, &[("GATES", gates.to_str().unwrap())]);
    let name = tasks::create(&client, task).await?.name;

    // While it prints.
    workload::prints(&client, &name, "line 20\n").await?;
    let first = workload::printed(&client, &name).await?;
    let pid: i32 = first.lines().next().unwrap().strip_prefix("pid ").unwrap().parse()?;
    let agent = ProcessInfo::of(pid).unwrap();
    fixture.kill_server().await;
    fixture.start_server().await?;
    workload::prints(&client, &name, "line 200\n").await?;
    assert_eq!(ProcessInfo::of(pid).as_ref(), Some(&agent));

    // Again, and now it exits while no control plane runs.
    std::fs::write(gates.join("first"), "")?;
    workload::prints(&client, &name, "line 220\n").await?;
    fixture.kill_server().await;
    assert!(agent.is_alive());
    std::fs::write(gates.join("second"), "")?;
    tasks::eventually("the agent's end", async || Ok(!agent.is_alive())).await?;
    fixture.start_server().await?;

    let status = tasks::ended(&client, &name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt, status.worker_losses), (TaskState::Succeeded, 1, 0));
    assert!(status.result.unwrap().text.ends_with(&format!("line 600\npid {pid}")));
    let log = tasks::log(&client, &name).await?;
    let lines: String = (1..=600).map(|line| format!("line {line}\n")).collect();
    assert_eq!(tasks::outputs(&log).concat(), format!("pid {pid}\n{lines}pid {pid}\n"));
    let reports = log.iter().filter_map(|event| match &event.kind {
        Some(event::Kind::Progress(progress)) => Some(progress.step.clone()),
        _ => None,
    });
    let wanted: Vec<_> = (1..=60).map(|tenth| (tenth * 10).to_string()).collect();
    assert_eq!(reports.collect::<Vec<_>>(), wanted);
    assert_eq!(
        tasks::steps(&log).iter().filter(|step| step.starts_with("RUNNING>")).collect::<Vec<_>>(),
        ["RUNNING>SUCCEEDED:succeeded"]
    );
    history::check(&client, true).await?.check()
}
