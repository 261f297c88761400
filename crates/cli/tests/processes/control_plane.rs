//! The control plane is killed in the middle of a run. The agent does not notice, and nothing is lost.

use anyhow::Result;
use rota_proto::v1::{TaskState, event};
use rota_testkit::{history, tasks};

use crate::seen::Seen;
use crate::{Graces, Stage, work};

/// Says who it is, then counts, with a report of its progress for every tenth line. It waits twice.
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
async fn a_killed_control_plane_changes_nothing_for_the_agent() -> Result<()> {
    let mut stage = Stage::start(Graces::LONG).await?;
    let client = stage.client()?;
    work::agent(&client).await?;
    let _worker = stage.worker(work::AGENT, "one", 1).await?;
    let gates = stage.dir().to_owned();
    let task = work::shell(COUNTS, &[("GATES", gates.to_str().unwrap())]);
    let name = tasks::create(&client, task).await?.name;

    // In the middle of its writing.
    work::prints(&client, &name, "line 20\n").await?;
    let first = work::printed(&client, &name).await?;
    let pid: i32 = first.lines().next().unwrap().strip_prefix("pid ").unwrap().parse()?;
    let agent = Seen::of(pid).unwrap();
    stage.kill_server().await;
    stage.start_server().await?;
    work::prints(&client, &name, "line 200\n").await?;
    assert_eq!(Seen::of(pid).as_ref(), Some(&agent));

    // Once more, and now it comes to its end while there is nobody to tell.
    std::fs::write(gates.join("first"), "")?;
    work::prints(&client, &name, "line 220\n").await?;
    stage.kill_server().await;
    assert!(agent.is_there());
    std::fs::write(gates.join("second"), "")?;
    tasks::eventually("the agent's end", async || Ok(!agent.is_there())).await?;
    stage.start_server().await?;

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
