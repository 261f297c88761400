//! Planned outage of the control plane.

use std::process::Command;

use crate::RELEASE;
use crate::command::run;

/// Outage of the control plane until this is dropped or [`Outage::end`].
#[derive(Debug)]
pub struct Outage(());

impl Outage {
    /// Stops the control plane.
    pub async fn start() -> Self {
        run(&format!("kubectl -n {RELEASE} scale deployment/rota-server --replicas=0")).await.success();
        let outage = Self(());
        let pods = "pod -l app.kubernetes.io/component=server";
        run(&format!("kubectl -n {RELEASE} wait {pods} --for=delete --timeout=120s")).await.success();
        outage
    }

    /// Starts the control plane again and waits until it is ready.
    pub async fn end(self) {
        drop(self);
        run(&format!("kubectl -n {RELEASE} rollout status deployment/rota-server --timeout=180s"))
            .await
            .success();
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        let arguments = ["-n", RELEASE, "scale", "deployment/rota-server", "--replicas=1"];
        if let Err(error) = Command::new("kubectl").args(arguments).output() {
            eprintln!("failed to restart the control plane: {error}");
        }
    }
}
