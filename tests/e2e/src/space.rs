//! A namespace of a story's own. When the story fails, what can be seen of it is kept in a folder.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::command::{Output, finish, run, run_with};
use crate::{RELEASE, Watched, client};

/// A namespace that is gone after the test.
#[derive(Debug)]
pub struct Space {
    /// Its name.
    pub name: String,
    /// Its pods, from the beginning.
    pub pods: Watched,
}

impl Space {
    /// A new one, which nobody used before.
    pub async fn new(story: &str) -> Self {
        let name = format!("{story}-{}", &uuid::Uuid::new_v4().simple().to_string()[..5]);
        run(&format!("kubectl create namespace {name}")).await.good();
        let label = "pod-security.kubernetes.io/enforce=restricted";
        run(&format!("kubectl label namespace {name} {label}")).await.good();
        let pods = Watched::start(client().await, &name).await;
        Self { name, pods }
    }

    /// `kubectl` in this namespace.
    pub async fn kubectl(&self, line: &str) -> Output {
        run(&format!("kubectl --namespace {} {line}", self.name)).await
    }

    /// `kubectl apply`, of a manifest.
    pub async fn apply(&self, manifest: &str) {
        self.hand_in(manifest).await.good();
    }

    /// The same, which may fail.
    pub async fn hand_in(&self, manifest: &str) -> Output {
        run_with(&format!("kubectl --namespace {} apply --server-side -f -", self.name), manifest).await
    }

    /// `kubectl get`, as JSON.
    pub async fn get(&self, what: &str) -> Value {
        let text = self.kubectl(&format!("get {what} -o json")).await.good();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{what} is no JSON: {error}"))
    }

    /// A field by its path, as `kubectl get -o jsonpath` has it; empty when it is not there.
    pub async fn field(&self, what: &str, path: &str) -> String {
        self.kubectl(&format!("get {what} -o jsonpath={{{path}}}")).await.good()
    }

    /// A line for the shell of a pod's only container.
    pub async fn sh(&self, pod: &str, line: &str) -> Output {
        let mut command = tokio::process::Command::new("kubectl");
        command.args(["--namespace", &self.name, "exec", pod, "--", "sh", "-c", line]);
        finish(&format!("kubectl exec {pod} -- {line}"), command, "").await
    }

    /// Waits for a condition as people do.
    pub async fn wait(&self, what: &str, condition: &str, limit: &str) {
        self.kubectl(&format!("wait {what} --for={condition} --timeout={limit}")).await.good();
    }

    /// The list of tasks, each as JSON.
    pub async fn tasks(&self) -> Vec<Value> {
        let mut all = self.get("tasks.rota.dev").await;
        all["items"].as_array_mut().map(std::mem::take).unwrap_or_default()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep();
        }
        let arguments = ["delete", "namespace", &self.name, "--wait=false", "--ignore-not-found"];
        let _ = Command::new("kubectl").args(arguments).output();
    }
}

impl Space {
    /// Writes down what a person would look at.
    fn keep(&self) {
        let root =
            rota_telemetry::env::var_os("ROTA_E2E_LOGS").map_or_else(std::env::temp_dir, PathBuf::from);
        let folder = root.join(&self.name);
        if let Err(error) = std::fs::create_dir_all(&folder) {
            eprintln!("{} cannot be made: {error}", folder.display());
            return;
        }
        let own = &self.name;
        for (file, line) in [
            ("objects.txt", format!("-n {own} get agents.rota.dev,tasks.rota.dev,pods -o wide")),
            ("objects.yaml", format!("-n {own} get agents.rota.dev,tasks.rota.dev,pods -o yaml")),
            ("describe.txt", format!("-n {own} describe agents.rota.dev,tasks.rota.dev,pods")),
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
        let _ = std::fs::write(folder.join("pods-watched.txt"), self.pods.story());
        eprintln!("what could be seen is in {}", folder.display());
    }
}
