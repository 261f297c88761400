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

/// A namespace whose lists do not come, as one without permission, keeps no other one.
#[tokio::test(start_paused = true)]
async fn agents_of_a_namespace_wait_for_no_other() {
    let (lists, asked) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
    let asks = Arc::clone(&asked);
    let kube = api_server(move |_, path, _| {
        let (lists, asks) = (Arc::clone(&lists), Arc::clone(&asks));
        async move {
            let is_watch = lists.lock().contains(&path);
            if is_watch {
                pending::<()>().await;
            }
            lists.lock().push(path.clone());
            let kind = match path.as_str() {
                "/api/v1/namespaces/one/pods" => "Pod",
                "/apis/rota.dev/v1alpha1/namespaces/one/tasks" => "Task",
                "/apis/rota.dev/v1alpha1/namespaces/one/agents" => {
                    asks.notify_one();
                    "Agent"
                }
                _ => pending().await,
            };
            let list =
                json!({ "kind": format!("{kind}List"), "metadata": { "resourceVersion": "1" }, "items": [] });
            (StatusCode::OK, list)
        }
    });
    let mut context = context(kube);
    let namespaces = ["one", "two"].map(str::to_owned).into();
    Arc::get_mut(&mut context.options).expect("it is shared").watch_namespaces = namespaces;
    let (renewed, _authority) = watch::channel(String::new());
    let stop = CancellationToken::new();
    let parts = start(&context, CaFile::new("").unwrap(), renewed, &stop);
    tokio::time::timeout(Duration::from_secs(600), asked.notified()).await.expect("no list of agents");
    stop.cancel();
    drop(parts);
}
