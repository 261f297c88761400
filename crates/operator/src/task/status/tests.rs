//! Statuses of tasks: writes, explanations of waits, conditions.

use super::*;

fn record(state: TaskState) -> v1::Task {
    let status = v1::TaskStatus { state: state.into(), attempt: 1, ..Default::default() };
    v1::Task { uid: "u".into(), status: Some(Box::new(status)), ..Default::default() }
}

fn cause(code: &str, message: &str) -> v1::Cause {
    v1::Cause { code: code.to_owned(), message: message.to_owned(), hint: String::new() }
}

fn built(task: &Task, state: TaskState) -> TaskStatus {
    build(task, &record(state), None, Timestamp::from_second(100).unwrap())
}

fn ages(task: Duration, running: Option<Duration>) -> Ages {
    Ages { task, running, wait: WaitAges::default() }
}

#[test]
fn quick_task_costs_one_write() {
    let task = Task::default();
    let soon = Duration::from_millis(10);
    let queued = built(&task, TaskState::Queued);
    let later = WriteDue::In(WAIT_STATUS_DELAY - soon);
    assert_eq!(write_due(&task, &queued, ages(soon, None), 0), later);
    // Its time in the queue does not count: it may end right after its start.
    let running = built(&task, TaskState::Running);
    assert_eq!(write_due(&task, &running, ages(9 * WAIT_STATUS_DELAY, Some(soon)), 0), later);
    let done = built(&task, TaskState::Succeeded);
    assert_eq!(write_due(&task, &done, ages(soon, Some(soon)), 0), WriteDue::Now);
}

#[test]
fn burst_starts_before_its_waits_are_written() {
    let task = Task::default();
    let queued = built(&task, TaskState::Queued);
    let due = |place, age| {
        let wait = WaitAges { place, ..WaitAges::default() };
        write_due(&task, &queued, Ages { wait, ..ages(age, None) }, 0)
    };
    let second = Duration::from_secs(1);
    assert_eq!(due(0, WAIT_STATUS_DELAY), WriteDue::Now);
    assert_eq!(
        due(1, WAIT_STATUS_DELAY),
        WriteDue::In(second / WAITS_PER_SECOND),
        "each has a turn of its own"
    );
    assert_eq!(due(10 * WAITS_PER_SECOND, WAIT_STATUS_DELAY), WriteDue::In(10 * second));
    assert_eq!(due(u32::MAX, WAIT_STATUS_DELAY), WriteDue::In(MAX_BURST_DELAY));
    assert_eq!(due(u32::MAX, WAIT_STATUS_DELAY + MAX_BURST_DELAY), WriteDue::Now);
    // What follows the first status does not wait.
    let done = built(&task, TaskState::Succeeded);
    let wait = WaitAges { place: u32::MAX, ..WaitAges::default() };
    assert_eq!(write_due(&task, &done, Ages { wait, ..ages(second, None) }, 0), WriteDue::Now);
}

#[test]
fn long_task_costs_two_writes() {
    let mut task = Task::default();
    let running = built(&task, TaskState::Running);
    let old = ages(WAIT_STATUS_DELAY, Some(WAIT_STATUS_DELAY));
    assert_eq!(write_due(&task, &running, old, 0), WriteDue::Now);
    // While many writes are under way, it may end before its turn.
    let load = WRITES_PER_DELAY;
    assert_eq!(write_due(&task, &running, old, load), WriteDue::In(WAIT_STATUS_DELAY));
    task.status = Some(running.clone());
    assert_eq!(write_due(&task, &running, old, load), WriteDue::Never);
    let asks = built(&task, TaskState::InputRequired);
    assert_eq!(write_due(&task, &asks, ages(Duration::ZERO, None), load), WriteDue::Now);
    let done = built(&task, TaskState::Succeeded);
    assert_eq!(write_due(&task, &done, old, load), WriteDue::Now);
}

#[test]
fn progress_comes_with_other_writes() {
    let at = |state: TaskState, fraction: f64, step: &str| {
        let mut record = record(state);
        let progress = v1::Progress { fraction, step: step.to_owned() };
        record.status.get_or_insert_default().progress = Some(progress);
        build(&Task::default(), &record, None, Timestamp::from_second(100).unwrap())
    };
    let shown = |fraction, step: &str| at(TaskState::Running, fraction, step).progress;
    assert_eq!(shown(1.0 / 3.0, "2/3: Write the parser").as_deref(), Some("33% 2/3: Write the parser"));
    assert_eq!(shown(0.0, "Bash").as_deref(), Some("Bash"));
    assert_eq!((shown(0.0, " "), shown(2.0, "")), (None, Some("100%".to_owned())));
    assert_eq!(shown(0.0, &"ä".repeat(1000)).map(|text| text.len()), Some(MAX_PROGRESS_BYTES));

    let running = at(TaskState::Running, 0.0, "Read");
    let task = Task { status: Some(running), ..Task::default() };
    let old = ages(WAIT_STATUS_DELAY, Some(WAIT_STATUS_DELAY));
    let later = at(TaskState::Running, 0.5, "1/2: Write");
    assert_eq!(write_due(&task, &later, old, 0), WriteDue::Never);
    let asks = at(TaskState::InputRequired, 0.5, "1/2: Write");
    assert_eq!(write_due(&task, &asks, old, 0), WriteDue::Now);
    assert_eq!(asks.progress.as_deref(), Some("50% 1/2: Write"));
}

#[test]
fn unsubmitted_task_reports_the_outage() {
    let mut task = Task::default();
    let status = unsubmitted(&task, "ControlPlaneUnavailable", "no response");
    assert_eq!((status.phase, status.task_id.as_ref()), (TaskPhase::Pending, None), "it is submitted later");
    assert_eq!(status.reason.as_deref(), Some("ControlPlaneUnavailable"));
    task.status = Some(status.clone());
    assert_eq!(unsubmitted(&task, "ControlPlaneUnavailable", "no response"), status, "written once");
}

#[test]
fn waiting_task_explains_its_wait() {
    let task = Task::default();
    let cause = cause("agent_missing", "agent x does not exist");
    let waiting = explain_wait(&task, &record(TaskState::Pending), vec![cause]);
    let now = Timestamp::from_second(1).unwrap();
    let pending = build(&task, &record(TaskState::Pending), Some(waiting), now);
    assert_eq!(pending.reason.as_deref(), Some("AgentMissing"));
    assert_eq!(write_due(&task, &pending, ages(WAIT_STATUS_DELAY, None), 0), WriteDue::Now);
    assert_eq!(pending.conditions, []);
}

#[test]
fn queue_movement_causes_no_write() {
    let (mut task, record, now) =
        (Task::default(), record(TaskState::Queued), Timestamp::from_second(1).unwrap());
    let mut write = |causes: Vec<v1::Cause>| {
        let why = explain_wait(&task, &record, causes);
        let status = build(&task, &record, Some(why), now);
        let due = write_due(&task, &status, ages(WAIT_STATUS_DELAY, None), 0);
        task.status = Some(status);
        due
    };
    let busy = |slots: u8| cause(NO_FREE_SLOT, &format!("all {slots} slots are busy"));
    assert_eq!(write(vec![busy(2), cause(BEHIND, "9 go first")]), WriteDue::Now);
    assert_eq!(write(vec![busy(4), cause(BEHIND, "8 go first")]), WriteDue::Never);
    assert_eq!(write(vec![cause(DISPATCHING, "a slot is free")]), WriteDue::Never);
    assert_eq!(write(vec![cause("no_worker", "none"), busy(0)]), WriteDue::Now);
}

#[test]
fn text_of_a_wait_is_refreshed_rarely() {
    let record = record(TaskState::Queued);
    let status = |code: &str, message: &str| {
        let why = explain_wait(&Task::default(), &record, vec![cause(code, message)]);
        build(&Task::default(), &record, Some(why), Timestamp::from_second(1).unwrap())
    };
    let task = Task { status: Some(status("no_worker", "none of 2 fits")), ..Task::default() };
    let due = |built: &TaskStatus, wait, writes| {
        write_due(&task, built, Ages { wait, ..ages(WAIT_STATUS_DELAY, None) }, writes)
    };
    let spread = Duration::from_secs(7);
    let written = |written| WaitAges { written, spread, ..WaitAges::default() };
    let text = status("no_worker", "none of 3 fits");
    let left = REFRESH_INTERVAL + spread;
    assert_eq!(due(&text, written(Duration::ZERO), 0), WriteDue::Refresh(left));
    assert_eq!(due(&text, written(left), 0), WriteDue::Now);
    assert_eq!(due(&text, written(left), WRITES_PER_DELAY), WriteDue::Refresh(WAIT_STATUS_DELAY));
    // Another reason is written immediately, unless many writes are under way.
    let other = status("breaker_open", "it failed");
    assert_eq!(due(&other, written(Duration::ZERO), 0), WriteDue::Now);
    assert_eq!(due(&other, written(left), WRITES_PER_DELAY), WriteDue::In(WAIT_STATUS_DELAY));
    let since = WaitAges { differs: WAIT_STATUS_DELAY, ..WaitAges::default() };
    assert_eq!(due(&other, since, WRITES_PER_DELAY), WriteDue::Now);
}

#[test]
fn start_time_is_absolute() {
    let mut record = record(TaskState::Pending);
    let until = Some(pbjson_types::Timestamp { seconds: 0, nanos: 5 });
    let wait = v1::Wait { reason: WaitReason::StartTime.into(), until, ..Default::default() };
    record.status.as_mut().unwrap().waiting.push(wait);
    let why = explain_wait(&Task::default(), &record, vec![cause(START_TIME, "it starts in 9 s")]);
    assert_eq!(why.message, "the task starts at 1970-01-01T00:00:00Z");
}

#[test]
fn spent_budget_is_named_with_its_end() {
    let mut record = record(TaskState::Pending);
    let until = Some(pbjson_types::Timestamp { seconds: 86_400, nanos: 0 });
    let subject = "the daily budget of agent coder".to_owned();
    record.status.as_mut().unwrap().waiting.push(v1::Wait {
        reason: WaitReason::Budget.into(),
        subject,
        until,
    });
    let why = explain_wait(&Task::default(), &record, vec![cause("budget_spent", "or in 9 s")]);
    assert_eq!(why.reason, "BudgetSpent");
    assert!(
        why.message.starts_with("the daily budget of agent coder has no room for the task until 1970-01-02")
    );
}

#[test]
fn conditions_keep_their_transition_time() {
    let mut task = Task::default();
    task.status = Some(build(&task, &record(TaskState::Running), None, Timestamp::from_second(1).unwrap()));
    let done = built(&task, TaskState::Succeeded);
    let of = |type_: &str| done.conditions.iter().find(|condition| condition.type_ == type_).cloned();
    assert_eq!(of("Running").unwrap().status, "False");
    assert_eq!(of("Complete").unwrap().status, "True");
    assert_eq!(of("Failed"), None);
    task.status = Some(done.clone());
    let again = build(&task, &record(TaskState::Succeeded), None, Timestamp::from_second(999).unwrap());
    assert_eq!(again, done, "an unchanged record causes no write");
}

#[test]
fn unknown_outcome_is_final_and_failed() {
    let task = Task::default();
    let now = Timestamp::from_second(5).unwrap();
    let lost = ended(&task, TaskPhase::OutcomeUnknown, "RecordNotFound", "missing", now);
    assert!(is_final(lost.phase));
    assert_eq!(lost.conditions[0].type_, "Failed");
}

#[test]
fn texts_are_truncated_between_characters() {
    assert_eq!(prefix("aé", 2), "a");
    assert_eq!(camel_case("FAILURE_TIMEOUT"), "FailureTimeout");
    assert_eq!(camel_case("no_free_slot"), "NoFreeSlot");
}
