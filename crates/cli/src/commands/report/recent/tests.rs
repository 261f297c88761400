//! Statistics over tasks of a time range.

use std::time::UNIX_EPOCH;

use pbjson_types::Timestamp;
use rota_proto::v1::{Failure, FailureClass, Target, TaskSpec, Usage, target};

use super::super::section::page;
use super::*;

fn task(uid: &str, agent: &str, state: TaskState, ran: i64, cost: i64) -> Task {
    let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let target = Target { kind: Some(target::Kind::Agent(agent.into())) };
    let usage = Usage {
        input_tokens: 10,
        output_tokens: 1,
        cost_micro_usd: cost,
        model: "m".into(),
        ..Default::default()
    };
    let started = state != TaskState::Queued;
    let status = TaskStatus {
        state: state.into(),
        attempt: i32::from(started),
        ready_time: at(0),
        start_time: at(10).filter(|_| started),
        end_time: at(10 + ran).filter(|_| state.is_final()),
        usage: Some(usage).filter(|_| started),
        ..Default::default()
    };
    Task {
        uid: uid.into(),
        spec: Some(Box::new(TaskSpec { target: Some(target), ..Default::default() })),
        status: Some(Box::new(status)),
        ..Default::default()
    }
}

fn all() -> Vec<Task> {
    let mut failed = task("bad", "shell", TaskState::Failed, 100, 0);
    let status = failed.status.as_mut().unwrap();
    let message = "exit code 1\nmore".to_owned();
    status.failure = Some(Failure { class: FailureClass::Crash.into(), message, ..Default::default() });
    (status.attempt, status.worker_losses) = (3, 1);
    vec![
        task("good", "coder", TaskState::Succeeded, 20, 1_000_000),
        failed,
        task("waits", "coder", TaskState::Queued, 0, 0),
        task("runs", "coder", TaskState::Running, 0, 500_000),
    ]
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn report_renders_as_text() {
    let report = Report::of(&all(), at(0), at(60), false);
    let text = page(&report.title(), &report.sections(), false, false);
    assert_eq!(
        text,
        "\
4 tasks from 1970-01-01T00:00:00Z to 1970-01-01T00:01:00Z

Outcomes
  STATE      TASKS  SHARE
  Failed     1      25%
  Queued     1      25%
  Running    1      25%
  Succeeded  1      25%

Times
  TIME                TASKS  MEDIAN  P95    MAX    TOTAL
  queued              2      10s     10s    10s    20s
  first start to end  2      20s     1m40s  1m40s  2m0s

Retries
  TASKS  RETRIES  WORKERS LOST
  1      2        1

By agent
  AGENT  TASKS  SUCCEEDED  FAILED  TOKENS IN  TOKENS OUT  COST
  coder  3      1          0       20         2           $1.50
  shell  1      0          1       10         1

By model
  MODEL  TASKS  SUCCEEDED  FAILED  TOKENS IN  TOKENS OUT  COST
  m      3      1          1       30         3           $1.50

Failures
  CLASS  TASKS  EXAMPLE
  crash  1      exit code 1

Slowest
  TASK  STATE      ATTEMPTS  FIRST START TO END
  bad   Failed     3         1m40s
  good  Succeeded  1         20s"
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!((&json["outcomes"]["Failed"], &json["times"][1]["p95"]), (&1.into(), &"100.000s".into()));
    assert_eq!(
        (&json["byAgent"][0]["costMicroUsd"], &json["failures"][0]["class"]),
        (&1_500_000.into(), &"crash".into())
    );
}

#[test]
fn empty_report_has_only_a_title() {
    let report = Report::of(&[], at(0), at(60), false);
    let text = page(&report.title(), &report.sections(), false, false);
    assert_eq!(text, "0 tasks from 1970-01-01T00:00:00Z to 1970-01-01T00:01:00Z");
}

#[test]
fn percentiles_use_nearest_rank() {
    let distribution = times("x", (1..=100).map(Duration::from_secs).collect()).unwrap();
    assert_eq!(
        (distribution.median.0.as_secs(), distribution.p95.0.as_secs(), distribution.longest.0.as_secs()),
        (50, 95, 100)
    );
    assert!(times("x", Vec::new()).is_none());
}
