//! History of the metrics, by a clock that the test sets.

use anyhow::{Context, Result};
use pbjson_types::Timestamp;
use rota_proto::v1::{self, script_step::Kind as Step};
use rota_server::WallClock;
use rota_testkit::client::Client;
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, Setup, tasks};
use tokio::sync::watch;

/// Begin of the tests: 2026-01-01T10:00:00Z, in seconds.
const TEN: i64 = 1_767_261_600;
const MINUTE: i64 = 60;
const HOUR: i64 = 3600;

fn at(seconds: i64) -> rota_core::Timestamp {
    rota_core::Timestamp(seconds * 1_000_000)
}

async fn history(cluster: &Cluster, agent: &str, start: i64, end: i64) -> Result<v1::MetricsHistory> {
    let time = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let request = v1::GetMetricsHistoryRequest {
        parent: "namespaces/default".to_owned(),
        agent: agent.to_owned(),
        start_time: time(start),
        end_time: time(end),
    };
    Ok(cluster.client().get_metrics_history(request).await?)
}

/// Waits until a time has one point, and the point is as wanted.
async fn until(
    cluster: &Cluster,
    (start, end): (i64, i64),
    wanted: impl Fn(&v1::MetricsPoint) -> bool,
) -> Result<v1::MetricsPoint> {
    tasks::eventually("the history", async || {
        Ok(matches!(&history(cluster, "echo", start, end).await?.points[..], [point] if wanted(point)))
    })
    .await?;
    history(cluster, "echo", start, end).await?.points.pop().context("the point has vanished")
}

/// Waits until the history was written a number of times since the start.
async fn written(cluster: &Cluster, times: i64) -> Result<()> {
    tasks::eventually("a write", async || {
        let request = v1::ListBackgroundTasksRequest {};
        let all = cluster.client().list_background_tasks(request).await?.background_tasks;
        let one = all.iter().find(|one| one.name == "metrics-history").context("no background task")?;
        Ok(one.succeeded >= times)
    })
    .await
}

async fn end(cluster: &Cluster, step: Step) -> Result<()> {
    let usage = v1::ScriptUsage { cost_micro_usd: 500, input_tokens: 7, ..Default::default() };
    let name =
        tasks::create(cluster.client(), tasks::scripted("echo", [Step::Usage(usage), step])).await?.name;
    tasks::ended(cluster.client(), &name).await?;
    Ok(())
}

#[tokio::test]
async fn history_survives_restarts_and_is_bounded() -> Result<()> {
    let (clock, time) = watch::channel(at(TEN + 30));
    let mut setup = Setup::new(Backend::Sqlite);
    setup.timing.wall_clock = WallClock::manual(time);
    let mut cluster = Cluster::start_with(setup).await?;
    tasks::agent(cluster.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 2)?;
    let success = || Step::Succeed("done".into());
    end(&cluster, success()).await?;
    end(&cluster, success()).await?;
    let failure = v1::ScriptFailure { class: "task".into(), message: "no".into(), ..Default::default() };
    end(&cluster, Step::Fail(failure)).await?;

    // The minute has not ended, and is shown.
    let minute = (TEN, TEN + MINUTE);
    let point = until(&cluster, minute, |point| point.failed_tasks == 1).await?;
    let found = (point.succeeded_tasks, point.failed_tasks, point.cost_micro_usd, point.input_tokens);
    // The task that has failed had three attempts.
    assert_eq!(found, (2, 1, 2500, 35), "{point:?}");
    assert_eq!((point.workers, point.slots), (1.0, 2.0), "{point:?}");
    assert_eq!(point.attempt.as_ref().map(|attempt| attempt.count), Some(5), "{point:?}");
    assert_eq!(history(&cluster, "other", TEN, TEN + MINUTE).await?.points, []);

    // What was written at the end of the minute is there after a kill, and the hour continues.
    clock.send_replace(at(TEN + MINUTE));
    written(&cluster, 1).await?;
    cluster.kill().await;
    cluster.restart().await?;
    let again = until(&cluster, minute, |point| point.created_tasks == 3).await?;
    assert_eq!((again.succeeded_tasks, again.attempt), (2, point.attempt), "{again:?}");
    clock.send_replace(at(TEN + 2 * MINUTE + 30));
    end(&cluster, success()).await?;
    let day = (TEN - 23 * HOUR, TEN + HOUR);
    let hour = until(&cluster, day, |point| point.created_tasks == 4).await?;
    assert_eq!(hour.start_time.context("no time")?.seconds, TEN);
    assert_eq!(history(&cluster, "", day.0, day.1).await?.step.context("no step")?.seconds, HOUR);

    // The same minute two days later takes the place of the first one.
    let later = TEN + 48 * HOUR;
    clock.send_replace(at(later + 30));
    end(&cluster, success()).await?;
    until(&cluster, (later, later + MINUTE), |point| point.created_tasks == 1).await?;
    let request = v1::ListBackgroundTasksRequest {};
    let before = cluster.client().list_background_tasks(request).await?.background_tasks;
    let before = before.iter().find(|one| one.name == "metrics-history").context("no background task")?;
    clock.send_replace(at(later + MINUTE));
    written(&cluster, before.succeeded + 1).await?;
    until(&cluster, (later, later + MINUTE), |point| point.created_tasks == 1).await?;
    until(&cluster, (TEN - HOUR, TEN + HOUR), |point| point.created_tasks == 4).await?;
    Ok(())
}

#[tokio::test]
async fn time_that_ends_before_it_begins_is_refused() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let error = history(&cluster, "", TEN, TEN).await.unwrap_err().to_string();
    assert!(error.contains("start_time"), "{error}");
    assert_eq!(history(&cluster, "", TEN, TEN + HOUR).await?.points, []);
    Ok(())
}

/// Runs a task that costs something.
async fn spend(
    client: &Client,
    worker: &mut RawWorker,
    agent: &str,
    model: &str,
    micro_usd: i64,
) -> Result<()> {
    tasks::create(client, tasks::task(agent)).await?;
    let assign = worker.take().await?;
    let usage = v1::Usage {
        cost_micro_usd: micro_usd,
        input_tokens: 7,
        output_tokens: 3,
        model: model.to_owned(),
        ..Default::default()
    };
    let used = v1::Event { kind: Some(v1::event::Kind::Usage(usage)), ..Default::default() };
    worker.report(&assign, 1, vec![used]);
    worker.succeed(&assign, 1, "done");
    anyhow::ensure!(worker.result_ack().await?, "the result was not accepted");
    Ok(())
}

async fn spending(client: &Client, agent: &str, (start, end): (i64, i64)) -> Result<v1::Spending> {
    let time = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let request = v1::GetSpendingRequest {
        parent: "namespaces/default".to_owned(),
        agent: agent.to_owned(),
        start_time: time(start),
        end_time: time(end),
    };
    Ok(client.get_spending(request).await?)
}

/// Waits until a total was spent and a number of tasks has succeeded.
async fn until_spent(client: &Client, time: (i64, i64), wanted: (i64, i64)) -> Result<v1::Spending> {
    tasks::eventually("the spending", async || {
        let total = spending(client, "", time).await?.total.unwrap_or_default();
        Ok((total.cost_micro_usd, total.succeeded_tasks) == wanted)
    })
    .await?;
    spending(client, "", time).await
}

/// Names of entries, with what was spent and how many tasks have succeeded.
fn entries(of: &[v1::SpendingEntry]) -> Vec<(&str, i64, i64)> {
    of.iter().map(|one| (one.name.as_str(), one.cost_micro_usd, one.succeeded_tasks)).collect()
}

#[tokio::test]
async fn spending_by_day_agent_and_model() -> Result<()> {
    let (clock, time) = watch::channel(at(TEN + 30));
    let mut setup = Setup::new(Backend::Sqlite);
    setup.timing.wall_clock = WallClock::manual(time);
    let mut cluster = Cluster::start_with(setup).await?;
    let client = cluster.client().clone();
    let week = (TEN - 5 * 24 * HOUR, TEN + 2 * 24 * HOUR);
    for agent in ["coder", "other"] {
        tasks::agent(&client, agent, tasks::script([]), &[]).await?;
    }
    let mut coder = RawWorker::join(&client, raw::hello("coder", "w", 1)).await?;
    let mut other = RawWorker::join(&client, raw::hello("other", "v", 1)).await?;
    spend(&client, &mut coder, "coder", "large", 500).await?;
    spend(&client, &mut other, "other", "small", 300).await?;
    // The hour has not ended, and counts.
    until_spent(&client, week, (800, 2)).await?;

    // What was written is there after a kill, also by model.
    clock.send_replace(at(TEN + MINUTE));
    written(&cluster, 1).await?;
    cluster.kill().await;
    cluster.restart().await?;
    let client = cluster.client().clone();
    until_spent(&client, week, (800, 2)).await?;
    clock.send_replace(at(TEN + 24 * HOUR + 30));
    let mut coder = RawWorker::join(&client, raw::hello("coder", "w", 1)).await?;
    spend(&client, &mut coder, "coder", "small", 200).await?;
    let found = until_spent(&client, week, (1000, 3)).await?;
    let total = found.total.context("no total")?;
    assert_eq!((total.input_tokens, total.output_tokens, total.failed_tasks), (21, 9, 0));
    assert_eq!(entries(&found.days), [("2026-01-02", 200, 1), ("2026-01-01", 800, 2)]);
    let agents = [("namespaces/default/agents/coder", 700, 2), ("namespaces/default/agents/other", 300, 1)];
    assert_eq!(entries(&found.agents), agents);
    assert_eq!(entries(&found.models), [("large", 500, 0), ("small", 500, 0)]);
    assert_eq!((found.other_agents, found.other_models), (None, None));

    // The end is exclusive: the first day ends with its last hour.
    let midnight = TEN + 14 * HOUR;
    let day = spending(&client, "", (midnight - 24 * HOUR, midnight)).await?;
    assert_eq!(entries(&day.days), [("2026-01-01", 800, 2)]);
    let until_ten = spending(&client, "", (midnight, TEN + 24 * HOUR)).await?;
    assert_eq!(until_ten.days, []);
    // The day is known now, and changes while the clock is set back.
    clock.send_replace(at(TEN + 2 * MINUTE));
    spend(&client, &mut coder, "coder", "small", 40).await?;
    until_spent(&client, (TEN, TEN + HOUR), (840, 3)).await?;
    clock.send_replace(at(TEN + 24 * HOUR + MINUTE));
    until_spent(&client, (midnight - 24 * HOUR, midnight), (840, 3)).await?;
    let one = spending(&client, "other", week).await?;
    assert_eq!(entries(&one.models), [("small", 300, 0)]);
    let error = spending(&client, "", (TEN, TEN)).await.unwrap_err().to_string();
    assert!(error.contains("start_time"), "{error}");
    Ok(())
}
