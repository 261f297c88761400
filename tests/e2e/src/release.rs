//! The installed release, broken on purpose and made whole again.

use std::process::Command;

use crate::RELEASE;
use crate::command::run;

/// A control plane that is not there until this is dropped or `back`.
#[derive(Debug)]
pub struct Away(());

impl Away {
    /// Takes the control plane away.
    pub async fn now() -> Self {
        run(&format!("kubectl -n {RELEASE} scale deployment/rota-server --replicas=0")).await.good();
        let away = Self(());
        let pods = "pod -l app.kubernetes.io/component=server";
        run(&format!("kubectl -n {RELEASE} wait {pods} --for=delete --timeout=120s")).await.good();
        away
    }

    /// Brings it back.
    pub async fn back(self) {
        drop(self);
        run(&format!("kubectl -n {RELEASE} rollout status deployment/rota-server --timeout=180s"))
            .await
            .good();
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        let arguments = ["-n", RELEASE, "scale", "deployment/rota-server", "--replicas=1"];
        if let Err(error) = Command::new("kubectl").args(arguments).output() {
            eprintln!("the control plane is not brought back: {error}");
        }
    }
}
