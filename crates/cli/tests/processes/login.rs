//! `rota login`: the flow of devices, that of a browser, renewal, and the end of a login.

use std::process::Stdio;

use anyhow::{Context, Result};
use rota_telemetry::clock;
use rota_testkit::identity_provider::{Algorithm, IdentityProvider};
use rota_testkit::tasks::WAIT_TIMEOUT;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::responses::Response;
use crate::{Fixture, Graces};

const LIST: &str = "[[allow]]\nsubject = 'ada'\nrole = 'developer'\nnamespaces = ['team']\n";

/// A control plane with people, and a context of it without a token.
async fn start() -> Result<(Fixture, IdentityProvider)> {
    let provider = IdentityProvider::start(Algorithm::ES256, None).await?;
    let mut fixture = Fixture::bare();
    let list = fixture.dir().join("sign-in.toml");
    std::fs::write(&list, provider.sign_in("", LIST))?;
    fixture.server_environment = vec![("ROTA_SERVER_SIGN_IN", list.display().to_string())];
    fixture.start_server().await?;
    let endpoint = format!("http://{}", fixture.addr());
    rota(&fixture, &["context", "set", "here", "--endpoint", &endpoint, "-n", "team", "--use"])
        .await
        .success();
    Ok((fixture, provider))
}

/// Returns a command of a person who has no variables of Rota.
fn command(fixture: &Fixture, args: &[&str]) -> Command {
    let mut command = fixture.command(args);
    for name in ["ROTA_ENDPOINT", "ROTA_TOKEN", "ROTA_TOKEN_FILE"] {
        command.env_remove(name);
    }
    command
}

async fn rota(fixture: &Fixture, args: &[&str]) -> Response {
    Response::of(command(fixture, args), "").await
}

fn kept(fixture: &Fixture) -> String {
    std::fs::read_to_string(fixture.dir().join("home/.config/rota/contexts.toml")).unwrap()
}

/// Sets a value of the login that is kept.
fn set(fixture: &Fixture, key: &str, value: &str) -> Result<()> {
    let is_key = |line: &str| line.split(" = ").next() == Some(key);
    let line = |line: &str| if is_key(line) { format!("{key} = {value}\n") } else { format!("{line}\n") };
    let text: String = kept(fixture).lines().map(line).collect();
    Ok(std::fs::write(fixture.dir().join("home/.config/rota/contexts.toml"), text)?)
}

/// Sets the end of the kept token, which has lived for long.
fn set_expiry(fixture: &Fixture, at: i64) -> Result<()> {
    set(fixture, "received", "0")?;
    set(fixture, "expires", &at.to_string())
}

#[tokio::test]
async fn login_by_device_is_renewed_until_logout() -> Result<()> {
    let (fixture, provider) = start().await?;
    rota(&fixture, &["get", "tasks"]).await.failed(5, &["a token is required"]);
    let login = rota(&fixture, &["login"]).await;
    assert!(
        login.err.contains("enter the code WDJB-MJHT") && login.err.contains(provider.url()),
        "{login:?}"
    );
    assert!(login.err.contains("as the client rota"), "{login:?}");
    login.success();
    rota(&fixture, &["get", "tasks"]).await.success();
    assert_eq!(provider.refreshes(), 0);
    set_expiry(&fixture, clock::unix_micros() / 1_000_000 + 200)?;
    let before = kept(&fixture);
    rota(&fixture, &["run", "--agent", "none", "--detach", "x"]).await.success();
    let after = kept(&fixture);
    assert!(before != after && after.contains("refresh_token"), "the login was not renewed");
    rota(&fixture, &["get", "tasks", "-n", "default"])
        .await
        .failed(5, &["ada@rota.example", "namespaces team"]);
    let shown = rota(&fixture, &["context", "show", "-o", "json"]).await.json();
    assert_eq!(shown["token"], format!("login at {}", provider.url()));
    let doctor = rota(&fixture, &["doctor"]).await.success();
    assert!(
        doctor.contains("of the login of the context") && doctor.contains("with rights in all namespaces"),
        "{doctor}"
    );
    let link = rota(&fixture, &["ui"]).await.success();
    assert!(link.contains("/#code="), "{link}");

    // Each of several commands at the same time has a login, although an issuer takes what renews it once.
    let refreshes = provider.refreshes();
    set_expiry(&fixture, 1)?;
    let commands = (0..4).map(|_| rota(&fixture, &["get", "tasks"]));
    for response in futures::future::join_all(commands).await {
        assert!(!response.err.contains("could not be renewed"), "{response:?}");
        response.success();
    }
    assert_eq!(provider.refreshes(), refreshes + 1);
    rota(&fixture, &["logout"]).await.success();
    assert!(!kept(&fixture).contains("token"));
    rota(&fixture, &["get", "tasks"]).await.failed(5, &["a token is required"]);
    Ok(())
}

#[tokio::test]
async fn expired_login_is_renewed_where_it_cannot_be_kept() -> Result<()> {
    let (fixture, provider) = start().await?;
    rota(&fixture, &["login"]).await.success();
    set_expiry(&fixture, 1)?;
    // A folder in the place of the lock keeps root from writing, too.
    let lock = fixture.dir().join("home/.config/rota/contexts.lock");
    std::fs::remove_file(&lock)?;
    std::fs::create_dir(&lock)?;
    let renewed = rota(&fixture, &["get", "tasks"]).await;
    assert!(renewed.err.contains("could not be kept"), "{renewed:?}");
    renewed.success();
    assert_eq!(provider.refreshes(), 1);
    Ok(())
}

#[tokio::test]
async fn login_by_browser_needs_its_own_answer() -> Result<()> {
    let (fixture, provider) = start().await?;
    provider.behave(|next| next.has_device_flow = false);
    let mut child = command(&fixture, &["login"]).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(child.stderr.take().context("standard error")?).lines();
    let url = timeout(WAIT_TIMEOUT, async {
        while let Some(line) = lines.next_line().await? {
            if let Some(url) = line.split("open ").nth(1) {
                return anyhow::Ok(url.to_owned());
            }
        }
        anyhow::bail!("no address was printed")
    });
    let url = url.await??;
    let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?;
    let answer = http.get(&url).send().await?;
    let back = answer.headers()["location"].to_str()?.to_owned();
    assert!(back.starts_with("http://127.0.0.1:"), "{back}");
    // A page of another site sends the browser here first.
    let forged = format!("{}?code=x&state=y", back.split('?').next().unwrap_or_default());
    http.get(&forged).send().await?;
    let page = http.get(&back).send().await?.text().await?;
    assert!(page.contains("close this page"), "{page}");
    let ended = timeout(WAIT_TIMEOUT, child.wait()).await??;
    assert!(ended.success(), "{ended}");
    rota(&fixture, &["get", "tasks"]).await.success();
    Ok(())
}

#[tokio::test]
async fn refused_logins_are_not_kept() -> Result<()> {
    let (fixture, provider) = start().await?;
    provider.behave(|next| next.person = json!({ "sub": "mallory" }));
    rota(&fixture, &["login"]).await.failed(5, &["mallory is not on the list"]);
    assert!(!kept(&fixture).contains("id_token"));
    provider.behave(|next| next.person = json!({ "sub": "ada" }));
    rota(&fixture, &["login"]).await.success();
    // What renews it is another one by now.
    set(&fixture, "refresh_token", "\"x\"")?;
    set_expiry(&fixture, clock::unix_micros() / 1_000_000 + 200)?;
    let warned = rota(&fixture, &["get", "tasks"]).await;
    assert!(warned.err.contains("could not be renewed"), "{warned:?}");
    warned.success();
    set_expiry(&fixture, 1)?;
    rota(&fixture, &["get", "tasks"]).await.failed(5, &["has expired", "rota login here"]);
    let other = Fixture::start(Graces::LONG).await?;
    let endpoint = format!("http://{}", other.addr());
    rota(&other, &["context", "set", "here", "--endpoint", &endpoint, "--use"]).await.success();
    rota(&other, &["login"]).await.failed(1, &["accepts no tokens of people", "--sign-in"]);
    Ok(())
}
