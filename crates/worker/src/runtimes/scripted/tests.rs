//! Scripts without processes.

use rota_proto::v1::{Runtime as RuntimeSpec, TaskSpec};
use rota_proto::worker::v1::Assign;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::runtimes::StopCause;

async fn play(steps: Vec<Step>, attempt: i32, seed: u64) -> (Outcome, Vec<event::Kind>) {
    let (events, mut received) = mpsc::channel(64);
    let (_inputs, inputs) = mpsc::channel(1);
    let (_stop, stop) = watch::channel(None);
    let outcome =
        Scripted::new().run(scripted(steps, attempt, seed), Channels { events, inputs, stop }).await;
    let mut seen = Vec::new();
    while let Ok(kind) = received.try_recv() {
        seen.push(kind);
    }
    (outcome, seen)
}

fn scripted(steps: Vec<Step>, attempt: i32, seed: u64) -> Attempt {
    let steps = steps.into_iter().map(|kind| ScriptStep { kind: Some(kind) }).collect();
    let kind = Some(runtime::Kind::Scripted(ScriptedRuntime { steps, seed }));
    let spec = TaskSpec { runtime: Some(RuntimeSpec { kind }), ..TaskSpec::default() };
    Attempt {
        assign: Assign { task_id: "t".to_owned(), attempt, spec: Some(spec), ..Assign::default() },
        workspace: Default::default(),
        scratch: Default::default(),
        environment: Environment::default(),
        redactor: Default::default(),
    }
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
async fn an_empty_script_succeeds() {
    let (outcome, seen) = play(vec![], 1, 0).await;
    assert!(matches!(outcome.ending, Ending::Succeeded(_)));
    assert!(seen.is_empty());
}

#[tokio::test(start_paused = true)]
async fn steps_come_in_order_and_succeed_ends() {
    let minute = Step::Delay(Duration::from_secs(60).into());
    let steps =
        vec![Step::Say("a".into()), minute, Step::Progress(0.5), Step::Succeed("x".into()), failing(0, None)];
    let (outcome, seen) = play(steps, 1, 0).await;
    assert!(matches!(outcome.ending, Ending::Succeeded(result) if result.text == "x"));
    assert!(matches!(seen.as_slice(), [event::Kind::Message(_), event::Kind::Progress(_)]));
}

#[tokio::test]
async fn failures_have_their_class_and_end_with_the_attempts() {
    let (outcome, _) = play(vec![failing(1, None)], 1, 0).await;
    assert!(matches!(outcome.ending, Ending::Failed(failed) if failed.class() == FailureClass::RateLimit));
    let (outcome, _) = play(vec![failing(1, None)], 2, 0).await;
    assert!(matches!(outcome.ending, Ending::Succeeded(_)));
}

#[tokio::test]
async fn chance_is_the_same_for_the_same_seed() {
    let mut results = Vec::new();
    for _ in 0..2 {
        let mut run = Vec::new();
        for seed in 1..40 {
            let (outcome, _) = play(vec![failing(0, Some(0.5))], 1, seed).await;
            run.push(matches!(outcome.ending, Ending::Succeeded(_)));
        }
        results.push(run);
    }
    assert_eq!(results[0], results[1]);
    assert!(results[0].contains(&true) && results[0].contains(&false));
}

#[tokio::test]
async fn a_question_waits_for_its_answer_and_a_wait_for_a_stop() {
    let (events, mut received) = mpsc::channel(64);
    let (answers, inputs) = mpsc::channel(2);
    let (stopper, stop) = watch::channel(None);
    let forever = Step::Delay(Duration::from_secs(1 << 30).into());
    let steps = vec![Step::Ask("which?".into()), Step::Progress(1.0), forever];
    let run = async {
        let runtime = Scripted::new();
        runtime.run(scripted(steps, 1, 0), Channels { events, inputs, stop }).await
    };
    let steer = async {
        let Some(event::Kind::InputRequest(asked)) = received.recv().await else { panic!("no question") };
        let answer = |request_id| rota_proto::v1::TaskInput { request_id, ..Default::default() };
        answers.send(answer("another".to_owned())).await.unwrap();
        answers.send(answer(asked.request_id)).await.unwrap();
        assert!(matches!(received.recv().await, Some(event::Kind::Progress(_))));
        stopper.send_replace(Some(Stop { cause: StopCause::Cancelled, grace: Duration::ZERO }));
    };
    let (outcome, ()) = tokio::join!(run, steer);
    assert!(matches!(outcome.ending, Ending::Stopped { by: "interrupt" }));
}
