//! Keys are planted wherever a task can tell something, and are found nowhere but where their user has put them.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use rota_proto::v1::{self, TaskState, script_step::Kind as Step};
use rota_testkit::tasks;

use crate::process::Process;
use crate::{Graces, Stage, work};

/// Made anew for each run: no key stands in this file.
struct Keys {
    /// What a task declares secret; it looks like nothing in particular.
    declared: String,
    /// What looks like keys, and is not declared.
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

    /// Those of which a text has the part that only they have: their longest word.
    fn told_in(&self, text: &str) -> Vec<&str> {
        let longest = |key: &str| {
            let words = key.split(|one: char| !one.is_ascii_alphanumeric());
            words.max_by_key(|word| word.len()).unwrap_or_default().to_owned()
        };
        let keys = self.shaped.iter().chain([&self.declared]).map(String::as_str);
        keys.filter(|key| text.contains(&longest(key))).collect()
    }
}

/// The CLI, installed where it is not there yet. Without it the test fails.
fn cli() -> Result<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/install-claude");
    let output = std::process::Command::new(script).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Prints them whole and in pieces, on both streams, tells them in every other way, and fails with them.
const TELLS: &str = r#"
printf 'plain: %s\nsecret: %s\n' "$SHAPED" "$DECLARED"
printf 'to stderr: %s %s\n' "$SHAPED" "$DECLARED" >&2
tell() {
    rest=${1#?????????}
    printf 'a piece: %s' "${1%"$rest"}"
    sleep 0.1
    printf '%s\n' "$rest"
}
tell "$K0"; tell "$K1"; tell "$K2"; tell "$K3"; tell "$K4"; tell "$K5"; tell "$DECLARED"
printf '{"progress":0.5,"step":"%s"}\n' "$ONE" >"$ROTA_EVENTS"
printf '{"message":"%s"}\n' "$ONE" >"$ROTA_EVENTS"
printf '{"success":%s,"summary":"%s","data":{"key":"%s"}}' "$WELL" "$ONE" "$ONE" >"$ROTA_OUTPUT/result.json"
"#;

#[tokio::test]
async fn planted_keys_are_told_nowhere() -> Result<()> {
    let keys = Keys::new();
    let model = rota_fake_model::Options::default().start().await?;
    let program = tokio::task::spawn_blocking(cli).await??;
    let mut stage = Stage::with(Graces::LONG, &["--log", "debug", "--http-listen", "127.0.0.1:0"]).await?;
    let client = stage.client()?;
    work::agent(&client).await?;
    let mut command = stage.command(&["worker", "--agent", work::AGENT, "--worker", "one", "--log", "debug"]);
    command.args(["--slots", "4"]).arg("--state-dir").arg(stage.state_dir());
    let worker = Process::start("one", command);
    tasks::connected(&client, "one").await?;

    let shell = |well: &str| {
        let mut task =
            work::shell(TELLS, &[("SHAPED", &keys.all()), ("ONE", &keys.shaped[0]), ("WELL", well)]);
        let environment = &mut task.spec.get_or_insert_default().environment;
        environment.extend(keys.shaped.iter().enumerate().map(|(n, key)| (format!("K{n}"), key.clone())));
        task
    };
    let scripted = |end: Step| {
        let mut task = tasks::task(work::AGENT);
        let steps = [Step::Say(keys.all()), Step::Output(keys.all()), end];
        task.spec.get_or_insert_default().runtime = Some(tasks::script(steps));
        task
    };
    let failure = v1::ScriptFailure { message: keys.all(), ..Default::default() };
    let claude = {
        let mut task = tasks::task(work::AGENT);
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
    let mut told = String::new();
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
        // It was there, and taken out: what follows can fail.
        assert!(text.contains("[redacted]"), "{text}");
        assert_eq!(keys.told_in(&text), [""; 0], "{text}");
        // What people read goes by the same ways.
        let id = name.rsplit('/').next().unwrap();
        for command in ["logs", "events", "result"] {
            let answer = stage.rota(&[command, id]).await;
            told += &answer.out;
            told += &answer.err;
        }
    }

    // A control plane that is told one says it in its log, but for this.
    let filter = format!("debug,{}=info", keys.shaped[0]);
    stage.rota(&["admin", "log-filter", &filter]).await.done();
    stage.server_mut().says("[redacted]").await;

    let http = stage.server_mut().says("probes at http://").await;
    let http = http.rsplit(' ').next().context("no address")?;
    for page in ["metrics", "readyz"] {
        told += &reqwest::get(format!("{http}/{page}")).await?.text().await?;
    }
    told += &format!("{:?}", client.get_system_status(v1::GetSystemStatusRequest {}).await?);
    told += &worker.said();
    told += &stage.server().said();
    assert_eq!(keys.told_in(&told), [""; 0]);
    Ok(())
}
