//! Notifications to real receivers over loopback: signed, in order, and never lost, whatever the receivers and the control plane
//! do.

mod workflows;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::FutureExt;
use hmac::{Hmac, Mac};
use nix::sys::signal::Signal;
use rota_proto::v1::{self, script_step::Kind as Step};
use rota_telemetry::{OnExit, spawn};
use rota_testkit::postgres::PostgresServer;
use rota_testkit::tasks;
use serde_json::Value;
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::Fixture;
use crate::replicas::Replicas;

const KEY: &[u8] = b"a key of more than 24 bytes for tests";
const AGENT: &str = "coder";

/// What a receiver does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behavior {
    Answer(u16),
    /// Refuses the first delivery of each message.
    RefuseOnce,
    /// Fails with messages of tasks whose alias begins with this, and accepts others.
    FailWith(&'static str),
    Hang,
}

#[derive(Debug, Clone)]
struct Received {
    headers: BTreeMap<String, String>,
    body: String,
    status: u16,
}

impl Received {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    fn is_signed(&self) -> bool {
        let mut mac = Hmac::<Sha256>::new_from_slice(KEY).unwrap();
        mac.update(format!("{}.{}.{}", self.id(), self.headers["webhook-timestamp"], self.body).as_bytes());
        let expected = format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()));
        self.headers["webhook-signature"] == expected
    }
}

/// A receiver on a port of its own.
struct Hook {
    url: String,
    behavior: watch::Sender<Behavior>,
    received: watch::Receiver<Vec<Received>>,
}

impl Hook {
    async fn start(behavior: Behavior) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/hook", listener.local_addr()?);
        let behavior = watch::Sender::new(behavior);
        let (requests, received) = watch::channel(Vec::new());
        let (requests, how) = (Arc::new(requests), behavior.subscribe());
        spawn("hook", OnExit::Done, async move {
            while let Ok((stream, _)) = listener.accept().await {
                let served = serve(stream, how.clone(), Arc::clone(&requests));
                spawn("hook-stream", OnExit::Done, served.map(|_| ()));
            }
        });
        Ok(Self { url, behavior, received })
    }

    /// Waits for a request that fits.
    async fn until(&self, fits: impl Fn(&Received) -> bool) -> Result<Received> {
        let mut received = self.received.clone();
        let found = received.wait_for(|all| all.iter().any(&fits));
        let found = tokio::time::timeout(std::time::Duration::from_secs(180), found).await;
        let all = found.context("no such request")??;
        all.iter().find(|one| fits(one)).cloned().context("no longer there")
    }

    fn accepted(&self) -> Vec<Value> {
        self.received.borrow().iter().filter(|one| one.status == 200).map(Received::json).collect()
    }
}

async fn serve(
    mut stream: TcpStream,
    behavior: watch::Receiver<Behavior>,
    requests: Arc<watch::Sender<Vec<Received>>>,
) -> Option<()> {
    let mut read = Vec::new();
    loop {
        let (headers, size, end) = loop {
            let mut chunk = [0; 4096];
            if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&read[..at]).into_owned();
                let header = |line: &str| {
                    line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                };
                let headers: BTreeMap<_, _> = head.lines().filter_map(header).collect();
                break (headers.clone(), headers["content-length"].parse::<usize>().ok()?, at + 4);
            }
            match stream.read(&mut chunk).await.ok()? {
                0 => return None,
                count => read.extend_from_slice(&chunk[..count]),
            }
        };
        while read.len() < end + size {
            let mut chunk = [0; 4096];
            match stream.read(&mut chunk).await.ok()? {
                0 => return None,
                count => read.extend_from_slice(&chunk[..count]),
            }
        }
        let body = String::from_utf8_lossy(&read[end..end + size]).into_owned();
        read.drain(..end + size);
        let behavior = *behavior.borrow();
        let again = requests.borrow().iter().any(|known: &Received| known.body == body);
        let status = match behavior {
            Behavior::Answer(status) => status,
            Behavior::RefuseOnce if again => 200,
            Behavior::RefuseOnce => 503,
            Behavior::FailWith(alias) if body.contains(&format!("\"alias\":\"{alias}")) => 500,
            Behavior::FailWith(_) => 200,
            Behavior::Hang => 0,
        };
        requests.send_modify(|all| all.push(Received { headers, body, status }));
        if status == 0 {
            return std::future::pending().await;
        }
        // A long answer, of which little is read.
        let text = "no ".repeat(10_000);
        let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{text}", text.len());
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}

fn task(alias: &str, steps: impl IntoIterator<Item = Step>) -> v1::Task {
    let mut task = tasks::scripted(AGENT, steps);
    task.alias = alias.to_owned();
    let spec = task.spec.get_or_insert_default();
    spec.limits = Some(v1::Limits { budget_micro_usd: 100, ..Default::default() });
    spec.retry = Some(v1::RetryPolicy { max_attempts: 1, ..Default::default() });
    task
}

async fn start(receivers: &[(&str, &str, &Hook, &str)]) -> Result<Fixture> {
    let mut fixture = with_receivers(receivers)?;
    fixture.start_server().await?;
    Ok(fixture)
}

fn with_receivers(receivers: &[(&str, &str, &Hook, &str)]) -> Result<Fixture> {
    let mut fixture = Fixture::bare();
    let secret = format!("whsec_{}\n", BASE64_STANDARD.encode(KEY));
    std::fs::write(fixture.dir().join("webhook.key"), secret)?;
    let mut text = String::new();
    for (name, format, hook, more) in receivers {
        std::fs::write(fixture.dir().join(format!("{name}.url")), &hook.url)?;
        let secret = if *format == "webhook" { "secret_file = \"webhook.key\"\n" } else { "" };
        text += &format!(
            "[[receiver]]\nname = \"{name}\"\nformat = \"{format}\"\nurl_file = \"{name}.url\"\n{secret}{more}\n"
        );
    }
    let file = fixture.dir().join("notifications.toml");
    std::fs::write(&file, text)?;
    let file = file.to_string_lossy().into_owned();
    fixture.server_environment.push(("ROTA_SERVER_NOTIFICATIONS", file));
    Ok(fixture)
}

fn of(kind: &str) -> impl Fn(&Received) -> bool {
    let kind = format!("\"type\":\"{kind}\"");
    move |one| one.body.contains(&kind)
}

/// Each occasion reaches each receiver that wants it, whatever others do.
#[tokio::test]
async fn receivers_are_notified_of_what_they_ask_for() -> Result<()> {
    let hanging = Hook::start(Behavior::Hang).await?;
    let refusing = Hook::start(Behavior::Answer(422)).await?;
    let oncall = Hook::start(Behavior::RefuseOnce).await?;
    let chat = Hook::start(Behavior::Answer(200)).await?;
    let link = "occasions = [\"question\"]\nlink = \"https://console.example/{namespace}/{task}\"";
    let fixture = start(&[
        ("hanging", "webhook", &hanging, ""),
        ("refusing", "webhook", &refusing, ""),
        ("oncall", "webhook", &oncall, ""),
        ("chat", "slack", &chat, link),
        ("others", "slack", &chat, "namespaces = [\"elsewhere\"]"),
    ])
    .await?;
    let client = fixture.client()?;
    tasks::agent(&client, AGENT, tasks::script([]), &[]).await?;
    let _worker = fixture.worker(AGENT, "w", 1).await?;
    let used = |cost_micro_usd| Step::Usage(v1::ScriptUsage { cost_micro_usd, ..Default::default() });
    let failure = v1::ScriptFailure { message: "no luck".to_owned(), ..Default::default() };
    let steps = [used(85), Step::Ask("blue <!channel> or `green`?".to_owned()), Step::Fail(failure)];
    let name = tasks::create(&client, task("build", steps)).await?.name;

    let budget = oncall.until(of("task.budget")).await?;
    assert!(budget.is_signed(), "{budget:?}");
    let asked = oncall.until(|one| of("task.question")(one) && one.status == 200).await?;
    let data = asked.json()["data"].clone();
    assert!(asked.is_signed() && data["message"] == "blue <!channel> or `green`?", "{asked:?}");
    let text = chat.until(|_| true).await?.json()["text"].as_str().unwrap_or_default().to_owned();
    assert!(text.contains("`build`") && text.contains("&lt;!channel&gt; or 'green'?"), "{text}");
    let id = data["task"].as_str().context("the id")?;
    assert!(text.contains(&format!("<https://console.example/default/{id}|open>")), "{text}");
    // The command of the message answers.
    let command = data["command"].as_str().context("a command")?.replace("TEXT", "green");
    let args: Vec<_> = command.split(' ').skip(1).collect();
    fixture.rota(&args).await.success();
    tasks::ended(&client, &name).await?;
    let failed = oncall.until(|one| of("task.failed")(one) && one.status == 200).await?.json();
    assert!(failed["data"]["message"] == "no luck" && failed["data"]["failure_class"] == "agent", "{failed}");
    // In the order of the log, each accepted once by a receiver that was asked again.
    let kinds: Vec<_> = oncall.accepted().iter().map(|one| one["type"].clone()).collect();
    assert_eq!(kinds, ["task.budget", "task.question", "task.failed"]);
    assert_eq!(chat.received.borrow().len(), 1, "it asked for questions of its namespace");
    // One refusal too many gives a notification up, and those after it follow.
    refusing.until(of("task.question")).await?;
    let ids: Vec<_> = refusing.received.borrow().iter().map(|one| one.id().to_owned()).collect();
    assert_eq!(ids.iter().filter(|id| *id == budget.id()).count(), 5, "{ids:?}");
    assert!(hanging.received.borrow().len() <= 3);
    Ok(())
}

/// A person learns of a task that keeps failing before its attempts are spent, with what is needed to judge it.
#[tokio::test]
async fn repeated_failures_ask_for_attention() -> Result<()> {
    let hook = Hook::start(Behavior::Answer(200)).await?;
    let wanted = "occasions = [\"attention\", \"failed\"]";
    let fixture = start(&[("oncall", "webhook", &hook, wanted)]).await?;
    let client = fixture.client()?;
    tasks::agent(&client, AGENT, tasks::script([]), &[]).await?;
    let _worker = fixture.worker(AGENT, "w", 1).await?;
    let used = Step::Usage(v1::ScriptUsage { cost_micro_usd: 10, ..Default::default() });
    let failure = v1::ScriptFailure { message: "x".repeat(5000), ..Default::default() };
    let mut failing = task("build", [used, Step::Fail(failure)]);
    let backoff = Some(tasks::millis(1));
    failing.spec.get_or_insert_default().retry =
        Some(v1::RetryPolicy { max_attempts: 5, initial_backoff: backoff, ..Default::default() });
    let name = tasks::create(&client, failing).await?.name;
    tasks::ended(&client, &name).await?;
    hook.until(of("task.failed")).await?;
    let [attention, failed] = &hook.accepted()[..] else { anyhow::bail!("{:?}", hook.accepted()) };
    assert_eq!((&attention["type"], &failed["type"]), (&"task.attention".into(), &"task.failed".into()));
    let (data, snapshot) = (&attention["data"], &attention["data"]["snapshot"]);
    assert!(
        data["failure_class"] == "agent"
            && data["command"].as_str().is_some_and(|it| it.contains("describe")),
        "{data}"
    );
    assert!(snapshot["severity"] == "medium" && snapshot["last_worker"] == "w", "{snapshot}");
    assert!(snapshot["failed_attempts"].as_u64().is_some_and(|count| count >= 3), "{snapshot}");
    assert_eq!(failed["data"]["snapshot"]["failed_attempts"], 5, "{failed}");
    assert_eq!(failed["data"]["snapshot"]["cost_usd"], "$0.00005", "{failed}");
    for received in hook.received.borrow().iter() {
        assert!(received.body.len() < 8 << 10, "{} bytes", received.body.len());
    }
    Ok(())
}

/// A control plane that is killed between commit and delivery delivers after its restart, with the same id.
#[tokio::test]
async fn killed_control_plane_loses_no_notification() -> Result<()> {
    let hook = Hook::start(Behavior::Hang).await?;
    let mut fixture = start(&[("oncall", "webhook", &hook, "occasions = [\"failed\"]")]).await?;
    let client = fixture.client()?;
    tasks::agent(&client, AGENT, tasks::script([]), &[]).await?;
    let _worker = fixture.worker(AGENT, "w", 1).await?;
    for alias in ["one", "two"] {
        let name =
            tasks::create(&client, task(alias, [Step::Fail(v1::ScriptFailure::default())])).await?.name;
        tasks::ended(&client, &name).await?;
    }
    let is = |alias: &'static str| move |one: &Received| one.body.contains(&format!("\"alias\":\"{alias}\""));
    let first = hook.until(is("one")).await?;
    fixture.kill_server().await;
    hook.behavior.send_replace(Behavior::Answer(200));
    fixture.start_server().await?;
    for alias in ["one", "two"] {
        let one = hook.until(|one| is(alias)(one) && one.status == 200).await?;
        assert!(one.is_signed() && (alias != "one" || one.id() == first.id()), "{one:?}");
    }
    // What was delivered is not sent again by the next start.
    let name = tasks::create(&client, task("three", [Step::Fail(v1::ScriptFailure::default())])).await?.name;
    tasks::ended(&client, &name).await?;
    hook.until(is("three")).await?;
    fixture.stop_server().await;
    let before = hook.accepted().len();
    fixture.start_server().await?;
    let name = tasks::create(&client, task("four", [Step::Fail(v1::ScriptFailure::default())])).await?.name;
    tasks::ended(&client, &name).await?;
    hook.until(is("four")).await?;
    let after = hook.accepted();
    assert!(after.len() <= before + 2, "at most the last one is repeated: {after:?}");
    Ok(())
}

/// A replica that owns the database once more repeats nothing that another one has delivered meanwhile.
#[tokio::test]
async fn taken_over_positions_repeat_nothing() -> Result<()> {
    let hook = Hook::start(Behavior::Answer(200)).await?;
    let fixture = with_receivers(&[("oncall", "webhook", &hook, "occasions = [\"failed\"]")])?;
    let mut replicas = Replicas::start_in(fixture, PostgresServer::shared().database()?, 2).await?;
    let client = replicas.fixture.client()?;
    tasks::agent(&client, AGENT, tasks::script([]), &[]).await?;
    let _worker = replicas.fixture.worker(AGENT, "w", 1).await?;
    for (owner, aliases) in [(0, ["one", "two"]), (1, ["three", "four"]), (0, ["five", "six"])] {
        replicas.owner_of(&[owner]).await?;
        let other = 1 - owner;
        if replicas.running[other].is_none() {
            replicas.start_one(other, "standing by").await;
        }
        for alias in aliases {
            let step = Step::Fail(v1::ScriptFailure::default());
            let name = tasks::create(&client, task(alias, [step])).await?.name;
            tasks::ended(&client, &name).await?;
            hook.until(|one| one.body.contains(&format!("\"alias\":\"{alias}\""))).await?;
        }
        let replica = replicas.running[owner].take().unwrap();
        replica.signal(Signal::SIGTERM);
        replica.ended().await;
    }
    let accepted = hook.accepted();
    // The last one before a takeover may come twice.
    for alias in ["one", "three", "five"] {
        let count = accepted.iter().filter(|one| one["data"]["alias"] == alias).count();
        assert_eq!(count, 1, "{alias} {accepted:?}");
    }
    Ok(())
}

/// Messages with which a receiver fails delay those of no other task.
#[tokio::test]
async fn failing_messages_delay_no_others() -> Result<()> {
    let hook = Hook::start(Behavior::FailWith("poison")).await?;
    let fixture = start(&[("oncall", "webhook", &hook, "occasions = [\"failed\"]")]).await?;
    let client = fixture.client()?;
    tasks::agent(&client, AGENT, tasks::script([]), &[]).await?;
    let _worker = fixture.worker(AGENT, "w", 8).await?;
    // More than are sent at a time.
    for number in 0..41 {
        let alias = if number == 40 { "sound".to_owned() } else { format!("poison-{number}") };
        let name =
            tasks::create(&client, task(&alias, [Step::Fail(v1::ScriptFailure::default())])).await?.name;
        tasks::ended(&client, &name).await?;
    }
    hook.until(|one| one.body.contains("\"alias\":\"sound\"") && one.status == 200).await?;
    Ok(())
}
