//! Namespace of one test. If the test fails, its state is written to a folder.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::command::{Output, finish, run, run_with};
use crate::{PodWatch, RELEASE, client};

/// Namespace that is deleted after the test.
#[derive(Debug)]
pub struct Space {
    pub name: String,
    /// All changes of its pods.
    pub pods: PodWatch,
}

impl Space {
    /// Creates a namespace with a unique name.
    pub async fn new(test: &str) -> Self {
        let name = format!("{test}-{}", &uuid::Uuid::new_v4().simple().to_string()[..5]);
        run(&format!("kubectl create namespace {name}")).await.success();
        let label = "pod-security.kubernetes.io/enforce=restricted";
        run(&format!("kubectl label namespace {name} {label}")).await.success();
        let pods = PodWatch::start(client().await, &name).await;
        Self { name, pods }
    }

    /// Runs `kubectl` in the namespace.
    pub async fn kubectl(&self, line: &str) -> Output {
        run(&format!("kubectl --namespace {} {line}", self.name)).await
    }

    /// Applies a manifest.
    pub async fn apply(&self, manifest: &str) {
        self.try_apply(manifest).await.success();
    }

    /// Applies a manifest that may be rejected.
    pub async fn try_apply(&self, manifest: &str) -> Output {
        run_with(&format!("kubectl --namespace {} apply --server-side -f -", self.name), manifest).await
    }

    /// Runs `kubectl get` and returns its JSON.
    pub async fn get(&self, what: &str) -> Value {
        let text = self.kubectl(&format!("get {what} -o json")).await.success();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{what} is not JSON: {error}"))
    }

    /// Returns a field by its JSONPath; empty if it does not exist.
    pub async fn field(&self, what: &str, path: &str) -> String {
        self.kubectl(&format!("get {what} -o jsonpath={{{path}}}")).await.success()
    }

    /// Runs a shell command in the only container of a pod.
    pub async fn sh(&self, pod: &str, line: &str) -> Output {
        let mut command = tokio::process::Command::new("kubectl");
        command.args(["--namespace", &self.name, "exec", pod, "--", "sh", "-c", line]);
        finish(&format!("kubectl exec {pod} -- {line}"), command, "").await
    }

    /// Runs `kubectl wait`.
    pub async fn wait(&self, what: &str, condition: &str, limit: &str) {
        self.kubectl(&format!("wait {what} --for={condition} --timeout={limit}")).await.success();
    }

    /// Returns all tasks as JSON.
    pub async fn tasks(&self) -> Vec<Value> {
        let mut all = self.get("tasks.rota.dev").await;
        all["items"].as_array_mut().map(std::mem::take).unwrap_or_default()
    }
}

const KINDS: &str =
    "agents.rota.dev,tasks.rota.dev,workflows.rota.dev,workflowtemplates.rota.dev,schedules.rota.dev";

impl Drop for Space {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dump();
        }
        let arguments = ["delete", "namespace", &self.name, "--wait=false", "--ignore-not-found"];
        let _ = Command::new("kubectl").args(arguments).output();
    }
}

impl Space {
    /// Writes objects, events and logs to a folder.
    fn dump(&self) {
        let root =
            rota_telemetry::env::var_os("ROTA_E2E_LOGS").map_or_else(std::env::temp_dir, PathBuf::from);
        let folder = root.join(&self.name);
        if let Err(error) = std::fs::create_dir_all(&folder) {
            eprintln!("failed to create {}: {error}", folder.display());
            return;
        }
        let own = &self.name;
        for (file, line) in [
            ("objects.txt", format!("-n {own} get {KINDS},pods -o wide")),
            ("objects.yaml", format!("-n {own} get {KINDS},pods -o yaml")),
            ("describe.txt", format!("-n {own} describe {KINDS},pods")),
            ("events.txt", format!("-n {own} get events --sort-by=.lastTimestamp")),
            ("workers.log", format!("-n {own} logs -l rota.dev/role=worker --prefix --tail=-1")),
            ("release.txt", format!("-n {RELEASE} get all -o wide")),
            ("release-describe.txt", format!("-n {RELEASE} describe pods")),
            ("server.log", format!("-n {RELEASE} logs deployment/rota-server --tail=5000")),
            ("operator.log", format!("-n {RELEASE} logs deployment/rota-operator --tail=5000")),
        ] {
            if let Ok(output) = Command::new("kubectl").args(line.split_whitespace()).output() {
                let _ = std::fs::write(folder.join(file), [output.stdout, output.stderr].concat());
            }
        }
        let _ = std::fs::write(folder.join("pods-watched.txt"), self.pods.history());
        eprintln!("state of the failed test: {}", folder.display());
    }
}
