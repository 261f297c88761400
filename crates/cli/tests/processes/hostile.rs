//! Memory of a control plane under hostile inputs. Prints what each has cost; `docs/limits.md` has the numbers.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use futures::{SinkExt, StreamExt};
use rota_client::Client;
use rota_proto::v1::script_step::Kind as Step;
use rota_proto::v1::{self, TaskState};
use rota_proto::worker::v1::session_request::Kind as Outgoing;
use rota_proto::worker::v1::{FetchPreviousResultRequest, Report};
use rota_testkit::raw::{RawWorker, hello, output, question};
use rota_testkit::tasks;
use rota_testkit::wire::{Field1, Field4, Fields2, begin, call, field};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::fixture::TOKEN;
use crate::{Fixture, Graces};

const SUBSCRIBE: &str =
    r#"{"type":"subscribe","id":"t","channel":"tasks","parent":"namespaces/default","snapshot":false}"#;
const SESSION: &str = "/rota.worker.v1.WorkerService/Session";
const SIGN_IN: &str = "/rota.v1.AdminService/RedeemSignInCode";
const BATCH: &str = "/rota.v1.TaskService/BatchCreateTasks";
const PREVIEW: &str = "/rota.v1.ScheduleService/PreviewSchedule";
const PARTS: &str = "/rota.v1.ArtifactService/FindMissingParts";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// Upper bound on the time until all silent connections are closed: each may be silent for ten seconds (`Limits::first_call`), and the
/// rest is slack for a slow machine.
const MAX_SILENCE: Duration = Duration::from_secs(60);
/// Memory of the elements of one message by estimate (`MAX_DECODED` in `message_limits` of the control plane), in MiB.
const MAX_DECODED_MIB: u64 = 64;
/// Growth of the control plane's memory that no single input exceeds: the largest one is two messages.
const MAX_GROWTH_MIB: u64 = 2 * MAX_DECODED_MIB;

/// Largest resident memory of a process so far, in MiB.
pub(crate) fn peak(pid: i32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib >> 10)
}

/// Resident memory by which a control plane grows with each input.
struct Meter {
    pid: i32,
    last: u64,
    table: String,
}

impl Meter {
    fn note(&mut self, input: &str) -> Result<()> {
        // The kernel adds its counters of each processor up without stopping them: a later sum may be a little smaller.
        let now = peak(self.pid)?.max(self.last);
        let growth = now - self.last;
        self.table += &format!("| {input} | {} MiB | {now} MiB |\n", self.last);
        self.last = now;
        ensure!(growth <= MAX_GROWTH_MIB, "{input} cost {growth} MiB\n{}", self.table);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_under_hostile_inputs() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let client = fixture.client()?;
    tasks::agent(&client, "echo", tasks::script([]), &[]).await?;
    let endpoint = format!("http://{}", fixture.addr());
    let token = std::fs::read_to_string(fixture.worker_token("echo", "hand").await?)?;
    let token = token.trim();
    let pid = fixture.server().pid();
    let mut meter = Meter { pid, last: peak(pid)?, table: String::new() };

    let service = Field1 { value: vec![b'x'; 4 << 20].into() };
    let calls = (0..30).map(|_| call(&endpoint, HEALTH, None, service.clone()));
    ensure!(try_join_all(calls).await?.iter().all(Result::is_err), "a large health request was accepted");
    meter.note("30 health requests of 4 MiB, without a token")?;

    // A sign-in needs no token.
    let code = Field1 { value: vec![b'x'; (4 << 20) - 16].into() };
    let calls = (0..30).map(|_| begin(&endpoint, SIGN_IN, code.clone()));
    let refused = tokio::time::timeout(tasks::WAIT_TIMEOUT, try_join_all(calls)).await;
    meter.note("30 sign-ins of 4 MiB that do not end, without a token")?;
    ensure!(refused.context("a large sign-in waits for its end")??.iter().all(Result::is_err));
    let head = format!(
        "POST /api/v1/system:redeemSignInCode HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        fixture.addr(),
        8 << 20
    );
    let sent = [head.as_bytes(), &vec![b' '; 7 << 20]].concat();
    let calls = (0..30).map(async |_| {
        let mut peer = TcpStream::connect(fixture.addr()).await?;
        // The control plane may close the connection before.
        let _ = peer.write_all(&sent).await;
        let _ = peer.read(&mut [0; 16]).await;
        anyhow::Ok(())
    });
    let refused = tokio::time::timeout(tasks::WAIT_TIMEOUT, try_join_all(calls)).await;
    meter.note("30 sign-ins of 7 MiB over HTTP that do not end, without a token")?;
    refused.context("a large sign-in waits for its end")??;

    // Two bytes each, and some hundred once decoded.
    let events = Field4 { value: [4 << 3 | 2, 0].repeat(4 << 20).into() };
    let calls = (0..8).map(|_| call(&endpoint, SESSION, Some(token), events.clone()));
    ensure!(try_join_all(calls).await?.iter().all(Result::is_err), "a report was taken for a Hello");
    meter.note("8 first messages of 4 million empty events")?;

    elements(&fixture, token, &mut meter).await?;
    values(&fixture, &mut meter).await?;

    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(fixture.addr()).await?);
    }
    // Of one that was closed, reading ends, with an error or without.
    let closed = join_all(silent.iter_mut().map(async |peer| drop(peer.read_to_end(&mut Vec::new()).await)));
    tokio::time::timeout(MAX_SILENCE, closed).await.context("a silent connection stays open")?;
    meter.note("300 silent connections")?;

    let of_worker = fixture.client_with(token, Duration::from_secs(60))?;
    let mut worker = RawWorker::join(&of_worker, hello("echo", "hand", 1)).await?;
    questions(&client, &mut worker).await?;
    meter.note("32 questions of 256 KiB, listed by 20 callers at the same time")?;
    logs(&client, &mut worker).await?;
    meter.note("a log of 24 MiB, followed by 10 callers from its start")?;
    reports(&client, &mut worker).await?;
    meter.note("2 reports of a worker with 87,000 outputs each, in nearly 2 MiB")?;
    results(&client, &of_worker, &mut worker).await?;
    meter.note("20 results of 256 KiB that a task needs, each fetched by 10 callers at the same time")?;
    let read = tokio::time::timeout(tasks::WAIT_TIMEOUT, feeds(&client)).await;
    meter.note("100 feeds that are not read while 24 tasks with prompts of 1,000 KiB are created")?;
    read.context("a feed does not continue")??;
    let mut sockets = late_sockets(&fixture, &client).await?;
    meter.note("50 WebSockets that read nothing of 200 changes of 64 KiB")?;
    try_join_all(sockets.iter_mut().map(next_text)).await.context("a client was sent no change")?;
    println!("| input | peak before | peak after |\n| --- | --- | --- |\n{}", meter.table);
    Ok(())
}

/// Opens WebSockets that follow all tasks, and creates more than the network takes for a client that reads nothing.
async fn late_sockets(fixture: &Fixture, client: &Client) -> Result<Vec<WebSocketStream<TcpStream>>> {
    let open = async |_: usize| {
        let mut socket = open_socket(fixture).await?;
        socket.send(Message::text(SUBSCRIBE)).await?;
        let subscribed = next_text(&mut socket).await?;
        ensure!(subscribed.contains("\"subscribed\""), "{subscribed}");
        // The position from which changes follow.
        let position = next_text(&mut socket).await?;
        ensure!(position.contains("\"position\""), "{position}");
        anyhow::Ok(socket)
    };
    let sockets = try_join_all((0..50).map(open)).await?;
    for _ in 0..200 {
        let task = tasks::scripted("missing", [Step::Output("x".repeat(64 << 10))]);
        tasks::create(client, task).await?;
    }
    Ok(sockets)
}

/// Opens a WebSocket as the admin.
async fn open_socket(fixture: &Fixture) -> Result<WebSocketStream<TcpStream>> {
    let mut request = format!("ws://{}/api/v1/ws", fixture.addr()).into_client_request()?;
    request.headers_mut().insert("authorization", format!("Bearer {TOKEN}").parse()?);
    let stream = TcpStream::connect(fixture.addr()).await?;
    Ok(tokio_tungstenite::client_async(request, stream).await?.0)
}

/// Returns the next message of a WebSocket.
async fn next_text(socket: &mut WebSocketStream<TcpStream>) -> Result<String> {
    loop {
        match socket.next().await.context("the connection has ended")?? {
            Message::Text(text) => return Ok(text.as_str().to_owned()),
            Message::Close(frame) => bail!("the connection was ended: {frame:?}"),
            _ => {}
        }
    }
}

/// Makes calls of as many bytes as are accepted, with two of them for each element.
async fn elements(fixture: &Fixture, token: &str, meter: &mut Meter) -> Result<()> {
    let endpoint = format!("http://{}", fixture.addr());
    let count = (4 << 20) - 16;
    let empty = Fields2 { values: vec![Bytes::new(); count] };
    // `spec.workflow.spec.steps`.
    let steps = field(10, field(3, [5 << 3 | 2, 0].repeat(count)));
    let steps = Fields2 { values: vec![steps.into()] };
    for (input, path, token, message) in [
        ("4 calls that create 4 million tasks, all empty", BATCH, TOKEN, &empty),
        ("4 previews of a schedule of a workflow with 4 million empty steps", PREVIEW, TOKEN, &steps),
        ("4 look-ups of 4 million empty digests, by a worker", PARTS, token, &empty),
    ] {
        for _ in 0..4 {
            let answer = call(&endpoint, path, Some(token), message.clone()).await?;
            let refused = answer.err().with_context(|| format!("{input}: accepted"))?;
            ensure!(refused.code() == tonic::Code::ResourceExhausted, "{input}: {refused}");
        }
        meter.note(input)?;
    }
    Ok(())
}

/// Sends JSON of as many bytes as are accepted, with two of them for each value.
async fn values(fixture: &Fixture, meter: &mut Meter) -> Result<()> {
    let numbers = format!("[{}0]", "0,".repeat((4 << 20) - 64));
    let task = format!(r#"{{"spec":{{"input":{{"list":{numbers}}}}}}}"#);
    let http = reqwest::Client::new();
    for _ in 0..4 {
        let request = http.post(format!("http://{}/api/v1/namespaces/default/tasks", fixture.addr()));
        let request = request.bearer_auth(TOKEN).header("content-type", "application/json");
        let answer = request.body(task.clone()).send().await?;
        ensure!(answer.status().as_u16() == 413, "a body of many values: {answer:?}");
    }
    meter.note("4 bodies of 4 million numbers over HTTP")?;

    let mut socket = open_socket(fixture).await?;
    for _ in 0..4 {
        socket.send(Message::text(numbers.clone())).await?;
        let answer = next_text(&mut socket).await?;
        ensure!(answer.contains("MESSAGE_INVALID"), "a message of many values: {answer}");
    }
    meter.note("4 messages of 4 million numbers over a WebSocket")
}

/// Lets a task ask as much as it may, lists it many times, and cancels it.
async fn questions(client: &Client, worker: &mut RawWorker) -> Result<()> {
    let task = tasks::create(client, tasks::task("echo")).await?;
    let assign = worker.take().await?;
    for number in 0..32 {
        let mut event = question(&format!("q{number}"));
        if let Some(v1::event::Kind::InputRequest(request)) = &mut event.kind {
            request.prompt = "x".repeat(250 << 10);
        }
        worker.report(&assign, number + 1, vec![event]);
    }
    tasks::until(client, &task.name, |status| status.pending_input.len() == 32).await?;
    // The log has what lists leave out.
    let log = tasks::log(client, &task.name).await?;
    let whole = |event: &v1::Event| matches!(&event.kind, Some(v1::event::Kind::InputRequest(one)) if one.prompt.len() == 250 << 10);
    ensure!(log.iter().filter(|event| whole(event)).count() == 32, "a question was cut in the log");
    let parent = rota_proto::names::namespace(tasks::NAMESPACE);
    let list = || client.list_tasks(v1::ListTasksRequest { parent: parent.clone(), ..Default::default() });
    for listed in join_all((0..20).map(|_| list())).await {
        ensure!(listed?.tasks.len() == 1, "the task is not listed");
    }
    tasks::cancel(client, &task.name).await?;
    worker.report_cancelled(&assign);
    tasks::ended(client, &task.name).await?;
    Ok(())
}

/// Lets a task print much, and reads its log many times.
async fn logs(client: &Client, worker: &mut RawWorker) -> Result<()> {
    let task = tasks::create(client, tasks::task("echo")).await?;
    let assign = worker.take().await?;
    let text = "x".repeat(60 << 10);
    for number in 0..400 {
        worker.send(Outgoing::Report(Report {
            task_id: assign.task_id.clone(),
            fence: assign.fence,
            first_attempt_seq: number + 1,
            events: vec![output(&text)],
        }));
    }
    worker.succeed(&assign, 400, "done");
    let task = tasks::ended(client, &task.name).await?;
    ensure!(task.status.unwrap_or_default().state() == TaskState::Succeeded);
    for log in join_all((0..10).map(|_| tasks::log(client, &task.name))).await {
        ensure!(tasks::outputs(&log?).len() == 400, "the log is not whole");
    }
    Ok(())
}

/// Lets a task report as many elements as a message may have, and nearly as many bytes.
async fn reports(client: &Client, worker: &mut RawWorker) -> Result<()> {
    const OUTPUTS: usize = 87_000;
    let task = tasks::create(client, tasks::task("echo")).await?;
    let assign = worker.take().await?;
    let events = vec![output("0123456789abc"); OUTPUTS];
    let last = 2 * i64::try_from(OUTPUTS)?;
    for first in [1, last / 2 + 1] {
        worker.report(&assign, first, events.clone());
    }
    worker.succeed(&assign, last, "done");
    let status = tasks::ended(client, &task.name).await?.status.unwrap_or_default();
    ensure!(status.state() == TaskState::Succeeded, "{status:?}");
    Ok(())
}

/// Opens feeds and reads no more than their beginnings while large tasks are created, then reads one of them on.
async fn feeds(client: &Client) -> Result<()> {
    const TASKS: usize = 24;
    let parent = rota_proto::names::namespace(tasks::NAMESPACE);
    let mut feeds = Vec::new();
    for _ in 0..100 {
        let request = v1::WatchTasksRequest { parent: parent.clone(), ..Default::default() };
        let mut feed = client.tasks().watch_tasks(request).await?.into_inner();
        feed.message().await?.context("a feed has ended")?;
        feeds.push(feed);
    }
    for _ in 0..TASKS {
        let mut task = tasks::task("absent");
        task.spec.get_or_insert_default().prompt = "x".repeat(1000 << 10);
        tasks::create(client, task).await?;
    }
    let mut seen = BTreeSet::new();
    while seen.len() < TASKS {
        let message = feeds[0].message().await?.context("a feed has ended")?;
        seen.extend(message.task.map(|task| task.name));
    }
    Ok(())
}

/// Lets a task need large results of others, and fetches each of them many times.
async fn results(client: &Client, of_worker: &Client, worker: &mut RawWorker) -> Result<()> {
    let mut last = tasks::task("echo");
    for number in 0..20 {
        let mut task = tasks::task("echo");
        task.alias = format!("part-{number}");
        tasks::create(client, task).await?;
        let assign = worker.take().await?;
        worker.succeed(&assign, 0, &"x".repeat(256 << 10));
        ensure!(worker.result_ack().await?, "a result was not accepted");
        let dependency = v1::Dependency { task: format!("part-{number}"), ..Default::default() };
        last.spec.get_or_insert_default().depends_on.push(dependency);
    }
    tasks::create(client, last).await?;
    let assign = worker.take().await?;
    ensure!(assign.previous.iter().all(|previous| previous.omitted), "a large result is in the assignment");
    let fetches = (0..10).flat_map(|_| &assign.previous).map(async |previous| {
        let request = FetchPreviousResultRequest {
            namespace: tasks::NAMESPACE.to_owned(),
            worker: "hand".to_owned(),
            task_id: assign.task_id.clone(),
            fence: assign.fence,
            previous_task_id: previous.task_id.clone(),
        };
        let fetched = of_worker.workers().fetch_previous_result(request).await?.into_inner();
        anyhow::Ok(fetched.result.unwrap_or_default().text.len())
    });
    ensure!(try_join_all(fetches).await?.iter().all(|bytes| *bytes == 256 << 10), "a result is not whole");
    worker.succeed(&assign, 0, "joined");
    ensure!(worker.result_ack().await?, "the session has ended");
    Ok(())
}
