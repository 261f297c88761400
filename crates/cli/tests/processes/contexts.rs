//! Contexts: control planes by name, and what selects them.

use std::os::unix::fs::PermissionsExt;

use anyhow::Result;

use crate::responses::Response;
use crate::{Fixture, Graces};

const TOKEN: &str = "a-token-for-tests-that-is-long-enough";

/// Runs a command of a person who has no variables of Rota.
async fn rota(fixture: &Fixture, args: &[&str], variables: &[(&str, &str)], input: &str) -> Response {
    let mut command = fixture.command(args);
    for name in ["ROTA_ENDPOINT", "ROTA_TOKEN", "ROTA_TOKEN_FILE"] {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied());
    Response::of(command, input).await
}

#[tokio::test]
async fn current_context_selects_the_server() -> Result<()> {
    let fixture = Fixture::start(Graces::LONG).await?;
    let endpoint = &format!("http://{}", fixture.addr());
    let run = async |args: &[&str]| rota(&fixture, args, &[], "").await;
    run(&["context", "show"]).await.failed(4, &["no context is current", "hint: "]);
    let set = ["context", "set", "here", "--endpoint", endpoint, "-n", "team", "--token-stdin", "--use"];
    rota(&fixture, &set, &[], TOKEN).await.success();
    let file = fixture.dir().join("home/.config/rota/contexts.toml");
    assert_eq!(std::fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    run(&["run", "--agent", "none", "--detach", "x"]).await.success();
    let listed = run(&["get", "tasks", "-o", "json"]).await.json();
    assert!(listed["tasks"][0]["name"].as_str().is_some_and(|name| name.starts_with("namespaces/team/")));
    let doctor = run(&["doctor"]).await.success();
    assert!(doctor.contains("from the context here; namespace team"), "{doctor}");

    // Another one, which nothing serves.
    let elsewhere = ["context", "set", "elsewhere", "--endpoint", "http://127.0.0.1:1"];
    run(&elsewhere).await.success();
    run(&["get", "tasks"]).await.success();
    run(&["get", "tasks", "--context", "elsewhere"]).await.failed(5, &["127.0.0.1:1"]);
    let named = [("ROTA_CONTEXT_NAME", "elsewhere")];
    rota(&fixture, &["get", "tasks"], &named, "").await.failed(5, &["127.0.0.1:1"]);
    rota(&fixture, &["get", "tasks", "--context", "here"], &named, "").await.success();
    let unknown = [("ROTA_CONTEXT_NAME", "missing")];
    rota(&fixture, &["get", "tasks"], &unknown, "").await.failed(4, &["missing"]);
    rota(&fixture, &["get", "tasks", "--endpoint", "http://127.0.0.1:1"], &unknown, "")
        .await
        .failed(5, &["127.0.0.1:1"]);
    let variable = [("ROTA_ENDPOINT", "http://127.0.0.1:2")];
    rota(&fixture, &["get", "tasks"], &variable, "").await.failed(5, &["127.0.0.1:2"]);
    run(&["get", "tasks", "--context", "missing"]).await.failed(4, &["missing", "rota context list"]);
    run(&["login", "missing"]).await.failed(4, &["missing", "rota context list"]);
    run(&["get", "tasks", "--context", "here", "--endpoint", endpoint]).await.failed(2, &["cannot be used"]);

    let shown = run(&["context", "list", "-o", "json"]).await;
    assert!(!shown.out.contains(TOKEN));
    let shown = shown.json();
    assert_eq!(
        (&shown["contexts"][1]["name"], &shown["contexts"][1]["current"]),
        (&"here".into(), &true.into())
    );
    assert_eq!(
        (&shown["contexts"][0]["token"], &shown["contexts"][1]["token"]),
        (&"none".into(), &"kept".into())
    );
    run(&["context", "use", "missing"]).await.failed(4, &["missing"]);
    run(&["context", "use", "elsewhere"]).await.success();
    run(&["get", "tasks"]).await.failed(5, &["127.0.0.1:1"]);
    run(&["context", "remove", "elsewhere"]).await.success();
    run(&["context", "show"]).await.failed(4, &["no context is current"]);
    run(&["logout"]).await.failed(4, &["no context is current"]);
    Ok(())
}

#[tokio::test]
async fn values_of_contexts_are_checked() -> Result<()> {
    let fixture = Fixture::bare();
    let run = async |args: &[&str], input: &str| rota(&fixture, args, &[], input).await;
    run(&["context", "set", "a b", "--endpoint", "http://127.0.0.1:1"], "").await.failed(2, &["a b"]);
    run(&["context", "set", "new"], "").await.failed(2, &["no address", "--endpoint"]);
    run(&["context", "set", "new", "--endpoint", "ftp://x"], "").await.failed(1, &["neither http nor https"]);
    let missing = ["context", "set", "new", "--endpoint", "http://127.0.0.1:1", "--token-file", "missing"];
    run(&missing, "").await.failed(1, &["missing"]);
    let no_token = ["context", "set", "new", "--endpoint", "http://127.0.0.1:1", "--token-stdin"];
    run(&no_token, "\n").await.failed(2, &["no token"]);
    assert_eq!(run(&["context", "list"], "").await.success(), "");
    // What was set before stays.
    let token = fixture.dir().join("token");
    let file = ["context", "set", "new", "--endpoint", "http://127.0.0.1:1", "--token-file"];
    run(&[&file[..], &[token.to_str().unwrap()]].concat(), "").await.success();
    run(&["context", "set", "new", "--namespace", "team"], "").await.success();
    let shown = run(&["context", "show", "new", "-o", "json"], "").await.json();
    assert_eq!(shown["token"], token.to_str().unwrap());
    assert_eq!((&shown["endpoint"], &shown["namespace"]), (&"http://127.0.0.1:1".into(), &"team".into()));
    // Components take nothing of a context.
    run(&["context", "use", "new"], "").await.success();
    let operator = ["operator", "--worker-image", "rota:1"];
    run(&operator, "").await.failed(2, &["requires a token file"]);
    run(&[&operator[..], &["--context", "new"]].concat(), "")
        .await
        .failed(2, &["cannot be used with a component"]);
    // What was for the earlier server is sent to no other.
    let moved = run(&["context", "set", "new", "--endpoint", "http://127.0.0.1:2"], "").await;
    assert!(moved.err.contains("earlier address of the context new: token"), "{moved:?}");
    moved.success();
    let shown = run(&["context", "show", "new", "-o", "json"], "").await.json();
    assert_eq!((&shown["token"], &shown["namespace"]), (&"none".into(), &"team".into()));
    let path = fixture.dir().join("home/.config/rota/contexts.toml");
    std::fs::write(&path, "endpont = 'new'\n")?;
    run(&["get", "tasks"], "").await.failed(2, &["endpont", "contexts.toml"]);
    let named = ["get", "tasks", "--endpoint", "http://127.0.0.1:1"];
    run(&named, "").await.failed(5, &["127.0.0.1:1"]);
    Ok(())
}
