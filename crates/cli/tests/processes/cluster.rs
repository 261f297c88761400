//! Control planes in clusters: `--kube` against an API server with a Service, its pod and their Secrets, which forwards ports.

mod api_server;
mod connect_proxy;

use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::process::Command;

use self::api_server::ApiServer;
use self::connect_proxy::ConnectProxy;
use crate::Fixture;
use crate::process::Process;
use crate::responses::Response;

/// Token of admins after a replacement.
const ANOTHER: &str = "another-token-for-tests-that-is-long-enough";
const VIEWER: &str = "a-token-of-viewers-that-is-long-enough";

/// A control plane with TLS, and an API server whose cluster it is in.
struct Setup {
    fixture: Fixture,
    api: ApiServer,
    addr: SocketAddr,
    server: Option<Process>,
}

/// Starts a control plane with a certificate of its own, and returns its address and the certificate.
async fn serve(fixture: &Fixture, addr: SocketAddr) -> Result<(Process, SocketAddr, String)> {
    let made = rcgen::generate_simple_self_signed(vec!["rota.rota.svc".to_owned()])?;
    std::fs::write(fixture.dir().join("tls.crt"), made.cert.pem())?;
    fixture.write_key("tls.key", made.signing_key.serialize_pem().as_bytes())?;
    let mut command = fixture.server_command(addr);
    command.args(["--tls-certificate", "tls.crt", "--tls-key", "tls.key", "--data-dir", "data"]);
    command.args(["--viewer-token-file", "viewers"]);
    let mut server = Process::start("server", command);
    let line = server.prints("listening on https://").await;
    let addr = line.rsplit('/').next().context("an address")?.parse()?;
    Ok((server, addr, made.cert.pem()))
}

impl Setup {
    async fn start() -> Result<Self> {
        let fixture = Fixture::bare();
        fixture.write_key("viewers", VIEWER.as_bytes())?;
        let (server, addr, certificate) = serve(&fixture, ([127, 0, 0, 1], 0).into()).await?;
        let admins = std::fs::read_to_string(fixture.dir().join("token"))?;
        let api = ApiServer::start(addr).await?;
        api.change(|cluster| {
            cluster.add_release("rota", "rota");
            cluster.add_secret("rota-tls", "ca.crt", &certificate);
            cluster.add_secret("rota-admin-token", "token", &admins);
            cluster.add_secret("of-viewers", "token", VIEWER);
        });
        let setup = Self { fixture, api, addr, server: Some(server) };
        setup.write_kubeconfig("here", json!({ "server": format!("http://{}", setup.api.addr()) }))?;
        Ok(setup)
    }

    /// Writes a kubeconfig with the contexts `here`, of a cluster, and `elsewhere`, of one that does not answer.
    fn write_kubeconfig(&self, current: &str, cluster: Value) -> Result<()> {
        let context = |name: &str, cluster: &str| {
            let context = json!({ "cluster": cluster, "user": "u", "namespace": "team" });
            json!({ "name": name, "context": context })
        };
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": current,
            "contexts": [context("here", "c"), context("elsewhere", "d")],
            "clusters": [
                { "name": "c", "cluster": cluster },
                { "name": "d", "cluster": { "server": "http://127.0.0.1:1" } },
            ],
            "users": [{ "name": "u", "user": { "token": "of the cluster" } }],
        });
        // JSON is YAML.
        Ok(std::fs::write(self.fixture.dir().join("kubeconfig"), kubeconfig.to_string())?)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.fixture.command(args);
        // Of another server.
        command.env("KUBECONFIG", "kubeconfig").env("ROTA_TOKEN", "wrong");
        command
    }

    async fn rota(&self, args: &[&str]) -> Response {
        Response::of(self.command(args), "").await
    }

    /// Lets a control plane with another certificate and another token take the place of this one.
    async fn replace_credentials(&mut self) -> Result<()> {
        self.server.take().context("no server")?.kill().await;
        std::fs::write(self.fixture.dir().join("token"), ANOTHER)?;
        let (server, _, certificate) = serve(&self.fixture, self.addr).await?;
        self.server = Some(server);
        self.api.change(|cluster| {
            cluster.replace_secret("rota-tls", "ca.crt", &certificate);
            cluster.replace_secret("rota-admin-token", "token", ANOTHER);
        });
        Ok(())
    }
}

#[tokio::test]
async fn replaced_certificates_and_tokens_are_read_again() -> Result<()> {
    let mut setup = Setup::start().await?;
    let run = setup.rota(&["run", "--agent", "none", "--detach", "x", "--kube", "-o", "json"]).await.json();
    let id = run["uid"].as_str().context("an id")?;
    let mut watch = Process::start("watch", setup.command(&["watch", id, "--kube"]));
    watch.prints("Pending").await;
    setup.replace_credentials().await?;
    setup.rota(&["cancel", id, "--kube"]).await.success();
    let ended = watch.ended().await;
    assert_eq!(ended.status.code(), Some(3), "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn proxies_of_the_environment_have_exceptions() -> Result<()> {
    let setup = Setup::start().await?;
    let proxy = ConnectProxy::start(setup.api.addr()).await?;
    let rota = async |exceptions: &str| {
        let mut command = setup.command(&["get", "tasks", "--kube"]);
        command.env("HTTPS_PROXY", format!("http://{}", proxy.addr())).env("NO_PROXY", exceptions);
        Response::of(command, "").await
    };
    rota("other.corp").await.success();
    assert!(proxy.targets().is_empty(), "none is used for this machine");
    // An address that only the proxy knows, which is no exception itself.
    setup.write_kubeconfig("here", json!({ "server": "http://cluster.invalid:6443" }))?;
    rota("127.0.0.1,other.corp").await.success();
    let used = proxy.targets();
    assert!(!used.is_empty());
    for exceptions in ["cluster.invalid", "other.corp, cluster.invalid", "*"] {
        rota(exceptions).await.failed(5, &["failed to find the control plane"]);
    }
    assert_eq!(proxy.targets(), used);
    rota("localhost,other.corp,").await.failed(2, &["NO_PROXY", "empty", "NO_PROXY=localhost,other.corp\n"]);
    Ok(())
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

#[tokio::test]
async fn pod_that_cannot_be_reached_is_left_out() -> Result<()> {
    let setup = Setup::start().await?;
    setup.api.change(|cluster| {
        cluster.forbid("/pods/rota-0/portforward");
        cluster.add_pod("rota-1");
    });
    setup.rota(&["get", "tasks", "--kube"]).await.success();
    setup.api.change(|cluster| cluster.forbid("/portforward"));
    // The first error is that of the first pod.
    setup.rota(&["get", "tasks", "--kube"]).await.failed(5, &["forward a port to the pod rota/rota-0"]);
    Ok(())
}

#[tokio::test]
async fn cluster_is_reached_through_its_proxy() -> Result<()> {
    let setup = Setup::start().await?;
    let proxy = ConnectProxy::start(setup.api.addr()).await?;
    // An address that only the proxy knows.
    let cluster =
        json!({ "server": "http://cluster.invalid:6443", "proxy-url": format!("http://{}", proxy.addr()) });
    setup.write_kubeconfig("here", cluster)?;
    setup.rota(&["get", "tasks", "--kube"]).await.success();
    assert!(proxy.targets().iter().all(|target| target == "cluster.invalid:6443"), "{:?}", proxy.targets());
    assert!(!proxy.targets().is_empty());
    Ok(())
}

#[tokio::test]
async fn kept_token_stays_with_its_cluster() -> Result<()> {
    let setup = Setup::start().await?;
    let token = setup.fixture.dir().join("token");
    let token = token.to_str().context("a path")?;
    setup.rota(&["context", "set", "mine", "--kube", "--token-file", token]).await.success();
    let named = ["get", "tasks", "--context", "mine"];
    setup.rota(&named).await.success();
    let shown = setup.rota(&["context", "show", "mine", "-o", "json"]).await.json();
    assert_eq!(shown["endpoint"], json!("kube://here"));
    // The current context of kubectl is another one by now.
    setup.write_kubeconfig("elsewhere", json!({ "server": format!("http://{}", setup.api.addr()) }))?;
    setup.rota(&named).await.success();
    // Without a token of its own, a context follows it.
    setup.rota(&["context", "set", "open", "--kube"]).await.success();
    let shown = setup.rota(&["context", "show", "open", "-o", "json"]).await.json();
    assert_eq!(shown["endpoint"], json!("kube://-"));
    Ok(())
}

#[tokio::test]
async fn flags_that_cannot_be_meant_are_refused() -> Result<()> {
    let setup = Setup::start().await?;
    for flag in ["--kube-context", "--kube-namespace", "--kube-release", "--context", "--endpoint"] {
        setup.rota(&["get", "tasks", flag, ""]).await.failed(2, &[flag]);
    }
    for command in ["login", "logout"] {
        setup.rota(&[command, "--kube"]).await.failed(2, &["neither --endpoint nor --kube", "Ingress"]);
        let named = [command, "--endpoint", "https://rota.example"];
        setup
            .rota(&named)
            .await
            .failed(2, &["neither", "rota context set NAME --endpoint https://rota.example"]);
    }
    Ok(())
}
