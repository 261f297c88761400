//! Statuses of schedules: their size, and the runs in them that a control plane has left.

use anyhow::{Context, Result};
use prost::Message;
use rota_core::Namespace;
use rota_proto::v1;
use rota_store::{Command, DocumentKey, DocumentKind, Expected, PutDocument};
use rota_testkit::{Backend, tasks};

use super::{Fixture, NAME, at, spec, text, times};

/// The stored form, as far as the tests write it.
#[derive(Clone, PartialEq, prost::Message)]
struct StoredStatus {
    #[prost(bytes = "vec", tag = "1")]
    schedule: Vec<u8>,
    #[prost(int64, tag = "2")]
    cursor: i64,
    #[prost(int64, tag = "3")]
    anchor: i64,
    #[prost(message, repeated, tag = "4")]
    active: Vec<StoredRun>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoredRun {
    #[prost(message, optional, tag = "1")]
    run: Option<v1::ScheduleRun>,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(int64, tag = "4")]
    latest_start: i64,
}

fn wire(time: &str) -> pbjson_types::Timestamp {
    let time: jiff::Timestamp = time.parse().unwrap();
    pbjson_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() }
}

#[tokio::test]
async fn refused_runs_are_a_bounded_history() -> Result<()> {
    let fixture = Fixture::start(Backend::Memory, "2026-01-01T00:00:30Z").await?;
    let mut wanted = spec("* * * * *", "");
    wanted.task.get_or_insert_default().spec.get_or_insert_default().strict = true;
    fixture.create(wanted).await?;
    for minute in 1..=30 {
        let now = format!("2026-01-01T00:{minute:02}:00Z");
        fixture.set(&now);
        let is_last = |run: &v1::ScheduleRun| run.schedule_time.as_ref().map(text).as_ref() == Some(&now);
        let status = fixture.until("a refusal", |status| status.recent.first().is_some_and(is_last)).await?;
        assert!(status.recent.len() <= 10, "{minute}: {}", status.recent.len());
    }
    // So is one that was requested, whose caller has the reason.
    let request = v1::RunScheduleRequest { name: NAME.into(), ..Default::default() };
    let refused = fixture.client().run_schedule(request).await.unwrap_err();
    assert!(refused.to_string().contains("agent \"echo\" does not exist"), "{refused}");
    let status = fixture.status().await?;
    assert_eq!((status.recent.len(), status.recent[0].requested, status.active.len()), (10, true, 0));
    assert_eq!(times(&status.recent)[1], "2026-01-01T00:30:00Z");
    Ok(())
}

/// A control plane was killed between storing a run and creating its task.
#[tokio::test]
async fn stored_runs_start_only_in_time() -> Result<()> {
    let early = "2026-01-01T01:00:30Z";
    for (requested, paused, now, reason) in [
        (false, false, early, None),
        (false, false, "2026-01-01T01:02:00Z", Some("its start deadline has passed")),
        (false, true, early, Some("the schedule was paused before its start")),
        (true, true, early, None),
    ] {
        let mut fixture = Fixture::start(Backend::Sqlite, "2026-01-01T00:00:30Z").await?;
        let start_deadline = Some(tasks::millis(60_000));
        let wanted = v1::ScheduleSpec { start_deadline, ..spec("0 * * * *", "") };
        let schedule = fixture.create(wanted).await?;
        if paused {
            fixture.pause(true).await?;
        }
        let run = v1::ScheduleRun {
            schedule_time: Some(wire("2026-01-01T01:00:00Z")),
            start_time: Some(wire("2026-01-01T01:00:00Z")),
            task: "0198b6a2-6c1e-7f5e-9d3a-5f2d8c1b7e40".to_owned(),
            requested,
            ..Default::default()
        };
        let latest_start = if requested { 0 } else { at("2026-01-01T01:01:00Z").0 };
        let status = StoredStatus {
            schedule: schedule.uid.parse::<uuid::Uuid>()?.as_bytes().to_vec(),
            cursor: at("2026-01-01T01:00:00Z").0,
            anchor: at("2026-01-01T00:00:30Z").0,
            active: vec![StoredRun { run: Some(run), key: "schedule:test".to_owned(), latest_start }],
        };
        let key = DocumentKey {
            kind: DocumentKind::ScheduleStatus,
            namespace: Namespace::new("default")?,
            name: "nightly".to_owned(),
        };
        let payload = status.encode_to_vec().into();
        let put = Command::PutDocument(PutDocument { key, payload, expected: Expected::Any });
        let store = fixture.cluster.store().context("no store")?;
        store.apply(vec![put]).await?.remove(0)?;
        drop(store);
        fixture.cluster.kill().await;
        fixture.set(now);
        fixture.cluster.restart().await?;
        let status =
            fixture.until("the run", |status| status.started == 1 || status.last_skip.is_some()).await?;
        let skip = status.last_skip.map(|skip| (text(&skip.schedule_time.unwrap_or_default()), skip.reason));
        let wanted = reason.map(|reason| ("2026-01-01T01:00:00Z".to_owned(), reason.to_owned()));
        assert_eq!(skip, wanted);
        let count = usize::from(reason.is_none());
        assert_eq!((fixture.tasks().await?.len(), status.active.len()), (count, count), "{reason:?}");
    }
    Ok(())
}

#[tokio::test]
async fn pages_of_schedules_are_bounded_in_bytes() -> Result<()> {
    let fixture = Fixture::start(Backend::Memory, "2026-01-01T00:00:30Z").await?;
    let label = |number: usize| (format!("{number:02}{}", "k".repeat(200)), "v".repeat(200));
    let labels: std::collections::BTreeMap<_, _> = (0..60).map(label).collect();
    for number in 0..60 {
        let schedule = v1::Schedule {
            labels: labels.clone().into_iter().collect(),
            spec: Some(spec("* * * * *", "")),
            ..Default::default()
        };
        let request = v1::CreateScheduleRequest {
            parent: "namespaces/default".to_owned(),
            schedule_id: format!("of-{number:02}"),
            schedule: Some(schedule),
            ..Default::default()
        };
        Box::pin(fixture.client().create_schedule(request)).await?;
    }
    let (mut names, mut token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let request = v1::ListSchedulesRequest {
            parent: "namespaces/default".to_owned(),
            page_token: token,
            ..Default::default()
        };
        let page = fixture.client().list_schedules(request).await?;
        assert!(page.encoded_len() <= (1 << 20) + 1000, "{}", page.encoded_len());
        names.extend(page.schedules.into_iter().map(|schedule| schedule.name));
        (token, pages) = (page.next_page_token, pages + 1);
        if token.is_empty() {
            break;
        }
    }
    let all = (0..60).map(|number| format!("namespaces/default/schedules/of-{number:02}"));
    assert_eq!((names, pages), (all.collect(), 2));
    Ok(())
}
