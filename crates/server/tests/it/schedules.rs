//! Schedules by a clock that the tests set.

mod status;
mod workflows;

use anyhow::Result;
use pbjson_types::FieldMask;
use rota_core::Timestamp;
use rota_proto::v1::{self, ScheduleCatchUp, ScheduleConcurrency, TaskState};
use rota_server::WallClock;
use rota_testkit::client::Client;
use rota_testkit::{Backend, Cluster, Setup, tasks};
use tokio::sync::watch;

const NAME: &str = "namespaces/default/schedules/nightly";

fn at(text: &str) -> Timestamp {
    Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
}

fn text(time: &pbjson_types::Timestamp) -> String {
    jiff::Timestamp::new(time.seconds, time.nanos).unwrap().to_string()
}

/// A cluster with a clock.
struct Fixture {
    cluster: Cluster,
    clock: watch::Sender<Timestamp>,
}

impl Fixture {
    async fn start(backend: Backend, now: &str) -> Result<Self> {
        let (clock, time) = watch::channel(at(now));
        let mut setup = Setup { http: true, ..Setup::new(backend) };
        setup.timing.wall_clock = WallClock::manual(time);
        Ok(Self { cluster: Cluster::start_with(setup).await?, clock })
    }

    fn set(&self, now: &str) {
        self.clock.send_replace(at(now));
    }

    fn client(&self) -> &Client {
        self.cluster.client()
    }

    async fn create(&self, spec: v1::ScheduleSpec) -> Result<v1::Schedule, rota_testkit::client::Error> {
        let schedule = v1::Schedule { name: NAME.to_owned(), spec: Some(spec), ..Default::default() };
        let request =
            v1::UpdateScheduleRequest { schedule: Some(schedule), allow_missing: true, ..Default::default() };
        Box::pin(self.client().update_schedule(request)).await
    }

    async fn pause(&self, paused: bool) -> Result<v1::Schedule> {
        let spec = v1::ScheduleSpec { paused: Some(paused), ..Default::default() };
        let schedule = v1::Schedule { name: NAME.to_owned(), spec: Some(spec), ..Default::default() };
        let update_mask = Some(FieldMask { paths: vec!["spec.paused".to_owned()] });
        let request =
            v1::UpdateScheduleRequest { schedule: Some(schedule), update_mask, ..Default::default() };
        Ok(Box::pin(self.client().update_schedule(request)).await?)
    }

    async fn status(&self) -> Result<v1::ScheduleStatus> {
        let request = v1::GetScheduleRequest { name: NAME.to_owned() };
        Ok(self.client().get_schedule(request).await?.status.unwrap_or_default())
    }

    /// Waits until the status is as wanted.
    async fn until(
        &self,
        what: &str,
        holds: impl Fn(&v1::ScheduleStatus) -> bool + Copy,
    ) -> Result<v1::ScheduleStatus> {
        tasks::eventually(what, || async { Ok(self.status().await.is_ok_and(|status| holds(&status))) })
            .await?;
        self.status().await
    }

    /// Returns the tasks of the schedule, oldest first.
    async fn tasks(&self) -> Result<Vec<v1::Task>> {
        let request = v1::ListTasksRequest { parent: "namespaces/default".into(), ..Default::default() };
        let mut all = self.client().all_tasks(request, None).await?;
        all.retain(|task| task.labels.get("rota.dev/schedule").is_some_and(|name| name == "nightly"));
        all.reverse();
        Ok(all)
    }
}

fn spec(cron: &str, zone: &str) -> v1::ScheduleSpec {
    let task = tasks::scripted("echo", [v1::script_step::Kind::Succeed("done".into())]);
    v1::ScheduleSpec {
        cron: cron.to_owned(),
        time_zone: zone.to_owned(),
        task: Some(task),
        ..Default::default()
    }
}

fn times(runs: &[v1::ScheduleRun]) -> Vec<String> {
    runs.iter().filter_map(|run| run.schedule_time.as_ref()).map(text).collect()
}

#[tokio::test]
async fn task_is_created_at_each_time() -> Result<()> {
    let fixture = Fixture::start(Backend::Sqlite, "2026-01-01T00:00:00Z").await?;
    tasks::agent(fixture.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = fixture.cluster.worker("echo", "one", 1)?;
    let created = fixture.create(spec("0 3 * * *", "")).await?;
    assert_eq!(created.generation, 1);
    let next = created.status.unwrap().next_times;
    assert_eq!(
        next.iter().map(text).collect::<Vec<_>>()[..2],
        ["2026-01-01T03:00:00Z", "2026-01-02T03:00:00Z"]
    );
    // Applying it again changes nothing.
    assert_eq!(fixture.create(spec("0 3 * * *", "")).await?.generation, 1);
    fixture.set("2026-01-01T02:59:59Z");
    fixture.set("2026-01-01T03:00:00Z");
    fixture.until("a run", |status| status.recent.len() == 1).await?;
    fixture.set("2026-01-02T03:00:01Z");
    let status = fixture.until("two runs", |status| status.recent.len() == 2).await?;
    assert_eq!(times(&status.recent), ["2026-01-02T03:00:00Z", "2026-01-01T03:00:00Z"]);
    assert!(status.recent.iter().all(|run| run.state() == TaskState::Succeeded), "{status:?}");
    assert_eq!((status.started, status.skipped, status.problem.as_str()), (2, 0, ""));
    let all = fixture.tasks().await?;
    assert_eq!(all.len(), 2);
    assert_eq!((all[0].alias.as_str(), all[0].uid.as_str()), ("nightly", status.recent[1].task.as_str()));
    fixture
        .client()
        .delete_schedule(v1::DeleteScheduleRequest { name: NAME.into(), ..Default::default() })
        .await?;
    fixture.set("2026-01-03T03:00:01Z");
    let missing = fixture.status().await.unwrap_err();
    assert!(missing.to_string().contains("does not exist"), "{missing}");
    assert_eq!(fixture.tasks().await?.len(), 2);
    // Another one of the same name begins empty.
    let again = fixture.create(spec("0 3 * * *", "")).await?;
    assert_eq!(again.status.unwrap().recent, []);
    fixture.set("2026-01-04T03:00:00Z");
    fixture.until("a run", |status| status.recent.len() == 1).await?;
    Ok(())
}

#[tokio::test]
async fn runs_follow_both_changes_of_daylight_saving() -> Result<()> {
    let fixture = Fixture::start(Backend::Memory, "2026-03-28T12:00:00Z").await?;
    tasks::agent(fixture.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = fixture.cluster.worker("echo", "one", 1)?;
    fixture.create(spec("30 2 * * *", "Europe/Berlin")).await?;
    // 02:30 does not exist on the 29th, and exists twice on 25 October.
    for (count, now) in [(1, "2026-03-29T01:00:00Z"), (2, "2026-03-30T00:30:00Z")] {
        fixture.set(now);
        fixture.until(now, |status| status.recent.len() == count).await?;
    }
    fixture.pause(true).await?;
    fixture.set("2026-10-24T12:00:00Z");
    assert_eq!(fixture.pause(false).await?.status.unwrap().problem, "");
    fixture.set("2026-10-25T00:30:00Z");
    fixture.until("the first 02:30", |status| status.recent.len() == 3).await?;
    fixture.set("2026-10-25T01:30:00Z");
    fixture.set("2026-10-26T01:30:00Z");
    let status = fixture.until("the next day", |status| status.recent.len() == 4).await?;
    assert_eq!(
        times(&status.recent),
        ["2026-10-26T01:30:00Z", "2026-10-25T00:30:00Z", "2026-03-30T00:30:00Z", "2026-03-29T01:00:00Z"]
    );
    Ok(())
}

#[tokio::test]
async fn concurrency_policies_decide_about_active_runs() -> Result<()> {
    // No worker: runs stay in the queue.
    let fixture = Fixture::start(Backend::Memory, "2026-01-01T00:00:30Z").await?;
    let with = |concurrency: ScheduleConcurrency| v1::ScheduleSpec {
        concurrency: concurrency.into(),
        ..spec("* * * * *", "")
    };
    fixture.create(with(ScheduleConcurrency::Forbid)).await?;
    fixture.set("2026-01-01T00:01:00Z");
    fixture.until("a run", |status| status.active.len() == 1).await?;
    fixture.set("2026-01-01T00:02:00Z");
    let status = fixture.until("a skip", |status| status.skipped == 1).await?;
    assert!(status.last_skip.unwrap().reason.contains("has not ended"));
    let run =
        fixture.client().run_schedule(v1::RunScheduleRequest { name: NAME.into(), ..Default::default() });
    assert_eq!(run.await.unwrap_err().reason.as_deref(), Some("SCHEDULE_ACTIVE"));
    fixture.create(with(ScheduleConcurrency::Allow)).await?;
    fixture.set("2026-01-01T00:03:00Z");
    fixture.until("two runs", |status| status.active.len() == 2).await?;
    fixture.create(with(ScheduleConcurrency::Replace)).await?;
    fixture.set("2026-01-01T00:04:00Z");
    let status = fixture.until("a replacement", |status| status.recent.len() == 2).await?;
    assert!(status.recent.iter().all(|run| run.state() == TaskState::Cancelled), "{status:?}");
    assert_eq!(times(&status.active), ["2026-01-01T00:04:00Z"]);
    // Its agent does not exist.
    assert_eq!(status.active[0].state(), TaskState::Pending);
    Ok(())
}

#[tokio::test]
async fn missed_times_are_caught_up_after_restart() -> Result<()> {
    for (rule, wanted) in [
        (ScheduleCatchUp::Latest, vec!["2026-01-01T05:00:00Z"]),
        (ScheduleCatchUp::All, vec!["2026-01-01T03:00:00Z", "2026-01-01T04:00:00Z", "2026-01-01T05:00:00Z"]),
        (ScheduleCatchUp::Skip, vec![]),
    ] {
        let mut fixture = Fixture::start(Backend::Sqlite, "2026-01-01T01:30:00Z").await?;
        fixture.create(v1::ScheduleSpec { catch_up: rule.into(), ..spec("0 * * * *", "") }).await?;
        fixture.set("2026-01-01T02:00:00Z");
        fixture.until("a run", |status| status.active.len() == 1).await?;
        fixture.cluster.kill().await;
        fixture.set("2026-01-01T05:10:00Z");
        fixture.cluster.restart().await?;
        let count = wanted.len();
        let status = fixture.until("the rule", |status| status.active.len() == 1 + count).await?;
        assert_eq!(times(&status.active)[1..], wanted[..], "{rule:?}");
        fixture.until("the skips", |status| status.skipped == 3 - i64::try_from(count).unwrap_or(0)).await?;
        assert_eq!(fixture.tasks().await?.len(), 1 + count);
    }
    Ok(())
}

#[tokio::test]
async fn paused_schedule_runs_only_by_request() -> Result<()> {
    let fixture = Fixture::start(Backend::Memory, "2026-01-01T00:00:30Z").await?;
    tasks::agent(fixture.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = fixture.cluster.worker("echo", "one", 1)?;
    fixture.create(v1::ScheduleSpec { paused: Some(true), ..spec("* * * * *", "") }).await?;
    fixture.set("2026-01-01T00:05:00Z");
    let request = v1::RunScheduleRequest { name: NAME.into(), idempotency_key: "a".into() };
    let first = fixture.client().run_schedule(request.clone()).await?.task.unwrap();
    fixture.until("the run", |status| status.recent.len() == 1).await?;
    let again = fixture.client().run_schedule(request).await?.task.unwrap();
    assert_eq!(first.uid, again.uid);
    let status = fixture.status().await?;
    assert_eq!((status.started, status.recent[0].requested, status.active.len()), (1, true, 0));
    assert_eq!((status.problem.as_str(), status.next_times.len()), ("the schedule is paused", 0));
    // A manifest that leaves the field out does not end the pause, and times within it are not caught up.
    let applied = fixture.create(spec("* * * * *", "UTC")).await?;
    assert_eq!(applied.spec.unwrap().paused, Some(true));
    fixture.pause(false).await?;
    fixture.set("2026-01-01T00:06:00Z");
    let status = fixture.until("the next time", |status| status.recent.len() == 2).await?;
    assert_eq!(times(&status.recent)[0], "2026-01-01T00:06:00Z");
    assert_eq!(status.skipped, 0);
    Ok(())
}

#[tokio::test]
async fn history_removes_older_tasks() -> Result<()> {
    let fixture = Fixture::start(Backend::Sqlite, "2026-01-01T00:00:30Z").await?;
    tasks::agent(fixture.client(), "echo", tasks::script([]), &[]).await?;
    let _worker = fixture.cluster.worker("echo", "one", 1)?;
    let history = Some(v1::ScheduleHistory { succeeded: 2, failed: 1 });
    fixture.create(v1::ScheduleSpec { history, ..spec("* * * * *", "") }).await?;
    for minute in 1..=4 {
        fixture.set(&format!("2026-01-01T00:0{minute}:00Z"));
        fixture.until("a run", |status| status.started == minute && status.active.is_empty()).await?;
    }
    let status = fixture.status().await?;
    assert_eq!(times(&status.recent), ["2026-01-01T00:04:00Z", "2026-01-01T00:03:00Z"]);
    let left: Vec<_> = fixture.tasks().await?.into_iter().map(|task| task.uid).collect();
    assert_eq!(left, [status.recent[1].task.clone(), status.recent[0].task.clone()]);
    Ok(())
}

#[tokio::test]
async fn refused_run_names_its_reason() -> Result<()> {
    let fixture = Fixture::start(Backend::Memory, "2026-01-01T00:00:30Z").await?;
    let mut wanted = spec("* * * * *", "");
    wanted.task.get_or_insert_default().spec.get_or_insert_default().strict = true;
    fixture.create(wanted).await?;
    fixture.set("2026-01-01T00:01:00Z");
    let status = fixture.until("a refusal", |status| status.recent.len() == 1).await?;
    assert!(status.problem.contains("agent \"echo\" does not exist"), "{status:?}");
    assert_eq!((status.recent[0].task.as_str(), status.active.len()), ("", 0));
    tasks::agent(fixture.client(), "echo", tasks::script([]), &[]).await?;
    fixture.set("2026-01-01T00:02:00Z");
    let status = fixture.until("a run", |status| status.active.len() == 1).await?;
    assert_eq!(status.problem, "");
    Ok(())
}

#[tokio::test]
async fn schedule_that_does_not_run_is_a_cause() -> Result<()> {
    let fixture = Fixture::start(Backend::Memory, "2026-01-01T00:00:30Z").await?;
    let causes = async || {
        let status = fixture.client().get_system_status(v1::GetSystemStatusRequest {}).await?;
        let causes = status.causes.into_iter().filter(|cause| cause.code == "schedule_failing");
        anyhow::Ok(causes.collect::<Vec<_>>())
    };
    let until = async |count: usize| {
        tasks::eventually("the cause", async || Ok(causes().await?.len() == count)).await?;
        causes().await
    };
    let page = async || {
        let addr = fixture.cluster.http_addr().unwrap();
        anyhow::Ok(reqwest::get(format!("http://{addr}/metrics")).await?.text().await?)
    };
    let mut wanted = spec("* * * * *", "");
    wanted.task.get_or_insert_default().spec.get_or_insert_default().strict = true;
    fixture.create(wanted.clone()).await?;
    assert_eq!(causes().await?, []);
    fixture.set("2026-01-01T00:01:00Z");
    let cause = until(1).await?.remove(0);
    assert!(cause.message.starts_with("the schedule default/nightly starts no runs: "), "{cause:?}");
    assert!(cause.message.contains("agent \"echo\" does not exist"), "{cause:?}");
    assert!(page().await?.contains("rota_schedules_failing{namespace=\"default\"} 1\n"));
    let delete = v1::DeleteScheduleRequest { name: NAME.into(), ..Default::default() };
    fixture.client().delete_schedule(delete).await?;
    until(0).await?;
    assert!(!page().await?.contains("rota_schedules_failing{"));
    fixture.create(wanted).await?;
    fixture.set("2026-01-01T00:02:00Z");
    until(1).await?;
    // One that does not run on purpose is none.
    fixture.pause(true).await?;
    until(0).await?;
    fixture.pause(false).await?;
    until(1).await?;
    tasks::agent(fixture.client(), "echo", tasks::script([]), &[]).await?;
    let run = v1::RunScheduleRequest { name: NAME.into(), ..Default::default() };
    fixture.client().run_schedule(run).await?;
    until(0).await?;
    Ok(())
}

#[tokio::test]
async fn invalid_schedules_are_rejected() -> Result<()> {
    let fixture = Fixture::start(Backend::Memory, "2026-01-01T00:00:30Z").await?;
    let refused = async |spec: v1::ScheduleSpec| {
        let error = Box::pin(fixture.create(spec)).await.unwrap_err();
        error.fields.iter().map(|field| field.field.clone()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(refused(spec("nonsense", "")).await, "schedule.spec.cron");
    assert_eq!(refused(spec("0 0 30 2 *", "")).await, "schedule.spec.cron");
    assert_eq!(refused(spec("* * * * *", "Mars/Base")).await, "schedule.spec.time_zone");
    let long = Some(tasks::millis(3_600_001));
    assert_eq!(
        refused(v1::ScheduleSpec { jitter: long, ..spec("* * * * *", "") }).await,
        "schedule.spec.jitter"
    );
    assert_eq!(refused(v1::ScheduleSpec { task: None, ..spec("* * * * *", "") }).await, "schedule.spec.task");
    let mut started = spec("* * * * *", "");
    started.task.get_or_insert_default().spec.get_or_insert_default().start_time = Some(Default::default());
    assert_eq!(refused(started).await, "schedule.spec.task.spec.start_time");
    let mut secret = spec("* * * * *", "");
    let inner = secret.task.get_or_insert_default().spec.get_or_insert_default();
    inner.secrets.insert("TOKEN".into(), "value".into());
    let kept = fixture.create(secret.clone()).await?;
    let inner = kept.spec.unwrap().task.unwrap().spec.unwrap();
    assert_eq!((inner.secrets.len(), inner.secret_names), (0, vec!["TOKEN".to_owned()]));
    assert_eq!(fixture.create(secret).await?.generation, 1);
    Ok(())
}

#[tokio::test]
async fn task_is_removed_after_its_ttl() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 1)?;
    let mut wanted = tasks::task("echo");
    wanted.spec.get_or_insert_default().ttl_after_finished = Some(Box::new(tasks::millis(1)));
    let name = tasks::create(client, wanted.clone()).await?.name;
    tasks::eventually("the removal", async || Ok(tasks::get(client, &name).await.is_err())).await?;
    let missing = tasks::get(client, &name).await.unwrap_err();
    assert_eq!(missing.reason.as_deref(), Some("TASK_NOT_FOUND"));
    wanted.spec.get_or_insert_default().ttl_after_finished =
        Some(Box::new(pbjson_types::Duration { seconds: -1, nanos: 0 }));
    let refused = tasks::create(client, wanted).await.unwrap_err();
    assert!(refused.to_string().contains("365 days"), "{refused:?}");
    Ok(())
}
