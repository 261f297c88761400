//! What goes wrong is said in `error:`, `cause:` and `hint:` lines on standard error, and by the exit code.

use anyhow::Result;
use rota_testkit::history;

use crate::answers::Answer;
use crate::{Graces, Stage};

#[tokio::test]
async fn what_is_not_there() -> Result<()> {
    let stage = Stage::start(Graces::LONG).await?;
    for args in [
        &["get", "task", "nothing"][..],
        &["describe", "nothing"],
        &["describe", "agent", "nobody"],
        &["describe", "worker", "nobody"],
        &["get", "worker", "nobody"],
        &["logs", "nothing"],
        &["logs", "-f", "nothing"],
        &["watch", "nothing"],
        &["wait", "nothing"],
        &["cancel", "nothing"],
        &["retry", "nothing"],
        &["update", "nothing", "--suspend"],
        &["explain", "nothing"],
        &["attach", "nothing"],
        &["events", "nothing"],
        &["drain", "nobody"],
    ] {
        let answer = stage.rota(args).await;
        answer.failed(4, &["error: "]);
        assert!(answer.out.is_empty() && !answer.err.contains('\u{1b}'), "{answer:?}");
    }
    history::check(&stage.client()?, true).await?.check()
}

#[tokio::test]
async fn what_cannot_be_understood() -> Result<()> {
    let stage = Stage::bare();
    for (args, word) in [
        (&["get"][..], "required"),
        (&["get", "things"], "things"),
        (&["nonsense"], "nonsense"),
        (&["run"], "nothing to do"),
        (&["run", "--agent", "a", "--needs", "b", "x"], "cannot be used with"),
        (&["run", "--timeout", "soon", "x"], "soon"),
        (&["run", "--timeout=-5s", "x"], "-5s"),
        (&["run", "--timeout", "-5s", "x"], "must be positive, for example 30s"),
        (&["wait", "a", "--timeout", "-5s"], "must be positive"),
        (&["server", "--retention", "-1h"], "must be positive"),
        (&["run", "--budget-usd", "-1", "x"], "it is negative"),
        (&["run", "--priority", "eleven", "x"], "eleven"),
        (&["run", "--budget-usd", "much", "x"], "much"),
        (&["run", "--agent", "NOT A NAME", "x"], "agent"),
        (&["run", "--secret-env", "ROTA_NOT_SET", "x"], "ROTA_NOT_SET is not set"),
        (&["get", "tasks", "--label", "nothing"], "KEY=VALUE"),
        (&["wait", "a", "--timeout", "long"], "long"),
        (&["server", "--listen", "0.0.0.0:0", "--data-dir", "data"], "there is no token"),
        (&["dev", "--listen", "0.0.0.0:0", "--data-dir", "data"], "can be reached from other machines"),
        (
            &["server", "--oidc-operator", "x", "--data-dir", "data"],
            "oidc_operator means nothing without oidc_issuer",
        ),
        (
            &["server", "--oidc-issuer", "http://issuer.example", "--data-dir", "data"],
            "must begin with https://",
        ),
        (&["server", "--oidc-issuer", "issuer", "--data-dir", "data"], "oidc_issuer"),
        (
            &[
                "server",
                "--oidc-issuer",
                "https://a.example",
                "--oidc-jwks-url",
                "ftp://a",
                "--data-dir",
                "data",
            ],
            "oidc_jwks_url",
        ),
        (
            &["server", "--oidc-issuer", "https://a.example", "--oidc-audience", "", "--data-dir", "data"],
            "oidc_audience is empty",
        ),
        (&["worker"], "none is named"),
    ] {
        stage.rota(args).await.failed(2, &["error: ", word]);
    }
    assert!(!stage.dir().join("data").exists());
    let mut command = stage.command(&["server", "--print-config"]);
    command.env("ROTA_SERVER_LISTN", "127.0.0.1:1");
    Answer::of(command, "").await.failed(2, &["error: the configuration is wrong", "listn", "hint: "]);
    let help = stage.rota(&["--help"]).await.done();
    assert!(help.contains("Exit codes:") && help.contains("130"), "{help}");
    Ok(())
}

#[tokio::test]
async fn no_server_and_no_entry() -> Result<()> {
    let stage = Stage::start(Graces::LONG).await?;
    let wrong = stage.dir().join("wrong");
    std::fs::write(&wrong, "another-token")?;
    let mut command = stage.command(&["get", "tasks"]);
    command.env("ROTA_TOKEN_FILE", &wrong);
    Answer::of(command, "").await.failed(5, &["error: ", "hint: "]);
    let mut command = stage.command(&["get", "tasks"]);
    command.env("ROTA_TOKEN_FILE", stage.dir().join("not-there"));
    let answer = Answer::of(command, "").await;
    assert!(answer.code != 0 && answer.err.contains("not-there"), "{answer:?}");
    for wrong in ["ftp://127.0.0.1:1", "unix:///run/rota", "://x"] {
        let answer = stage.rota(&["--endpoint", wrong, "get", "tasks"]).await;
        answer
            .failed(1, &["error: ", wrong, "neither http nor https", "hint: an endpoint looks like http://"]);
    }
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let nobody = stage.rota(&["--endpoint", &format!("http://127.0.0.1:{port}"), "get", "tasks"]).await;
    nobody.failed(5, &["error: ", &port.to_string(), "hint: "]);
    // Two control planes cannot have the same data or the same port.
    let data = stage.dir().join("data");
    let second = ["server", "--data-dir", data.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    stage.rota(&second).await.failed(1, &["error: ", "in use"]);
    let taken = stage.addr().to_string();
    stage
        .rota(&["server", "--data-dir", "other", "--listen", &taken])
        .await
        .failed(1, &["error: ", &taken, "hint: "]);
    Ok(())
}

const HEAD: &str = "apiVersion: rota.dev/v1alpha1\nkind: Task\nmetadata: {name: a}\n";

#[tokio::test]
async fn manifests_that_are_wrong_send_nothing() -> Result<()> {
    let stage = Stage::start(Graces::LONG).await?;
    for (text, words) in [
        (format!("{HEAD}spec:\n  agent: x\n  promt: hello\n"), &["m.yaml:6:3", "promt"][..]),
        (format!("{HEAD}spec:\n  agent: [\n"), &["m.yaml:"]),
        (format!("{HEAD}spec: {{agent: x, priority: 99}}\n"), &["m.yaml:4:", "99"]),
        (
            format!("{HEAD}spec:\n  limits:\n    maxTurns: 99999999999\n"),
            &["m.yaml:6:15: spec.limits.maxTurns: "],
        ),
        (format!("{HEAD}spec: {{agent: x, limits: {{timeout: -5s}}}}\n"), &["m.yaml:4:", "-5s"]),
        (format!("{HEAD}spec: {{agent: NOT A NAME, prompt: x}}\n"), &["m.yaml:1", "spec.agent"]),
        (format!("{HEAD}spec: {{agent: x, capabilities: [code], prompt: x}}\n"), &["m.yaml:1", "spec"]),
        (
            "apiVersion: rota.dev/v1alpha1\nkind: Tusk\nmetadata: {name: a}\nspec: {}\n".into(),
            &["m.yaml:", "Tusk"],
        ),
        (
            "apiVersion: rota.dev/v9\nkind: Task\nmetadata: {name: a}\nspec: {}\n".into(),
            &["m.yaml:", "rota.dev/v9"],
        ),
        (
            format!("{HEAD}spec: {{prompt: x}}\n---\n{HEAD}spec: {{prompt: again}}\n"),
            &["m.yaml:6", "m.yaml:1"],
        ),
        (String::new(), &["no manifest"]),
    ] {
        // A good one beside it is not sent either.
        let good = format!("{}spec: {{prompt: x}}\n", HEAD.replace("name: a", "name: good"));
        std::fs::write(stage.dir().join("good.yaml"), if text.is_empty() { String::new() } else { good })?;
        std::fs::write(stage.dir().join("m.yaml"), &text)?;
        let answer = stage.rota(&["apply", "-f", "good.yaml", "-f", "m.yaml"]).await;
        answer.failed(1, &["error: "]);
        answer.failed(1, words);
        assert!(answer.out.is_empty(), "{answer:?}");
    }
    std::fs::write(stage.dir().join("m.yaml"), b"kind: \xff\n")?;
    stage.rota(&["apply", "-f", "m.yaml"]).await.failed(1, &["error: ", "m.yaml"]);
    stage.rota(&["apply", "-f", "nowhere.yaml"]).await.failed(1, &["error: ", "nowhere.yaml"]);
    assert_eq!(stage.rota(&["get", "tasks", "-o", "jsonl"]).await.done(), "");

    // What only the server can know names its field, too.
    let strict = format!("{HEAD}spec: {{agent: nobody, strict: true, prompt: x}}\n");
    stage
        .apply("m.yaml", &strict)
        .await
        .failed(1, &["error: task/a could not be applied", "cause: ", "agent"]);
    let large = format!("{HEAD}spec: {{prompt: {}}}\n", "x".repeat((1 << 20) + 1));
    stage.apply("m.yaml", &large).await.failed(1, &["error: ", "prompt"]);
    let fine = Answer::of(
        stage.command(&["apply", "-f", "-", "--dry-run"]),
        &format!("{HEAD}spec: {{prompt: x}}\n"),
    )
    .await;
    assert_eq!(fine.done(), "task/a would be created");
    assert_eq!(stage.rota(&["get", "tasks", "-o", "jsonl"]).await.done(), "");
    history::check(&stage.client()?, true).await?.check()
}
