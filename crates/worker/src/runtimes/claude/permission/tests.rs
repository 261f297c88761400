//! Tests of the permission policies and the queue.

use serde_json::json;

use super::*;

fn bash() -> CanUseTool {
    serde_json::from_value(json!({
        "tool_name": "Bash", "input": {"command": "make"}, "decision_reason": "This command requires approval",
    }))
    .unwrap()
}

fn ask_two() -> CanUseTool {
    let question = |text: &str| json!({"question": text, "header": "H", "multiSelect": false, "options": [{"label": "red"}, {"label": "blue"}]});
    serde_json::from_value(json!({
        "tool_name": "AskUserQuestion", "input": {"questions": [question("Which?"), question("And then?")]},
    }))
    .unwrap()
}

fn behavior(line: &Value) -> &str {
    line["response"]["response"]["behavior"].as_str().unwrap()
}

fn requested(effects: &Effects) -> Vec<&InputRequest> {
    effects
        .events
        .iter()
        .filter_map(|kind| match kind {
            event::Kind::InputRequest(request) => Some(request),
            _ => None,
        })
        .collect()
}

fn input(id: &str, decision: Decision, text: &str) -> TaskInput {
    TaskInput {
        request_id: id.to_owned(),
        decision: decision.into(),
        text: text.to_owned(),
        ..TaskInput::default()
    }
}

#[test]
fn policies_without_user_decide_immediately() {
    for (policy, expected, notices) in [
        (PermissionPolicy::Unspecified, "deny", 1),
        (PermissionPolicy::Deny, "deny", 1),
        (PermissionPolicy::Allow, "allow", 0),
    ] {
        let effects = PermissionQueue::new(policy).ask("r1", &bash());
        assert_eq!(behavior(&effects.send[0]), expected);
        assert_eq!(effects.events.len(), notices);
        let effects = PermissionQueue::new(policy).ask("r2", &ask_two());
        assert_eq!(behavior(&effects.send[0]), "deny", "a question cannot be allowed away");
    }
}

#[test]
fn user_decision_is_applied() {
    for (decision, text, expected) in [
        (Decision::Allow, "", "allow"),
        (Decision::Deny, "too risky", "deny"),
        (Decision::Unspecified, "yes", "deny"),
    ] {
        let mut permissions = PermissionQueue::new(PermissionPolicy::Ask);
        let asked = permissions.ask("r1", &bash());
        assert!(asked.send.is_empty() && permissions.waiting.len() == 1);
        let request = requested(&asked)[0];
        assert_eq!((request.request_id.as_str(), request.tool.as_str()), ("r1", "Bash"));
        assert_eq!(request.kind(), InputKind::Permission);
        assert!(request.prompt.contains("requires approval"), "{}", request.prompt);
        let effects = permissions.answer(&input("r1", decision, text));
        assert_eq!(behavior(&effects.send[0]), expected);
        assert!(permissions.waiting.is_empty());
    }
}

#[test]
fn rules_and_edited_inputs_reach_the_cli() {
    let mut permissions = PermissionQueue::new(PermissionPolicy::Ask);
    permissions.ask("r1", &bash());
    let mut answer = input("r1", Decision::Allow, "");
    answer.rules = vec!["Bash(make *)".to_owned()];
    answer.updated_input_json = r#"{"command": "make -n"}"#.to_owned();
    let response = permissions.answer(&answer).send[0]["response"]["response"].clone();
    assert_eq!(response["updatedInput"], json!({"command": "make -n"}));
    assert_eq!(response["updatedPermissions"][0]["destination"], "session");
    assert_eq!(
        response["updatedPermissions"][0]["rules"],
        json!([{"toolName": "Bash", "ruleContent": "make *"}])
    );
}

#[test]
fn all_questions_must_be_answered() {
    let mut permissions = PermissionQueue::new(PermissionPolicy::Ask);
    let asked = permissions.ask("r1", &ask_two());
    let requests = requested(&asked);
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].choices, ["red", "blue"]);
    assert_eq!(requests[1].kind(), InputKind::Question);
    let second = requests[1].request_id.clone();
    assert!(permissions.answer(&input(&second, Decision::Unspecified, "my own words")).send.is_empty());
    let effects = permissions.answer(&input("r1", Decision::Unspecified, "blue"));
    let answers = &effects.send[0]["response"]["response"]["updatedInput"]["answers"];
    assert_eq!(answers, &json!({"Which?": "blue", "And then?": "my own words"}));
    assert!(permissions.waiting.is_empty());
}

#[test]
fn withdrawn_and_unknown_requests_are_reported() {
    let mut permissions = PermissionQueue::new(PermissionPolicy::Ask);
    permissions.ask("r1", &bash());
    assert_eq!(settled_ids(&permissions.withdraw("r1")), ["r1"]);
    assert!(permissions.withdraw("r1").events.is_empty());
    let late = permissions.answer(&input("r1", Decision::Allow, ""));
    assert!(late.send.is_empty());
    assert_eq!(late.events.len(), 1);
}

fn settled_ids<'a>(effects: &'a Effects) -> Vec<&'a str> {
    let id = |kind: &'a event::Kind| match kind {
        event::Kind::InputReceived(given) => Some(given.input.as_ref()?.request_id.as_str()),
        _ => None,
    };
    effects.events.iter().filter_map(id).collect()
}

#[test]
fn denied_question_settles_its_siblings() {
    let mut permissions = PermissionQueue::new(PermissionPolicy::Ask);
    permissions.ask("r1", &ask_two());
    let effects = permissions.answer(&input("r1", Decision::Deny, ""));
    assert_eq!(behavior(&effects.send[0]), "deny");
    assert_eq!(settled_ids(&effects), ["r1#1"], "the control plane has closed the answered one");
}

#[test]
fn requests_beyond_the_limit_are_queued() {
    let mut permissions = PermissionQueue::new(PermissionPolicy::Ask);
    let reported: usize =
        (0..40).map(|number| requested(&permissions.ask(&format!("r{number}"), &bash())).len()).sum();
    assert_eq!(reported, OPEN_REQUESTS);
    let effects = permissions.answer(&input("r0", Decision::Allow, ""));
    assert_eq!(requested(&effects)[0].request_id, "r32");
    // Settled before the next one is reported, so that the limit holds after every event.
    let effects = permissions.withdraw("r1");
    assert_eq!(settled_ids(&effects), ["r1"]);
    assert!(
        matches!(effects.events.last(), Some(event::Kind::InputRequest(next)) if next.request_id == "r33")
    );
    assert!(settled_ids(&permissions.withdraw("r39")).is_empty(), "it was never reported");
    assert_eq!(settled_ids(&permissions.withdraw_all()).len(), OPEN_REQUESTS);
}

/// Returns what an earlier attempt has asked, with an answer.
fn answered(asked: &Effects, answers: &[TaskInput]) -> Vec<AnsweredQuestion> {
    let both = |(question, answer): (&InputRequest, &TaskInput)| AnsweredQuestion {
        question: Some(question.clone()),
        answer: Some(answer.clone()),
    };
    requested(asked).into_iter().zip(answers).map(both).collect()
}

#[test]
fn answers_to_an_earlier_attempt_count_once() {
    let asked = PermissionQueue::new(PermissionPolicy::Ask).ask("old", &bash());
    let answers = answered(&asked, &[input("old", Decision::Allow, "")]);
    let mut permissions = PermissionQueue::new(PermissionPolicy::Ask);
    permissions.answered_before(&answers);
    // Another input is another question.
    let mut other = bash();
    other.input = json!({"command": "make install"});
    assert_eq!(requested(&permissions.ask("r0", &other)).len(), 1);
    let effects = permissions.ask("r1", &bash());
    assert_eq!((requested(&effects).len(), behavior(&effects.send[0])), (0, "allow"));
    let effects = permissions.ask("r2", &bash());
    assert!(effects.send.is_empty() && requested(&effects).len() == 1, "it was for one call");

    // What is not all of the input could be something else.
    let mut incomplete = answers;
    incomplete[0].question.as_mut().unwrap().input_incomplete = true;
    let mut permissions = PermissionQueue::new(PermissionPolicy::Ask);
    permissions.answered_before(&incomplete);
    assert_eq!(requested(&permissions.ask("r1", &bash())).len(), 1);
}

#[test]
fn only_questions_without_an_answer_are_asked_again() {
    let asked = PermissionQueue::new(PermissionPolicy::Ask).ask("old", &ask_two());
    let answers = answered(&asked, &[input("old", Decision::Unspecified, "red")]);
    let mut permissions = PermissionQueue::new(PermissionPolicy::Ask);
    permissions.answered_before(&answers);
    let effects = permissions.ask("r1", &ask_two());
    let open: Vec<_> = requested(&effects).iter().map(|open| open.request_id.clone()).collect();
    assert_eq!(open, ["r1#1"]);
    let effects = permissions.answer(&input("r1#1", Decision::Unspecified, "blue"));
    let line = effects.send[0].to_string();
    assert!(behavior(&effects.send[0]) == "allow" && line.contains("red") && line.contains("blue"), "{line}");
}
