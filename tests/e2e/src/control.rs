//! Access to the control plane from outside the cluster: a forwarded port, the CA certificate, the admin token, and `rota`
//! with these.

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

/// Time limit for forwarding a port.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(120);

/// Returns `rota` with whitespace-separated arguments.
fn program(line: &str) -> Command {
    let program =
        rota_telemetry::env::var_os("ROTA_BIN").map_or_else(|| PathBuf::from("rota"), PathBuf::from);
    let mut command = Command::new(program);
    command.args(line.split_whitespace());
    command
}

/// Runs `rota` with whitespace-separated arguments and the kubeconfig alone.
pub async fn rota_with_kubeconfig(line: &str) -> Output {
    let mut command = program(line);
    for variable in ["ROTA_ENDPOINT", "ROTA_CA", "ROTA_TOKEN", "ROTA_TOKEN_FILE", "ROTA_CONTEXT_NAME"] {
        command.env_remove(variable);
    }
    finish(&format!("rota {line}"), command, "").await
}

/// Forwarded port of the control plane with credentials.
#[derive(Debug)]
pub struct Control {
    folder: TempDir,
    port: u16,
    /// Stops forwarding when dropped; its output must stay open.
    _forward: (Child, Lines<BufReader<ChildStdout>>),
}

impl Control {
    /// Connects as described in the notes of the chart.
    pub async fn connect() -> Self {
        Self::connect_to(RELEASE, RELEASE).await
    }

    /// Connects to another release, by its namespace and name.
    pub async fn connect_to(namespace: &str, release: &str) -> Self {
        let folder = tempfile::tempdir()
            .unwrap_or_else(|error| panic!("failed to create a temporary directory: {error}"));
        let secrets: Api<Secret> = Api::namespaced(client().await, namespace);
        for (secret, key) in [("rota-tls", "ca.crt"), ("rota-admin-token", "token")] {
            let found = secrets.get(secret).await.unwrap_or_else(|error| panic!("Secret {secret}: {error}"));
            let Some(value) = found.data.unwrap_or_default().remove(key) else {
                panic!("{secret} has no {key}")
            };
            std::fs::write(folder.path().join(key), value.0)
                .unwrap_or_else(|error| panic!("failed to write {key}: {error}"));
        }
        let mut child = Command::new("kubectl")
            .args(["-n", namespace, "port-forward", &format!("service/{release}"), ":7420"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("failed to start kubectl: {error}"));
        let Some(stdout) = child.stdout.take() else { panic!("kubectl has no output") };
        let mut lines = BufReader::new(stdout).lines();
        let line = timeout(FORWARD_TIMEOUT, lines.next_line()).await.ok().and_then(Result::ok).flatten();
        // Forwarding from 127.0.0.1:40123 -> 7420
        let port =
            line.as_deref().and_then(|line| line.split(&[':', ' ']).find_map(|word| word.parse().ok()));
        let Some(port) = port else { panic!("no port was forwarded: {line:?}") };
        Self { folder, port, _forward: (child, lines) }
    }

    /// Returns the local port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the file with the certificate authority.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// Runs `rota` with whitespace-separated arguments.
    pub async fn rota(&self, line: &str) -> Output {
        let mut command = program(line);
        command
            .env("ROTA_ENDPOINT", format!("https://localhost:{}", self.port))
            .env("ROTA_CA", self.folder.path().join("ca.crt"))
            .env("ROTA_TOKEN_FILE", self.folder.path().join("token"));
        finish(&format!("rota {line}"), command, "").await
    }
}
