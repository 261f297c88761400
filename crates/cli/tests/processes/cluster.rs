//! Control planes in clusters: `--kube` against an API server with a Service, its pod and their Secrets, which forwards ports.

mod api_server;

use anyhow::{Context, Result};
use serde_json::json;

use self::api_server::ApiServer;
use crate::Fixture;
use crate::process::Process;
use crate::responses::Response;

const VIEWER: &str = "a-token-of-viewers-that-is-long-enough";

/// A control plane with TLS, and an API server whose cluster it is in.
struct Setup {
    fixture: Fixture,
    api: ApiServer,
    _server: Process,
}

impl Setup {
    async fn start() -> Result<Self> {
        let fixture = Fixture::bare();
        let dir = fixture.dir().to_owned();
        let made = rcgen::generate_simple_self_signed(vec!["rota.rota.svc".to_owned()])?;
        std::fs::write(dir.join("tls.crt"), made.cert.pem())?;
        fixture.write_key("tls.key", made.signing_key.serialize_pem().as_bytes())?;
        fixture.write_key("viewers", VIEWER.as_bytes())?;
        let mut command = fixture.server_command(([127, 0, 0, 1], 0).into());
        command.args(["--tls-certificate", "tls.crt", "--tls-key", "tls.key", "--data-dir", "data"]);
        command.args(["--viewer-token-file", "viewers"]);
        let mut server = Process::start("server", command);
        let line = server.prints("listening on https://").await;
        let addr = line.rsplit('/').next().context("an address")?.parse()?;
        let admins = std::fs::read_to_string(dir.join("token"))?;
        let api = ApiServer::start(addr).await?;
        api.change(|cluster| {
            cluster.add_release("rota", "rota");
            cluster.add_secret("rota-tls", "ca.crt", &made.cert.pem());
            cluster.add_secret("rota-admin-token", "token", &admins);
            cluster.add_secret("of-viewers", "token", VIEWER);
        });
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{ "name": "here", "context": { "cluster": "c", "user": "u", "namespace": "team" } }],
            "clusters": [{ "name": "c", "cluster": { "server": format!("http://{}", api.addr()) } }],
            "users": [{ "name": "u", "user": { "token": "of the cluster" } }],
        });
        // JSON is YAML.
        std::fs::write(dir.join("kubeconfig"), kubeconfig.to_string())?;
        Ok(Self { fixture, api, _server: server })
    }

    async fn rota(&self, args: &[&str]) -> Response {
        let mut command = self.fixture.command(args);
        // Of another server.
        command.env("KUBECONFIG", "kubeconfig").env("ROTA_TOKEN", "wrong");
        Response::of(command, "").await
    }
}

#[tokio::test]
async fn cluster_is_reached_by_its_kubeconfig() -> Result<()> {
    let setup = Setup::start().await?;
    setup.rota(&["run", "--agent", "none", "--detach", "x", "--kube"]).await.success();
    // The namespace is that of the kubeconfig's context.
    let listed = setup.rota(&["get", "tasks", "--kube-namespace", "rota", "-o", "json"]).await.json();
    let name = listed["tasks"][0]["name"].as_str().context("a task")?;
    assert!(name.starts_with("namespaces/team/"), "{name}");
    setup
        .rota(&["get", "tasks", "--kube", "--endpoint", "http://127.0.0.1:1"])
        .await
        .failed(2, &["cannot be used"]);
    setup.rota(&["worker", "--kube", "--agent", "a"]).await.failed(2, &["cannot be used with a component"]);

    let set = ["context", "set", "mine", "--kube", "--kube-context", "here", "-n", "own"];
    setup.rota(&set).await.success();
    let named = ["get", "tasks", "--context", "mine", "-o", "json"];
    let listed = setup.rota(&named).await.json();
    assert_eq!(listed["tasks"].as_array().map_or(0, Vec::len), 0, "{listed}");
    let shown = setup.rota(&["context", "show", "mine", "-o", "json"]).await.json();
    assert_eq!((&shown["endpoint"], &shown["token"]), (&json!("kube://here"), &json!("of its cluster")));
    setup.rota(&["login", "mine"]).await.failed(2, &["token of its cluster", "--endpoint"]);
    let doctor = setup.rota(&["doctor", "--kube"]).await;
    assert!(doctor.out.contains("the cluster"), "{doctor:?}");

    // A token that is given is used in place of that of the Secret.
    let given = ["get", "tasks", "--kube", "--token-file", "wrong"];
    std::fs::write(setup.fixture.dir().join("wrong"), "not-a-token-of-this-server-at-all")?;
    setup.rota(&given).await.failed(5, &["token"]);
    Ok(())
}

#[tokio::test]
async fn troubles_of_clusters_name_their_cause() -> Result<()> {
    let setup = Setup::start().await?;
    let bare = setup.fixture.rota(&["get", "tasks", "--kube"]).await;
    bare.failed(2, &["failed to use the kubeconfig", "KUBECONFIG"]);
    setup
        .rota(&["get", "tasks", "--kube-context", "missing"])
        .await
        .failed(2, &["missing", "--kube-context"]);
    let elsewhere = ["get", "tasks", "--kube-namespace", "elsewhere"];
    setup.rota(&elsewhere).await.failed(4, &["no Service", "elsewhere", "helm list"]);

    setup.api.change(|cluster| cluster.add_release("blue", "blue"));
    let several = ["get", "tasks", "--kube"];
    setup.rota(&several).await.failed(2, &["several", "blue/blue", "rota/rota", "--kube-release"]);
    let one = ["get", "tasks", "--kube-release", "rota"];
    setup.rota(&one).await.success();

    // Who may not list all Services has those of the kubeconfig's namespace.
    setup.api.change(|cluster| cluster.forbid("/api/v1/services"));
    setup.rota(&several).await.failed(4, &["no Service", "--kube-namespace"]);
    let here = ["get", "tasks", "--kube-namespace", "rota"];
    setup.rota(&here).await.success();

    setup.api.change(|cluster| cluster.forbid("/secrets/rota-admin-token"));
    let forbidden = setup.rota(&here).await;
    forbidden
        .failed(5, &["forbidden", "kubectl auth can-i get secrets/rota-admin-token -n rota", "--token-file"]);
    // Who may read the token of viewers alone reads.
    setup.api.change(|cluster| cluster.mount("viewers", "of-viewers"));
    setup.rota(&here).await.success();
    let run = ["run", "--agent", "none", "--detach", "x", "--kube-namespace", "rota"];
    setup.rota(&run).await.failed(5, &["a viewer may not"]);

    setup.api.change(|cluster| cluster.forbid("/portforward"));
    setup.rota(&here).await.failed(5, &["forward a port", "--subresource=portforward"]);
    setup.api.change(|cluster| cluster.make_unready("CrashLoopBackOff"));
    setup
        .rota(&here)
        .await
        .failed(5, &["no pod of the Service rota/rota is ready", "CrashLoopBackOff", "describe pods"]);
    Ok(())
}
