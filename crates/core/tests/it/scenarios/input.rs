//! Questions, answers, and messages out of turn.

use bytes::Bytes;
use rota_core::task::{Body, Command, Meaning, Rejected, Reply, State};

use crate::life::*;

fn asked(questions: &[&str]) -> Life {
    let mut life = Life::new(plain());
    life.start().report(1, questions.iter().map(|question| asks(question)).collect()).unwrap();
    life
}

#[test]
fn a_question_waits_for_its_answer() {
    let mut life = asked(&["q1"]);
    assert_eq!(life.state(), State::InputRequired);
    let unknown = life.tries(answer("q9")).unwrap_err();
    assert_eq!(unknown, Rejected::NoSuchQuestion("q9".to_owned()));
    assert_eq!(life.does(answer("q1")), Reply::InputSeq(1));
    assert_eq!(life.state(), State::Running);
    assert_eq!(life.reasons().split_off(4), ["input_required", "input_settled"]);
    assert!(life.log.iter().any(|event| matches!(event.body, Body::Input { seq: 1, .. })));
}

#[test]
fn an_answer_is_taken_once_and_may_be_repeated() {
    let other = || Command::GiveInput { request: "q1".to_owned(), payload: Bytes::from_static(b"that one") };
    let mut life = asked(&["q1", "q2"]);
    life.does(answer("q2"));
    assert_eq!(life.does(answer("q1")), Reply::InputSeq(2));
    let repeat = |life: &mut Life| {
        let (task, log) = (life.task.clone(), life.log.len());
        assert_eq!(life.does(answer("q1")), Reply::InputSeq(2));
        assert_eq!((&task, log), (&life.task, life.log.len()), "a repetition left traces");
    };
    repeat(&mut life);
    assert_eq!(life.tries(other()).unwrap_err(), Rejected::NoSuchQuestion("q1".to_owned()));
    life.lose(EPOCH);
    repeat(&mut life);
    life.start();
    repeat(&mut life);
    // Asked anew, it is a new question.
    life.report(1, vec![asks("q1")]).unwrap();
    assert_eq!(life.does(other()), Reply::InputSeq(3));
    assert_eq!(life.state(), State::Running);
    assert_eq!(life.tries(answer("q1")).unwrap_err(), Rejected::NoSuchQuestion("q1".to_owned()));
    life.finish(succeeded());
    assert_eq!(life.does(other()), Reply::InputSeq(3));
    assert_eq!(life.tries(answer("q1")).unwrap_err(), Rejected::Final(State::Succeeded));
}

#[test]
fn only_so_many_answers_are_remembered() {
    let mut life = asked(&[]);
    for number in 0..40 {
        life.report(number + 1, vec![asks(&format!("q{number}"))]).unwrap();
        life.does(answer(&format!("q{number}")));
    }
    assert_eq!(life.task.answered.len(), 32);
    assert_eq!(life.does(answer("q8")), Reply::InputSeq(9));
    assert_eq!(life.tries(answer("q7")).unwrap_err(), Rejected::NoSuchQuestion("q7".to_owned()));
}

#[test]
fn a_question_may_be_settled_elsewhere() {
    let mut life = asked(&["q1"]);
    life.report(2, vec![item(Meaning::Settles("other".to_owned()))]).unwrap();
    assert_eq!(life.state(), State::InputRequired);
    life.report(3, vec![item(Meaning::Settles("q1".to_owned()))]).unwrap();
    assert_eq!(life.state(), State::Running);
}

#[test]
fn all_questions_must_be_settled() {
    let mut life = asked(&["q1", "q2"]);
    life.does(answer("q2"));
    assert_eq!(life.state(), State::InputRequired);
    life.does(answer("q1"));
    assert_eq!(life.state(), State::Running);
}

#[test]
fn a_question_asked_twice_has_one_answer() {
    let mut life = asked(&["q1", "q1"]);
    life.does(answer("q1"));
    assert_eq!(life.state(), State::Running);
}

#[test]
fn a_message_out_of_turn_needs_a_run() {
    let mut life = Life::new(plain());
    assert_eq!(life.tries(answer("")).unwrap_err(), Rejected::State(State::Queued));
    life.assign();
    assert_eq!(life.tries(answer("")).unwrap_err(), Rejected::State(State::Assigned));
    life.accept();
    assert_eq!(life.does(answer("")), Reply::InputSeq(1));
    life.report(1, vec![asks("q1")]).unwrap();
    assert_eq!(life.does(answer("")), Reply::InputSeq(2));
    assert_eq!(life.state(), State::InputRequired);
}

#[test]
fn a_lost_worker_takes_its_questions_along() {
    let mut life = asked(&["q1"]);
    life.lose(EPOCH);
    life.start();
    assert_eq!(life.state(), State::Running);
    assert_eq!(life.tries(answer("q1")).unwrap_err(), Rejected::NoSuchQuestion("q1".to_owned()));
}

#[test]
fn an_asking_task_can_end() {
    let mut life = asked(&["q1"]);
    life.finish(succeeded());
    assert_eq!(life.state(), State::Succeeded);
}

#[test]
fn too_many_questions_are_refused_before_anything_happens() {
    let names: Vec<_> = (0..33).map(|number| format!("q{number}")).collect();
    let items = |count: usize| names.iter().take(count).map(|name| asks(name)).collect::<Vec<_>>();
    let mut life = Life::new(plain());
    life.assign();
    let before = life.task.clone();
    assert_eq!(life.report(1, items(33)).unwrap_err(), Rejected::TooMany("open questions"));
    assert_eq!(life.task, before);
    life.report(1, items(32)).unwrap();
    // A batch that is sent again is passed over, and one that settles as it asks is not too many.
    assert_eq!(life.report(1, items(32)).unwrap(), Reply::Reported(32));
    let turn = vec![item(Meaning::Settles("q0".to_owned())), asks("q32")];
    assert_eq!(life.report(33, turn).unwrap(), Reply::Reported(34));
}

#[test]
fn inputs_are_numbered_over_all_attempts_and_bounded() {
    let mut life = asked(&[]);
    assert_eq!(life.does(answer("")), Reply::InputSeq(1));
    life.lose(EPOCH);
    life.start();
    for _ in 1..10_000 {
        life.does(answer(""));
    }
    assert_eq!(life.tries(answer("")).unwrap_err(), Rejected::TooMany("inputs"));
    let held = life.live();
    life.does(Command::Accept(held));
}
