//! The control plane as somebody outside the cluster reaches it: a forwarded port, the authority's certificate
//! and the admin token, and `rota` on that.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::command::{Output, finish};
use crate::{RELEASE, client};

/// How long a port may take to be forwarded.
const LIMIT: Duration = Duration::from_secs(30);

/// A forwarded port with what is needed to use it.
#[derive(Debug)]
pub struct Control {
    folder: TempDir,
    port: u16,
    /// Ends with this, and so does the port; its output is kept open.
    _forward: (Child, Lines<BufReader<ChildStdout>>),
}

impl Control {
    /// As the notes of the chart say.
    pub async fn connect() -> Self {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("no folder: {error}"));
        let secrets: Api<Secret> = Api::namespaced(client().await, RELEASE);
        for (secret, key) in [("rota-tls", "ca.crt"), ("rota-admin-token", "token")] {
            let found = secrets.get(secret).await.unwrap_or_else(|error| panic!("Secret {secret}: {error}"));
            let Some(value) = found.data.unwrap_or_default().remove(key) else {
                panic!("{secret} has no {key}")
            };
            std::fs::write(folder.path().join(key), value.0)
                .unwrap_or_else(|error| panic!("{key} cannot be written: {error}"));
        }
        let mut child = Command::new("kubectl")
            .args(["-n", RELEASE, "port-forward", "service/rota", ":7420"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("kubectl cannot be started: {error}"));
        let Some(stdout) = child.stdout.take() else { panic!("kubectl has no output") };
        let mut lines = BufReader::new(stdout).lines();
        let said = timeout(LIMIT, lines.next_line()).await.ok().and_then(Result::ok).flatten();
        // Forwarding from 127.0.0.1:40123 -> 7420
        let port =
            said.as_deref().and_then(|line| line.split(&[':', ' ']).find_map(|word| word.parse().ok()));
        let Some(port) = port else { panic!("no port was forwarded: {said:?}") };
        Self { folder, port, _forward: (child, lines) }
    }

    /// Where it is reached on this machine.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `rota` with these words.
    pub async fn rota(&self, line: &str) -> Output {
        let program =
            rota_telemetry::env::var_os("ROTA_BIN").map_or_else(|| PathBuf::from("rota"), PathBuf::from);
        let mut command = Command::new(program);
        command
            .args(line.split_whitespace())
            .env("ROTA_ENDPOINT", format!("https://localhost:{}", self.port))
            .env("ROTA_CA", self.folder.path().join("ca.crt"))
            .env("ROTA_TOKEN_FILE", self.folder.path().join("token"));
        finish(&format!("rota {line}"), command, "").await
    }
}
