//! Redaction: keys planted in everything that a task can emit are found only where their user put them.

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use rota_proto::v1::{self, TaskState, script_step::Kind as Step};
use rota_testkit::collector::Collector;
use rota_testkit::tasks;

use crate::{Fixture, claude, workload};

/// Keys, generated for each run so that this file has none.
struct Keys {
    /// Declared secret, without a recognizable format.
    declared: String,
    /// Undeclared keys with recognizable formats.
    shaped: Vec<String>,
}

impl Keys {
    fn new() -> Self {
        let noise = || uuid::Uuid::new_v4().simple().to_string();
        let loud = || noise().to_uppercase();
        let dashes = "-".repeat(5);
        Self {
            declared: format!("correct horse \"{}\" battery", noise()),
            shaped: vec![
                format!("sk-{}-api03-{}", "ant", noise()),
                format!("{}_{}", "ghp", noise()),
                format!("{}{}", "AKIA", &loud()[..16]),
                format!("{}b-{}", "xox", noise()),
                format!("{0}{1}.{0}{1}.{1}", "eyJ", noise()),
                format!("{dashes}BEGIN PRIVATE KEY{dashes}\n{}\n{dashes}END PRIVATE KEY{dashes}", loud()),
            ],
        }
    }

    fn all(&self) -> String {
        self.shaped.join(" ")
    }

    /// Returns the keys of which a text contains the longest word.
    fn leaked_in(&self, text: &str) -> Vec<&str> {
        let longest = |key: &str| {
            let words = key.split(|one: char| !one.is_ascii_alphanumeric());
            words.max_by_key(|word| word.len()).unwrap_or_default().to_owned()
        };
        let keys = self.shaped.iter().chain([&self.declared]).map(String::as_str);
        keys.filter(|key| text.contains(&longest(key))).collect()
    }
}

/// Emits the keys whole and in pieces on both streams and in every other way, and fails with them.
const EMIT_KEYS: &str = r#"
printf 'plain: %s\nsecret: %s\n' "$SHAPED" "$DECLARED"
printf 'to stderr: %s %s\n' "$SHAPED" "$DECLARED" >&2
emit() {
    rest=${1#?????????}
    printf 'a piece: %s' "${1%"$rest"}"
    sleep 0.1
    printf '%s\n' "$rest"
}
emit "$K0"; emit "$K1"; emit "$K2"; emit "$K3"; emit "$K4"; emit "$K5"; emit "$DECLARED"
printf '{"progress":0.5,"step":"%s"}\n' "$ONE" >"$ROTA_EVENTS"
printf '{"toolCall":{"callId":"1","tool":"%s","inputJson":"%s"}}\n' "$ONE" "$ONE" >"$ROTA_EVENTS"
printf '{"toolResult":{"callId":"1","output":"%s","isError":true}}\n' "$ONE" >"$ROTA_EVENTS"
printf '{"message":"%s"}\n' "$ONE" >"$ROTA_EVENTS"
printf '{"success":%s,"summary":"%s","data":{"key":"%s"}}' "$WELL" "$ONE" "$ONE" >"$ROTA_OUTPUT/result.json"
"#;

#[tokio::test]
async fn planted_keys_are_redacted_everywhere() -> Result<()> {
    let keys = Keys::new();
    let model = rota_fake_model::Options::default().start().await?;
    let program = tokio::task::spawn_blocking(claude::installed).await??;
    let collector = Collector::start()?;
    let mut fixture = Fixture::bare();
    fixture.environment = vec![
        ("ROTA_LOG", "debug".to_owned()),
        ("ROTA_SERVER_HTTP_LISTEN", "127.0.0.1:0".to_owned()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".to_owned()),
    ];
    fixture.start_server().await?;
    let client = fixture.client()?;
    workload::agent(&client).await?;
    let worker = fixture.worker(workload::AGENT, "one", 4).await?;

    let shell = |well: &str| {
        let mut task =
            workload::shell(EMIT_KEYS, &[("SHAPED", &keys.all()), ("ONE", &keys.shaped[0]), ("WELL", well)]);
        let environment = &mut task.spec.get_or_insert_default().environment;
        environment.extend(keys.shaped.iter().enumerate().map(|(n, key)| (format!("K{n}"), key.clone())));
        task
    };
    let scripted = |end: Step| {
        let mut task = tasks::task(workload::AGENT);
        let steps = [Step::Message(keys.all()), Step::Output(keys.all()), end];
        task.spec.get_or_insert_default().runtime = Some(tasks::script(steps));
        task
    };
    let failure = v1::ScriptFailure { message: keys.all(), ..Default::default() };
    let claude = {
        let mut task = tasks::task(workload::AGENT);
        let spec = task.spec.get_or_insert_default();
        let kind = v1::runtime::Kind::Claude(v1::ClaudeRuntime {
            program,
            allowed_tools: vec!["Bash".to_owned()],
            ..Default::default()
        });
        spec.runtime = Some(v1::Runtime { kind: Some(kind) });
        let print = "printf '%s and %s' \"$SHAPED\" \"$DECLARED\"";
        let script = serde_json::json!([
            {"text": format!("I found {}", keys.all()), "tools": [{"name": "Bash", "input": {"command": print}}]},
            {"text": format!("It is {} and {}", keys.all(), keys.declared)},
        ]);
        spec.prompt = format!("Please do: MOCK{script}");
        spec.environment =
            [("ANTHROPIC_BASE_URL".to_owned(), model.base_url()), ("SHAPED".to_owned(), keys.all())].into();
        spec.secrets.insert("ANTHROPIC_API_KEY".to_owned(), keys.shaped[0].clone());
        task
    };
    let (mut output, mut traces) = (String::new(), Vec::new());
    for (task, end) in [
        (shell("true"), TaskState::Succeeded),
        (shell("false"), TaskState::Failed),
        (scripted(Step::Succeed(keys.all())), TaskState::Succeeded),
        (scripted(Step::Fail(failure)), TaskState::Failed),
        (claude, TaskState::Succeeded),
    ] {
        let mut task = task;
        let spec = task.spec.get_or_insert_default();
        spec.secrets.insert("DECLARED".to_owned(), keys.declared.clone());
        spec.retry = Some(v1::RetryPolicy { max_attempts: 1, ..Default::default() });
        let name = tasks::create(&client, task).await?.name;
        let status = tasks::ended(&client, &name).await?.status.context("no status")?;
        let log = tasks::log(&client, &name).await?;
        let text = format!("{status:?}\n{log:?}\n{}", tasks::outputs(&log).concat());
        assert_eq!(status.state(), end, "{text}");
        // Something was redacted, so the following checks are meaningful.
        assert!(text.contains("[redacted]"), "{text}");
        assert_eq!(keys.leaked_in(&text), [""; 0], "{text}");
        traces.push(status.trace_id);
        // Output for humans is redacted in the same way.
        let id = name.rsplit('/').next().unwrap();
        for command in ["logs", "events", "result"] {
            let response = fixture.rota(&[command, id]).await;
            output += &response.out;
            output += &response.err;
        }
    }

    // Without redaction the control plane would log the key that it receives.
    let filter = format!("debug,{}=info", keys.shaped[0]);
    fixture.rota(&["admin", "log-filter", &filter]).await.success();
    fixture.server_mut().prints("[redacted]").await;

    let http = fixture.server_mut().prints("probes and metrics on http://").await;
    let http = http.rsplit(' ').next().context("no address")?;
    for page in ["metrics", "readyz"] {
        output += &reqwest::get(format!("{http}/{page}")).await?.text().await?;
    }
    output += &format!("{:?}", client.get_system_status(v1::GetSystemStatusRequest {}).await?);
    output += &worker.output();
    output += &fixture.server().output();
    // On exit a process sends its remaining spans.
    worker.signal(Signal::SIGTERM);
    assert!(worker.ended().await.status.success());
    fixture.stop_server().await;
    let mut spans = String::new();
    for trace in traces {
        // Spans of the call, the task, its queue and its attempt.
        spans += &format!("{:?}", collector.trace(&trace, 4).await?);
    }
    assert!(spans.contains("[redacted]"), "{spans}");
    output += &spans;
    assert_eq!(keys.leaked_in(&output), [""; 0]);
    Ok(())
}
