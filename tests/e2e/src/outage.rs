//! Planned outages of the components of Rota.

use std::process::Command;

use crate::RELEASE;
use crate::command::run;

/// Outage of components until this is dropped or [`Outage::end`].
#[derive(Debug)]
pub struct Outage(&'static [&'static str]);

impl Outage {
    /// Stops the control plane.
    pub async fn start() -> Self {
        Self::of(&["server"]).await
    }

    /// Stops the control plane and the operator.
    pub async fn of_all() -> Self {
        Self::of(&["operator", "server"]).await
    }

    async fn of(components: &'static [&'static str]) -> Self {
        let outage = Self(components);
        for component in components {
            run(&format!("kubectl -n {RELEASE} scale deployment/rota-{component} --replicas=0"))
                .await
                .success();
            let pods = format!("pod -l app.kubernetes.io/component={component}");
            run(&format!("kubectl -n {RELEASE} wait {pods} --for=delete --timeout=300s")).await.success();
        }
        outage
    }

    /// Starts the components again and waits until they are ready.
    pub async fn end(self) {
        let components = self.0;
        drop(self);
        for component in components {
            run(&format!("kubectl -n {RELEASE} rollout status deployment/rota-{component} --timeout=300s"))
                .await
                .success();
        }
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        for component in self.0 {
            let deployment = format!("deployment/rota-{component}");
            let arguments = ["-n", RELEASE, "scale", &deployment, "--replicas=1"];
            if let Err(error) = Command::new("kubectl").args(arguments).output() {
                eprintln!("failed to restart {component}: {error}");
            }
        }
    }
}
