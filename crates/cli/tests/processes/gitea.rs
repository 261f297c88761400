//! A real Gitea, as `scripts/gitea` builds it: a process on loopback, with its own database and users.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use nix::unistd::{User, geteuid};
use reqwest::{Method, StatusCode};
use rota_telemetry::{env, free_addresses};
use rota_testkit::tasks::{self, WAIT_TIMEOUT};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::process::Process;

pub(crate) struct Gitea {
    /// Scheme, address and port of its pages, its API and its repositories.
    pub(crate) origin: String,
    program: PathBuf,
    folder: PathBuf,
    client: reqwest::Client,
    process: Option<Process>,
}

impl Gitea {
    /// Starts it in a folder.
    pub(crate) async fn start(folder: &Path) -> Result<Self> {
        let built = env::var("ROTA_TEST_GITEA").context("no Gitea is named: make test-gitea")?;
        let built = PathBuf::from(built);
        let port = free_addresses(1)?[0].port();
        let origin = format!("http://127.0.0.1:{port}");
        let user = User::from_uid(geteuid())?.context("this user has no name")?.name;
        // Nothing is asked for outside of this machine.
        let settings = format!(
            "RUN_USER = {user}\nI_AM_BEING_UNSAFE_RUNNING_AS_ROOT = true\nWORK_PATH = {folder}\n\
             [database]\nDB_TYPE = sqlite3\n[server]\nHTTP_ADDR = 127.0.0.1\nHTTP_PORT = {port}\nROOT_URL = {origin}/\n\
             DISABLE_SSH = true\nOFFLINE_MODE = true\nSTATIC_ROOT_PATH = {built}\n[security]\nINSTALL_LOCK = true\n\
             [service]\nDISABLE_REGISTRATION = true\n[actions]\nENABLED = false\n[oauth2]\nENABLED = false\n\
             [cron.update_checker]\nENABLED = false\n[log]\nMODE = console\nLEVEL = Info\n",
            folder = folder.display(),
            built = built.display(),
        );
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("app.ini"), settings)?;
        let client = reqwest::Client::builder().no_proxy().build()?;
        let mut gitea =
            Self { origin, program: built.join("gitea"), folder: folder.to_owned(), client, process: None };
        gitea.run(&["migrate"]).await?;
        gitea.process = Some(Process::start("gitea", gitea.command(&["web"])));
        tasks::eventually("Gitea", async || {
            let answered = gitea.client.get(format!("{}/api/healthz", gitea.origin)).send().await;
            Ok(answered.is_ok_and(|answer| answer.status().is_success()))
        })
        .await?;
        Ok(gitea)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).arg("--config").arg(self.folder.join("app.ini"));
        command.current_dir(&self.folder).env_clear().env("HOME", &self.folder);
        command.env("PATH", env::var_os("PATH").unwrap_or_default()).kill_on_drop(true).stdin(Stdio::null());
        command
    }

    async fn run(&self, args: &[&str]) -> Result<String> {
        let done = timeout(WAIT_TIMEOUT, self.command(args).output()).await??;
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        ensure!(done.status.success(), "gitea {args:?}: {out} {err}");
        Ok(out.trim().to_owned())
    }

    pub(crate) async fn create_user(&self, name: &str) -> Result<()> {
        let email = format!("{name}@example.invalid");
        let password = uuid::Uuid::new_v4().to_string();
        let args =
            ["admin", "user", "create", "--username", name, "--password", &password, "--email", &email];
        self.run(&[&args[..], &["--must-change-password=false"]].concat()).await?;
        Ok(())
    }

    /// Creates a token of a user with these scopes.
    pub(crate) async fn create_token(&self, user: &str, scopes: &str) -> Result<String> {
        let name = uuid::Uuid::new_v4().to_string();
        let args = ["admin", "user", "generate-access-token", "--username", user, "--token-name", &name];
        let printed = self.run(&[&args[..], &["--scopes", scopes, "--raw"]].concat()).await?;
        // Warnings come before it.
        Ok(printed.lines().last().unwrap_or_default().to_owned())
    }

    /// Calls the API, below its root. Returns the status and the answer.
    pub(crate) async fn call(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<(StatusCode, Value)> {
        let call = self.client.request(method, format!("{}/api/v1/{path}", self.origin));
        let call = call.header("authorization", format!("token {token}"));
        let call = if body.is_null() { call } else { call.json(body) };
        let answered = call.send().await?;
        Ok((answered.status(), answered.json().await.unwrap_or_default()))
    }

    /// Calls the API, which must do what it is asked for.
    pub(crate) async fn ask(&self, token: &str, method: Method, path: &str, body: &Value) -> Result<Value> {
        let (status, answer) = self.call(token, method, path, body).await?;
        ensure!(status.is_success(), "{path}: {status} {answer}");
        Ok(answer)
    }
}
