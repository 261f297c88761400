//! Order in which the controllers of an operator start.

use std::future::pending;

use http::StatusCode;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;

use super::*;
use crate::context::tests::{api_server, context};

#[tokio::test(start_paused = true)]
async fn agents_wait_for_pods_and_tasks() {
    let (lists, asked) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
    let (order, asks) = (Arc::clone(&lists), Arc::clone(&asked));
    let kube = api_server(move |_, path, _| {
        let (order, asks) = (Arc::clone(&order), Arc::clone(&asks));
        async move {
            let (kind, seconds) = match path.as_str() {
                "/api/v1/pods" => ("Pod", 5),
                "/apis/rota.dev/v1alpha1/tasks" => ("Task", 60),
                "/apis/rota.dev/v1alpha1/agents" => ("Agent", 0),
                _ => pending().await,
            };
            let is_watch = order.lock().contains(&kind);
            if is_watch {
                pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            order.lock().push(kind);
            if kind == "Agent" {
                asks.notify_one();
            }
            let list =
                json!({ "kind": format!("{kind}List"), "metadata": { "resourceVersion": "1" }, "items": [] });
            (StatusCode::OK, list)
        }
    });
    let (renewed, _authority) = watch::channel(String::new());
    let stop = CancellationToken::new();
    let parts = start(&context(kube), CaFile::new("").unwrap(), renewed, &stop);
    tokio::time::timeout(Duration::from_secs(600), asked.notified()).await.expect("no list of agents");
    // A pod that is made before would lack what its task asks for, and one that waits would be replaced by such a pod.
    assert_eq!(*lists.lock(), ["Pod", "Task", "Agent"]);
    stop.cancel();
    drop(parts);
}
