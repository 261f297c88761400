//! Agents that request input from users.

use std::time::Duration;

use anyhow::Result;
use futures::StreamExt;
use rota_proto::v1::{
    self, TaskState, attach_task_request as ask, attach_task_response as reply, script_step::Kind as Step,
};
use rota_proto::worker::v1::session_request::Kind as Outgoing;
use rota_proto::worker::v1::session_response::Kind as Incoming;
use rota_proto::worker::v1::{KeepArtifactsRequest, Release};
use rota_testkit::client::{Client, Error};
use rota_testkit::raw::{self, RawWorker};
use rota_testkit::{Backend, Cluster, Setup, history, tasks};

async fn send_input(client: &Client, name: &str, request: &str, text: &str) -> Result<i64, Error> {
    let input = v1::TaskInput { request_id: request.into(), text: text.into(), ..Default::default() };
    let request = v1::SendTaskInputRequest { name: name.into(), input: Some(input) };
    client.send_task_input(request).await.map(|answer| answer.input_seq)
}

#[tokio::test]
async fn input_request_is_answered() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 1)?;
    let steps = [Step::Ask("which way?".into()), Step::Ask("sure?".into()), Step::Succeed("done".into())];
    let task = tasks::create(client, tasks::scripted("echo", steps)).await?;
    let waits = tasks::until_state(client, &task.name, TaskState::InputRequired).await?.status.unwrap();
    let question = &waits.pending_input[0];
    assert_eq!(question.prompt.as_str(), "which way?");
    assert_eq!(question.kind(), v1::InputKind::Question);
    let refused = send_input(client, &task.name, "no-such-question", "left").await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("INPUT_REQUEST_NOT_FOUND"));
    assert_eq!(send_input(client, &task.name, &question.request_id, "left").await?, 1);
    // Sent again by a client that did not receive the response.
    assert_eq!(send_input(client, &task.name, &question.request_id, "left").await?, 1);
    let refused = send_input(client, &task.name, &question.request_id, "right").await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("INPUT_REQUEST_NOT_FOUND"));
    // Input without a request id answers no request.
    assert_eq!(send_input(client, &task.name, "", "hurry").await?, 2);
    tasks::answer(client, &task.name, "yes").await?;
    tasks::until_state(client, &task.name, TaskState::Succeeded).await?;
    let log = tasks::log(client, &task.name).await?;
    let inputs: Vec<_> = log
        .iter()
        .filter_map(|event| match &event.kind {
            Some(v1::event::Kind::InputReceived(given)) => {
                Some((given.input_seq, given.input.as_ref()?.text.clone()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(inputs, [(1, "left".into()), (2, "hurry".into()), (3, "yes".to_owned())]);
    let steps = tasks::steps(&log);
    let asked = steps.iter().filter(|step| *step == "RUNNING>INPUT_REQUIRED:input_required").count();
    let settled = steps.iter().filter(|step| *step == "INPUT_REQUIRED>RUNNING:input_settled").count();
    assert_eq!(asked, 2, "{steps:?}");
    assert_eq!(settled, 2, "{steps:?}");
    assert_eq!(send_input(client, &task.name, &question.request_id, "left").await?, 1);
    let refused = send_input(client, &task.name, "", "too late").await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("TASK_ENDED"));
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn attached_stream_answers_input_request() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let _worker = cluster.worker("echo", "one", 1)?;
    let steps = [Step::Output("a".into()), Step::Ask("go?".into()), Step::Succeed("done".into())];
    let task = tasks::create(client, tasks::scripted("echo", steps)).await?;
    let (out, queue) = tokio::sync::mpsc::unbounded_channel();
    let send = |kind| {
        let _ = out.send(v1::AttachTaskRequest { kind: Some(kind) });
    };
    send(ask::Kind::Watch(v1::WatchTaskRequest {
        name: task.name.clone(),
        after_log_seq: 0,
        ..Default::default()
    }));
    let input = |request: &str| {
        let input = v1::TaskInput { request_id: request.into(), text: "yes".into(), ..Default::default() };
        ask::Kind::Input(input)
    };
    let queue = tokio_stream::wrappers::UnboundedReceiverStream::new(queue);
    let mut answers = client.tasks().attach_task(queue).await?.into_inner();
    let (mut seen, mut refused, mut asked) = (Vec::new(), 0, false);
    while let Some(answer) = answers.message().await? {
        match answer.kind {
            Some(reply::Kind::Update(update)) => {
                seen.extend(update.events.iter().map(|event| event.log_seq));
                let status = update.task.and_then(|task| task.status).unwrap();
                if let (Some(question), false) = (status.pending_input.first(), asked) {
                    asked = true;
                    send(input("wrong"));
                    send(input(&question.request_id));
                }
            }
            Some(reply::Kind::Rejected(error)) => {
                refused += 1;
                assert_eq!(error.code, i32::from(tonic::Code::FailedPrecondition));
            }
            None => {}
        }
    }
    assert_eq!(refused, 1);
    let last = i64::try_from(seen.len())?;
    assert_eq!(seen, (1..=last).collect::<Vec<_>>());
    let status = tasks::get(client, &task.name).await?.status.unwrap();
    assert_eq!(status.state(), TaskState::Succeeded);
    assert_eq!(status.log_seq, last);
    // A stream with another first message is rejected.
    let first = tokio_stream::iter([v1::AttachTaskRequest { kind: Some(input("x")) }]);
    let status = client.tasks().attach_task(first).await?.into_inner().next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    history::check(client, true).await?.check()
}

#[tokio::test]
async fn input_for_disconnected_worker_arrives_in_order() -> Result<()> {
    let mut setup = Setup::new(Backend::Sqlite);
    setup.timing.reconnect_grace = Duration::from_secs(60);
    let cluster = Cluster::start_with(setup).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(client, raw::hello("echo", "hand", 1)).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    let assign = worker.take().await?;
    worker.report(&assign, 1, vec![raw::question("q")]);
    tasks::until_state(client, &task.name, TaskState::InputRequired).await?;
    send_input(client, &task.name, "", "noted").await?;
    match worker.receive().await? {
        Incoming::ReportAck(_) => assert!(matches!(worker.receive().await?, Incoming::Input(_))),
        Incoming::Input(_) => {}
        other => anyhow::bail!("{other:?}"),
    }
    worker.close().await;
    send_input(client, &task.name, "q", "an answer").await?;
    send_input(client, &task.name, "", "and more").await?;
    let mut hello = raw::hello("echo", "hand", 1);
    hello.running.push(raw::running(&assign, 1, 1));
    let mut worker = RawWorker::join(client, hello).await?;
    send_input(client, &task.name, "", "and last").await?;
    let mut received = Vec::new();
    while received.len() < 3 {
        if let Incoming::Input(input) = worker.receive().await? {
            received.push((input.input_seq, input.input.unwrap().text));
        }
    }
    let wanted =
        [(2, "an answer"), (3, "and more"), (4, "and last")].map(|(seq, text)| (seq, text.to_owned()));
    assert_eq!(received, wanted);
    worker.succeed(&assign, 1, "done");
    assert!(worker.result_ack().await?);
    history::check(client, true).await?.check()
}

/// What an answer allows for longer is what its question offered.
#[tokio::test]
async fn rules_come_from_a_question() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(client, raw::hello("echo", "one", 1)).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    let assign = worker.take().await?;
    let asked = v1::InputRequest {
        request_id: "q1".to_owned(),
        kind: v1::InputKind::Permission.into(),
        rules: vec![v1::PermissionRule { rule: "Bash(ls *)".to_owned(), ..Default::default() }],
        ..Default::default()
    };
    let asked = v1::Event { kind: Some(v1::event::Kind::InputRequest(asked)), ..Default::default() };
    worker.report(&assign, 1, vec![asked]);
    tasks::until_state(client, &task.name, TaskState::InputRequired).await?;
    let allow = |request: &str, text: &str, rule: &str| v1::TaskInput {
        request_id: request.to_owned(),
        text: text.to_owned(),
        decision: v1::Decision::Allow.into(),
        scope: v1::PermissionScope::Agent.into(),
        rules: vec![rule.to_owned()],
        ..Default::default()
    };
    let rules = async || -> Result<Vec<String>> {
        let name = rota_proto::names::agent(tasks::NAMESPACE, "echo");
        let agent = client.get_agent(v1::GetAgentRequest { name }).await?;
        Ok(agent.spec.unwrap_or_default().permission_rules)
    };
    let send = async |input| {
        let request = v1::SendTaskInputRequest { name: task.name.clone(), input: Some(input) };
        client.send_task_input(request).await.map(|answer| answer.input_seq)
    };
    // A message is no answer.
    let mut changed = v1::TaskInput { updated_input_json: "{}".to_owned(), ..allow("", "hi", "") };
    (changed.scope, changed.rules) = (v1::PermissionScope::Once.into(), vec![]);
    for message in [allow("", "hi", "Bash(curl *)"), allow("", "hi", "Bash(ls *)"), changed] {
        let refused = send(message).await.unwrap_err();
        assert_eq!(refused.reason.as_deref(), Some("INVALID_FIELD"), "{refused:?}");
        assert_eq!(refused.fields[0].field, "input.request_id");
    }
    assert!(send(allow("q1", "", "Bash(curl *)")).await.is_err());
    assert!(rules().await?.is_empty());
    // The second one is repeated by a client that did not receive the response.
    for _ in 0..2 {
        assert_eq!(send(allow("q1", "", "Bash(ls *)")).await?, 1);
        assert_eq!(rules().await?, ["Bash(ls *)"]);
    }
    assert!(send(allow("q1", "", "Bash(curl *)")).await.is_err());
    assert_eq!(rules().await?, ["Bash(ls *)"]);
    Ok(())
}

/// Of a task that names no agent, only the question knows which one has asked.
#[tokio::test]
async fn rules_of_a_released_question_are_kept_with_its_agent() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    let mut agent = tasks::agent(client, "echo", tasks::script([]), &["code"]).await?;
    let name = agent.name.clone();
    agent.spec.get_or_insert_default().release_waiting_after = Some(tasks::millis(1));
    client.update_agent(v1::UpdateAgentRequest { agent: Some(agent), ..Default::default() }).await?;
    let mut worker = RawWorker::join(client, raw::hello("echo", "one", 1)).await?;
    let mut task = tasks::task("echo");
    let words = v1::CapabilitySet { capabilities: vec!["code".to_owned()] };
    let kind = Some(v1::target::Kind::Capabilities(words));
    task.spec.get_or_insert_default().target = Some(v1::Target { kind });
    let task = tasks::create(client, task).await?;
    let assign = worker.take().await?;
    let rule = "Bash(ls *)".to_owned();
    let asked = v1::InputRequest {
        request_id: "q1".to_owned(),
        kind: v1::InputKind::Permission.into(),
        rules: vec![v1::PermissionRule { rule: rule.clone(), ..Default::default() }],
        ..Default::default()
    };
    let asked = v1::Event { kind: Some(v1::event::Kind::InputRequest(asked)), ..Default::default() };
    worker.report(&assign, 1, vec![asked]);
    tasks::until_state(client, &task.name, TaskState::InputRequired).await?;
    let (task_id, fence) = (assign.task_id.clone(), assign.fence);
    let request = KeepArtifactsRequest {
        namespace: "default".to_owned(),
        worker: "one".to_owned(),
        task_id: task_id.clone(),
        fence,
        artifacts: Some(v1::ArtifactList { checkpoint: Some(Default::default()), ..Default::default() }),
    };
    client.workers().keep_artifacts(request).await?;
    worker.send(Outgoing::Release(Release { task_id, fence, request_ids: vec!["q1".to_owned()] }));
    tasks::until(client, &task.name, released).await?;
    let input = v1::TaskInput {
        request_id: "q1".to_owned(),
        decision: v1::Decision::Allow.into(),
        scope: v1::PermissionScope::Agent.into(),
        rules: vec![rule.clone()],
        ..Default::default()
    };
    let request = v1::SendTaskInputRequest { name: task.name.clone(), input: Some(input) };
    client.send_task_input(request).await?;
    let agent = client.get_agent(v1::GetAgentRequest { name }).await?;
    assert_eq!(agent.spec.unwrap_or_default().permission_rules, [rule]);
    Ok(())
}

/// The report by which a worker passes on that the agent has withdrawn its question, which no answer of a user precedes.
#[tokio::test]
async fn withdrawn_question_is_closed() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(client, raw::hello("echo", "by-hand", 1)).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    let assign = worker.take().await?;
    worker.report(&assign, 1, vec![raw::question("q1")]);
    tasks::until_state(client, &task.name, TaskState::InputRequired).await?;
    let input = v1::TaskInput { request_id: "q1".to_owned(), ..Default::default() };
    let withdrawn = v1::InputReceived { input_seq: 0, input: Some(input) };
    let kind = Some(v1::event::Kind::InputReceived(withdrawn));
    worker.report(&assign, 2, vec![v1::Event { kind, ..Default::default() }]);
    let status = tasks::until_state(client, &task.name, TaskState::Running).await?.status.unwrap();
    assert_eq!(status.pending_input, []);
    let refused = send_input(client, &task.name, "q1", "left").await.unwrap_err();
    assert_eq!(refused.reason.as_deref(), Some("INPUT_REQUEST_NOT_FOUND"));
    Ok(())
}

/// Returns a task that remembers, asks, and repeats what it remembers.
fn asking(steps: impl IntoIterator<Item = Step>) -> v1::Task {
    let mut task = tasks::scripted("echo", steps);
    let retry = v1::RetryPolicy { max_attempts: 1, ..Default::default() };
    task.spec.get_or_insert_default().retry = Some(retry);
    task
}

fn released(status: &v1::TaskStatus) -> bool {
    status.waiting.iter().any(|wait| wait.reason() == v1::WaitReason::Answer)
}

/// The slot of an attempt that waits for a person is for other tasks, until the answer; also if the control plane is killed meanwhile.
#[tokio::test]
async fn waiting_attempts_release_their_slot() -> Result<()> {
    for backend in [Backend::Memory, Backend::Sqlite] {
        let mut cluster = Cluster::start(backend).await?;
        let client = cluster.client().clone();
        let mut agent = tasks::agent(&client, "echo", tasks::script([]), &[]).await?;
        agent.spec.get_or_insert_default().release_waiting_after = Some(tasks::millis(100));
        client.update_agent(v1::UpdateAgentRequest { agent: Some(agent), ..Default::default() }).await?;
        let _worker = cluster.worker("echo", "one", 1)?;
        let steps = [Step::Remember("one".into()), Step::Ask("which way?".into()), Step::Recall(true)];
        let first = tasks::create(&client, asking(steps)).await?;
        let second = tasks::create(&client, asking([Step::Succeed("done".into())])).await?;
        let waits = tasks::until(&client, &first.name, released).await?.status.unwrap();
        assert_eq!((waits.state(), waits.pending_input.len()), (TaskState::Pending, 1), "{waits:?}");
        tasks::until_state(&client, &second.name, TaskState::Succeeded).await?;
        if backend == Backend::Sqlite {
            cluster.kill().await;
            cluster.restart().await?;
        }
        let filter = Some(v1::TaskFilter { open_questions: true, ..Default::default() });
        let parent = "namespaces/default".to_owned();
        let request = v1::ListTasksRequest { parent, filter, ..Default::default() };
        let open = client.list_tasks(request).await?.tasks;
        assert!(open.iter().map(|task| &task.name).eq([&first.name]), "{open:?}");
        let explained = client.explain_task(v1::ExplainTaskRequest { name: first.name.clone() }).await?;
        assert!(explained.causes.iter().any(|cause| cause.hint.contains("rota answer")), "{explained:?}");
        tasks::answer(&client, &first.name, "left").await?;
        let status = tasks::ended(&client, &first.name).await?.status.unwrap();
        let log = tasks::log(&client, &first.name).await?;
        assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 2), "{log:?}");
        let steps = tasks::steps(&log);
        assert!(steps.iter().any(|step| step == "INPUT_REQUIRED>PENDING:released"), "{steps:?}");
        assert_eq!(steps.iter().filter(|step| step.ends_with(":input_required")).count(), 1, "{steps:?}");
    }
    Ok(())
}

/// A second question changes no state, and is in feeds of states all the same, as is each answer.
#[tokio::test]
async fn feeds_of_states_have_questions() -> Result<()> {
    let cluster = Cluster::start(Backend::Memory).await?;
    let client = cluster.client();
    tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    let mut worker = RawWorker::join(client, raw::hello("echo", "by-hand", 1)).await?;
    let mut feed = client.watch_tasks("namespaces/default", "", true);
    // It has begun with its first message.
    feed.next().await.transpose()?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    let assign = worker.take().await?;
    worker.report(&assign, 1, vec![raw::question("q1"), raw::question("q2")]);
    tasks::until(client, &task.name, |status| status.pending_input.len() == 2).await?;
    send_input(client, &task.name, "q1", "left").await?;
    let (mut asked, mut answered) = (Vec::new(), Vec::new());
    while answered.is_empty() {
        let message = tokio::time::timeout(Duration::from_secs(60), feed.next()).await?;
        for event in message.transpose()?.into_iter().flat_map(|message| message.events) {
            match event.kind {
                Some(v1::event::Kind::InputRequest(request)) => asked.push(request.request_id),
                Some(v1::event::Kind::InputReceived(received)) => {
                    answered.extend(received.input.map(|input| input.request_id));
                }
                _ => {}
            }
        }
    }
    assert_eq!((asked, answered), (vec!["q1".to_owned(), "q2".to_owned()], vec!["q1".to_owned()]));
    Ok(())
}

/// A runtime without a checkpoint keeps its slot, and so does an agent that wants it.
#[tokio::test]
async fn attempts_without_checkpoint_keep_their_slot() -> Result<()> {
    let cluster = Cluster::start(Backend::Sqlite).await?;
    let client = cluster.client();
    let mut agent = tasks::agent(client, "echo", tasks::script([]), &[]).await?;
    agent.spec.get_or_insert_default().release_waiting_after = Some(tasks::millis(1));
    client.update_agent(v1::UpdateAgentRequest { agent: Some(agent), ..Default::default() }).await?;
    let mut worker = RawWorker::join(client, raw::hello("echo", "by-hand", 1)).await?;
    let task = tasks::create(client, tasks::task("echo")).await?;
    let assign = worker.take().await?;
    assert!(assign.release_after.is_some());
    worker.report(&assign, 1, vec![raw::question("q1")]);
    tasks::until_state(client, &task.name, TaskState::InputRequired).await?;
    // Nothing is stored: the offer is not taken.
    let (task_id, fence) = (assign.task_id.clone(), assign.fence);
    let offer = Release { task_id, fence, request_ids: vec!["q1".to_owned()] };
    worker.send(Outgoing::Release(offer));
    tasks::answer(client, &task.name, "left").await?;
    worker.succeed(&assign, 1, "done");
    let status = tasks::ended(client, &task.name).await?.status.unwrap();
    assert_eq!((status.state(), status.attempt), (TaskState::Succeeded, 1));
    Ok(())
}
