//! The part of a Kubernetes API server that `--kube` uses, for real clients: lists by labels, Secrets, refusals, and ports of pods over
//! WebSocket, all of which end at one address.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::{SinkExt, StreamExt};
use percent_encoding::percent_decode_str;
use rota_telemetry::{OnExit, spawn};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

const PORT: u16 = 7420;

/// Objects of a cluster, and what its user may not do.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    services: Vec<Value>,
    pods: Vec<Value>,
    secrets: Vec<Value>,
    /// Ends of paths that are forbidden.
    forbidden: BTreeSet<&'static str>,
}

enum Answer {
    Object(u16, Value),
    Forward,
}

impl Cluster {
    /// Adds the Service of a release, with a pod that is ready.
    pub(super) fn add_release(&mut self, namespace: &str, release: &str) {
        let labels = json!({
            "app.kubernetes.io/name": "rota",
            "app.kubernetes.io/instance": release,
            "app.kubernetes.io/component": "server",
        });
        let metadata = |name: &str| json!({ "name": name, "namespace": namespace, "labels": labels });
        let ports = json!([{ "name": "grpc", "port": PORT, "targetPort": "grpc" }]);
        self.services
            .push(json!({ "metadata": metadata(release), "spec": { "selector": labels, "ports": ports } }));
        let volume = |name: &str, secret: &str| json!({ "name": name, "secret": { "secretName": secret } });
        self.pods.push(json!({
            "metadata": metadata(&format!("{release}-0")),
            "spec": {
                "containers": [{ "name": "server", "ports": [{ "name": "grpc", "containerPort": PORT }] }],
                "volumes": [volume("tls", "rota-tls"), volume("admin", "rota-admin-token")],
            },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] },
        }));
    }

    /// Adds a further pod of the first release, which is ready, too.
    pub(super) fn add_pod(&mut self, name: &str) {
        let mut pod = self.pods[0].clone();
        pod["metadata"]["name"] = json!(name);
        self.pods.push(pod);
    }

    pub(super) fn add_secret(&mut self, name: &str, key: &str, value: &str) {
        let metadata = json!({ "name": name, "namespace": "rota" });
        self.secrets.push(json!({ "metadata": metadata, "data": { key: BASE64_STANDARD.encode(value) } }));
    }

    /// Gives a Secret another value, as its owner does.
    pub(super) fn replace_secret(&mut self, name: &str, key: &str, value: &str) {
        self.secrets.retain(|secret| secret["metadata"]["name"] != name);
        self.add_secret(name, key, value);
    }

    pub(super) fn forbid(&mut self, end: &'static str) {
        self.forbidden.insert(end);
    }

    /// Gives all pods a further volume.
    pub(super) fn mount(&mut self, volume: &str, secret: &str) {
        for pod in &mut self.pods {
            let volumes = pod["spec"]["volumes"].as_array_mut().unwrap();
            volumes.push(json!({ "name": volume, "secret": { "secretName": secret } }));
        }
    }

    pub(super) fn make_unready(&mut self, reason: &str) {
        for pod in &mut self.pods {
            let waiting = json!({ "name": "server", "image": "", "imageID": "", "ready": false, "restartCount": 1,
                "state": { "waiting": { "reason": reason } } });
            pod["status"] = json!({ "phase": "Running", "containerStatuses": [waiting] });
        }
    }

    fn answer(&self, path: &str, query: &str) -> Answer {
        if self.forbidden.iter().any(|end| path.ends_with(end)) {
            return Answer::Object(403, status(403, "Forbidden", &format!("{path} is forbidden")));
        }
        let rest = path.trim_start_matches("/api/v1/");
        let parts: Vec<_> = rest.split('/').collect();
        match parts[..] {
            ["services"] => listed("ServiceList", &self.services, None, query),
            ["namespaces", namespace, "services"] => {
                listed("ServiceList", &self.services, Some(namespace), query)
            }
            ["namespaces", namespace, "pods"] => listed("PodList", &self.pods, Some(namespace), query),
            ["namespaces", _, "pods", _, "portforward"] => Answer::Forward,
            ["namespaces", namespace, "secrets", name] => {
                let mut secrets = self.secrets.iter().map(|secret| (&secret["metadata"], secret));
                let found = secrets.find(|(one, _)| one["name"] == name && one["namespace"] == namespace);
                match found {
                    Some((_, secret)) => Answer::Object(200, secret.clone()),
                    None => Answer::Object(404, status(404, "NotFound", &format!("{path} not found"))),
                }
            }
            _ => Answer::Object(404, status(404, "NotFound", &format!("{path} not found"))),
        }
    }
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": reason, "code": code })
}

/// Returns the objects of a namespace with the labels of a query.
fn listed(kind: &str, objects: &[Value], namespace: Option<&str>, query: &str) -> Answer {
    let query = percent_decode_str(query).decode_utf8_lossy();
    let wanted = query.split('&').find_map(|pair| pair.strip_prefix("labelSelector=")).unwrap_or_default();
    let has = |object: &Value| {
        let metadata = &object["metadata"];
        let mut labels = wanted.split(',').filter_map(|pair| pair.split_once('='));
        namespace.is_none_or(|namespace| metadata["namespace"] == namespace)
            && labels.all(|(label, value)| metadata["labels"][label] == value)
    };
    let items: Vec<_> = objects.iter().filter(|object| has(object)).collect();
    Answer::Object(200, json!({ "kind": kind, "apiVersion": "v1", "metadata": {}, "items": items }))
}

pub(super) struct ApiServer {
    addr: SocketAddr,
    cluster: Arc<Mutex<Cluster>>,
}

impl ApiServer {
    /// Starts a server whose pods are all at one address.
    pub(super) async fn start(pods: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let cluster = Arc::new(Mutex::new(Cluster::default()));
        let served = Arc::clone(&cluster);
        spawn("api-server", OnExit::Done, async move {
            while let Ok((stream, _)) = listener.accept().await {
                let cluster = Arc::clone(&served);
                spawn("api-server-connection", OnExit::Done, async move {
                    if let Err(error) = serve(stream, &cluster, pods).await {
                        eprintln!("API server: {error:#}");
                    }
                });
            }
        });
        Ok(Self { addr, cluster })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Cluster)) {
        change(&mut self.cluster.lock().unwrap());
    }
}

/// Answers one request, after which the connection ends.
async fn serve(mut stream: TcpStream, cluster: &Mutex<Cluster>, pods: SocketAddr) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    let target = head.split_whitespace().nth(1).context("no target")?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let answer = cluster.lock().unwrap().answer(path, query);
    match answer {
        Answer::Forward => forward(stream, &head, pods).await,
        Answer::Object(code, object) => {
            let body = object.to_string();
            let head = format!(
                "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).await?;
            Ok(stream.write_all(body.as_bytes()).await?)
        }
    }
}

/// Forwards the port of a pod: channel 0 has its bytes, and channel 1 its errors; each begins with the port.
async fn forward(mut stream: TcpStream, head: &str, pod: SocketAddr) -> Result<()> {
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    let key = headers.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    let accept = derive_accept_key(key.context("no WebSocket")?.1.trim().as_bytes());
    let switched = format!(
        "HTTP/1.1 101 X\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\
         sec-websocket-protocol: v4.channel.k8s.io\r\n\r\n"
    );
    stream.write_all(switched.as_bytes()).await?;
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    let (mut sink, mut messages) = socket.split();
    let [low, high] = PORT.to_le_bytes();
    for channel in [0, 1] {
        sink.send(Message::binary(vec![channel, low, high])).await?;
    }
    let (mut reader, mut writer) = TcpStream::connect(pod).await?.into_split();
    let outward = async {
        while let Some(message) = messages.next().await {
            if let Message::Binary(bytes) = message? {
                writer.write_all(bytes.get(1..).unwrap_or_default()).await?;
            }
        }
        anyhow::Ok(())
    };
    let inward = async {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let read = reader.read(&mut buffer).await?;
            if read == 0 {
                return anyhow::Ok(());
            }
            sink.send(Message::binary([&[0][..], &buffer[..read]].concat())).await?;
        }
    };
    tokio::select! {
        ended = outward => ended,
        ended = inward => ended,
    }
}
