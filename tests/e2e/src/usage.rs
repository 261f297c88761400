//! What the processes of the cluster have used: their own counts, from their pages of metrics.

use crate::{RELEASE, run};

/// A process whose counts are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    ApiServer,
    Operator,
    Server,
}

/// Memory that a process has, and processor time that it has used.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    pub resident_bytes: u64,
    pub cpu_seconds: f64,
}

impl Usage {
    /// Reads the counts of a component: of the API server, those of the instance that answers.
    pub async fn of(component: Component) -> Self {
        let path = match component {
            Component::ApiServer => "/metrics".to_owned(),
            Component::Operator => of_pod("operator", 7422).await,
            Component::Server => of_pod("server", 7421).await,
        };
        let text = run(&format!("kubectl get --raw {path}")).await.success();
        let of = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.split(' ').next()?.parse::<f64>().ok())
                .unwrap_or_else(|| panic!("{component:?} has no {name}"))
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of bytes")]
        let resident_bytes = of("process_resident_memory_bytes") as u64;
        Self { resident_bytes, cpu_seconds: of("process_cpu_seconds_total") }
    }
}

/// Returns the path of the metrics of a component's pod.
async fn of_pod(component: &str, port: u16) -> String {
    let pods = format!("get pods --selector app.kubernetes.io/component={component}");
    let pod =
        run(&format!("kubectl -n {RELEASE} {pods} -o jsonpath={{.items[0].metadata.name}}")).await.success();
    format!("/api/v1/namespaces/{RELEASE}/pods/{pod}:{port}/proxy/metrics")
}
