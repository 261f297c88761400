//! Scripts that start no processes.

use rota_proto::v1::{Runtime as RuntimeSpec, TaskSpec};
use rota_proto::worker::v1::Assign;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::runtimes::deltas::Deltas;

async fn run(steps: Vec<Step>, attempt: i32, seed: u64) -> (RunReport, Vec<event::Kind>) {
    let (events, mut received) = mpsc::channel(64);
    let (_inputs, inputs) = mpsc::channel(1);
    let (_stop, stop) = watch::channel(None);
    let mut channels = Channels { events, deltas: Deltas::default(), inputs, stop };
    let report = Scripted::new().run(&scripted(steps, attempt, seed), &mut channels).await;
    drop(channels);
    let mut events = Vec::new();
    while let Ok(kind) = received.try_recv() {
        events.push(kind);
    }
    (report, events)
}

fn scripted(steps: Vec<Step>, attempt: i32, seed: u64) -> Attempt {
    let steps = steps.into_iter().map(|kind| ScriptStep { kind: Some(kind) }).collect();
    let kind = Some(runtime::Kind::Scripted(ScriptedRuntime { steps, seed }));
    let spec = TaskSpec { runtime: Some(RuntimeSpec { kind }), ..TaskSpec::default() };
    let assign = Assign { task_id: "t".to_owned(), attempt, spec: Some(spec), ..Assign::default() };
    Attempt::new(Box::new(assign), Default::default())
}

/// A repository, and commands before the script, may have put anything where it writes.
#[tokio::test]
async fn scripts_write_nothing_through_links() {
    let root = tempfile::tempdir().unwrap();
    let (work, scratch, victim) =
        (root.path().join("work"), root.path().join("scratch"), root.path().join("victim"));
    for folder in [&work, &scratch, &scratch.join("script")] {
        std::fs::create_dir(folder).unwrap();
    }
    std::fs::write(&victim, "of the user").unwrap();
    for link in [work.join("link"), scratch.join("script/conversation.txt")] {
        std::os::unix::fs::symlink(&victim, link).unwrap();
    }
    std::os::unix::fs::symlink(root.path(), work.join("folder")).unwrap();
    let run = async |step: Step| {
        let (events, _received) = mpsc::channel(64);
        let (_inputs, inputs) = mpsc::channel(1);
        let (_stop, stop) = watch::channel(None);
        let mut channels = Channels { events, deltas: Deltas::default(), inputs, stop };
        let (workspace, scratch) = (work.clone(), scratch.clone());
        let attempt = Attempt { workspace, scratch, ..scripted(vec![step], 1, 0) };
        Scripted::new().run(&attempt, &mut channels).await.outcome
    };
    let write = |path: &str| {
        Step::WriteFile(rota_proto::v1::ScriptFile {
            path: path.to_owned(),
            text: "of the author".to_owned(),
        })
    };
    let steps = [write("link"), write("folder/victim"), write("folder/new"), Step::Remember("a line".into())];
    for step in steps {
        let outcome = run(step.clone()).await;
        let RunOutcome::Failed(failed) = outcome else { panic!("{step:?}: {outcome:?}") };
        assert_eq!(failed.class(), FailureClass::Invalid, "{step:?}: {failed:?}");
    }
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "of the user");
    assert!(!root.path().join("new").exists());
    for text in ["deep/file", "deep/file"] {
        assert!(matches!(run(write(text)).await, RunOutcome::Succeeded(_)));
    }
    assert_eq!(std::fs::read_to_string(work.join("deep/file")).unwrap(), "of the author");
}

fn failing(attempts: i32, probability: Option<f64>) -> Step {
    Step::Fail(ScriptFailure {
        class: "rate_limit".to_owned(),
        message: String::new(),
        probability,
        attempts,
    })
}

#[tokio::test]
async fn empty_script_succeeds() {
    let (report, events) = run(vec![], 1, 0).await;
    assert!(matches!(report.outcome, RunOutcome::Succeeded(_)));
    assert!(events.is_empty());
}

#[tokio::test(start_paused = true)]
async fn steps_run_in_order_until_succeed() {
    let minute = Step::Delay(Duration::from_secs(60).into());
    let steps = vec![
        Step::Message("a".into()),
        minute,
        Step::Progress(0.5),
        Step::Succeed("x".into()),
        failing(0, None),
    ];
    let (report, events) = run(steps, 1, 0).await;
    assert!(matches!(report.outcome, RunOutcome::Succeeded(result) if result.text == "x"));
    assert!(matches!(events.as_slice(), [event::Kind::Message(_), event::Kind::Progress(_)]));
}

#[tokio::test]
async fn scripted_failures_stop_after_their_attempts() {
    let (report, _) = run(vec![failing(1, None)], 1, 0).await;
    assert!(
        matches!(report.outcome, RunOutcome::Failed(failed) if failed.class() == FailureClass::RateLimit)
    );
    let (report, _) = run(vec![failing(1, None)], 2, 0).await;
    assert!(matches!(report.outcome, RunOutcome::Succeeded(_)));
}

#[tokio::test]
async fn same_seed_gives_same_outcomes() {
    let mut results = Vec::new();
    for _ in 0..2 {
        let mut successes = Vec::new();
        for seed in 1..40 {
            let (report, _) = run(vec![failing(0, Some(0.5))], 1, seed).await;
            successes.push(matches!(report.outcome, RunOutcome::Succeeded(_)));
        }
        results.push(successes);
    }
    assert_eq!(results[0], results[1]);
    assert!(results[0].contains(&true) && results[0].contains(&false));
}

#[tokio::test]
async fn questions_and_delays_wait() {
    let (events, mut received) = mpsc::channel(64);
    let (answers, inputs) = mpsc::channel(2);
    let (stopper, stop) = watch::channel(None);
    let endless = Step::Delay(Duration::from_secs(1 << 30).into());
    let steps = vec![Step::Ask("which?".into()), Step::Progress(1.0), endless];
    let run = async {
        let runtime = Scripted::new();
        runtime
            .run(&scripted(steps, 1, 0), &mut Channels { events, deltas: Deltas::default(), inputs, stop })
            .await
    };
    let steer = async {
        let Some(event::Kind::InputRequest(asked)) = received.recv().await else { panic!("no question") };
        let answer = |request_id| rota_proto::v1::TaskInput { request_id, ..Default::default() };
        answers.send(answer("another".to_owned())).await.unwrap();
        answers.send(answer(asked.request_id)).await.unwrap();
        assert!(matches!(received.recv().await, Some(event::Kind::Progress(_))));
        stopper.send_replace(Some(Stop { grace: Duration::ZERO }));
    };
    let (report, ()) = tokio::join!(run, steer);
    assert!(matches!(report.outcome, RunOutcome::Stopped { by: "interrupt" }));
}
