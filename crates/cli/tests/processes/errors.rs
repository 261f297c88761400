//! Errors: `error:`, `cause:` and `hint:` lines on standard error, and exit codes.

use anyhow::Result;
use rota_telemetry::free_addresses;
use rota_testkit::history;

use crate::responses::Response;
use crate::{Fixture, Graces};

#[tokio::test]
async fn missing_resources_exit_with_4() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    for args in [
        &["get", "task", "nothing"][..],
        &["describe", "nothing"],
        &["describe", "agent", "missing"],
        &["describe", "worker", "missing"],
        &["get", "worker", "missing"],
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
        &["drain", "missing"],
    ] {
        let response = fixture.rota(args).await;
        response.failed(4, &["error: "]);
        assert!(response.out.is_empty() && !response.err.contains('\u{1b}'), "{response:?}");
    }
    history::check(&fixture.client()?, true).await?.check()
}

#[tokio::test]
async fn invalid_arguments_exit_with_2() -> Result<()> {
    let fixture = Fixture::bare();
    for (args, word) in [
        (&["get"][..], "required"),
        (&["get", "things"], "rota get task things"),
        (&["nonsense"], "nonsense"),
        (&["run"], "no prompt and no program"),
        (&["run", "--agent", "a", "--needs", "b", "x"], "cannot be used with"),
        (&["run", "--timeout", "soon", "x"], "soon"),
        (&["run", "--timeout=-5s", "x"], "-5s"),
        (&["run", "--timeout", "-5s", "x"], "positive, for example 30s"),
        (&["wait", "a", "--timeout", "-5s"], "positive, for example 30s"),
        (&["server", "--retention", "-1h"], "positive, for example 30s"),
        (&["run", "--budget-usd", "-1", "x"], "\"0.50\": negative"),
        (&["run", "--priority", "eleven", "x"], "eleven"),
        (&["run", "--budget-usd", "much", "x"], "much"),
        (&["run", "--agent", "NOT A NAME", "x"], "agent"),
        (&["run", "--secret-env", "ROTA_NOT_SET", "x"], "ROTA_NOT_SET is not set"),
        (&["get", "tasks", "--label", "nothing"], "KEY=VALUE"),
        (&["wait", "a", "--timeout", "long"], "long"),
        (&["server", "--listen", "127.0.0.1:0", "--data-dir", "data"], "no token would be required"),
        (&["dev", "--listen", "0.0.0.0:0", "--data-dir", "data"], "reachable from other machines"),
        (&["server", "--oidc-operator", "x", "--data-dir", "data"], "oidc_operator requires oidc_issuer"),
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
        (&["worker"], "no agent is set"),
    ] {
        fixture.rota(args).await.failed(2, &["error: ", word]);
    }
    assert!(!fixture.dir().join("data").exists());
    let mut command = fixture.command(&["server", "--print-config"]);
    command.env("ROTA_SERVER_LISTN", "127.0.0.1:1");
    Response::of(command, "").await.failed(2, &["error: invalid configuration", "listn", "hint: "]);
    let help = fixture.rota(&["--help"]).await.success();
    assert!(help.contains("Exit codes:") && help.contains("130"), "{help}");
    Ok(())
}

#[tokio::test]
async fn unreachable_servers_exit_with_5() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let wrong = fixture.dir().join("wrong");
    std::fs::write(&wrong, "another-token")?;
    let mut command = fixture.command(&["get", "tasks"]);
    command.env("ROTA_TOKEN_FILE", &wrong);
    Response::of(command, "").await.failed(5, &["error: ", "hint: "]);
    let mut command = fixture.command(&["get", "tasks"]);
    command.env("ROTA_TOKEN_FILE", fixture.dir().join("not-there"));
    let response = Response::of(command, "").await;
    assert!(response.code != 0 && response.err.contains("not-there"), "{response:?}");
    for wrong in ["ftp://127.0.0.1:1", "unix:///run/rota", "://x"] {
        let response = fixture.rota(&["--endpoint", wrong, "get", "tasks"]).await;
        response
            .failed(1, &["error: ", wrong, "neither http nor https", "hint: an endpoint looks like http://"]);
    }
    // A port without a listener.
    let port = free_addresses(1)?[0].port();
    let refused = fixture.rota(&["--endpoint", &format!("http://127.0.0.1:{port}"), "get", "tasks"]).await;
    refused.failed(5, &["error: ", &port.to_string(), "hint: "]);
    // Two control planes cannot have the same data or the same port.
    let data = fixture.dir().join("data");
    let second = ["server", "--data-dir", data.to_str().unwrap(), "--listen", "127.0.0.1:0", "--insecure"];
    fixture.rota(&second).await.failed(1, &["error: ", "in use"]);
    let taken = fixture.addr().to_string();
    fixture
        .rota(&["server", "--data-dir", "other", "--listen", &taken, "--insecure"])
        .await
        .failed(1, &["error: ", &taken, "hint: "]);
    Ok(())
}

const HEAD: &str = "apiVersion: rota.dev/v1alpha1\nkind: Task\nmetadata: {name: a}\n";

#[tokio::test]
async fn invalid_manifests_send_nothing() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
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
        // Valid manifests of the same call are not sent either.
        let good = format!("{}spec: {{prompt: x}}\n", HEAD.replace("name: a", "name: good"));
        std::fs::write(fixture.dir().join("good.yaml"), if text.is_empty() { String::new() } else { good })?;
        std::fs::write(fixture.dir().join("m.yaml"), &text)?;
        let response = fixture.rota(&["apply", "-f", "good.yaml", "-f", "m.yaml"]).await;
        response.failed(1, &["error: "]);
        response.failed(1, words);
        assert!(response.out.is_empty(), "{response:?}");
    }
    std::fs::write(fixture.dir().join("m.yaml"), b"kind: \xff\n")?;
    fixture.rota(&["apply", "-f", "m.yaml"]).await.failed(1, &["error: ", "m.yaml"]);
    fixture.rota(&["apply", "-f", "nowhere.yaml"]).await.failed(1, &["error: ", "nowhere.yaml"]);
    assert_eq!(fixture.rota(&["get", "tasks", "-o", "jsonl"]).await.success(), "");

    // Errors of the server name their field too.
    let strict = format!("{HEAD}spec: {{agent: missing, strict: true, prompt: x}}\n");
    fixture.apply("m.yaml", &strict).await.failed(1, &["error: failed to apply task/a", "cause: ", "agent"]);
    let large = format!("{HEAD}spec: {{prompt: {}}}\n", "x".repeat((1 << 20) + 1));
    fixture.apply("m.yaml", &large).await.failed(1, &["error: ", "prompt"]);
    let fine = Response::of(
        fixture.command(&["apply", "-f", "-", "--dry-run"]),
        &format!("{HEAD}spec: {{prompt: x}}\n"),
    )
    .await;
    assert_eq!(fine.success(), "task/a would be created");
    assert_eq!(fixture.rota(&["get", "tasks", "-o", "jsonl"]).await.success(), "");
    history::check(&fixture.client()?, true).await?.check()
}
