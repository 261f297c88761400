//! A collector of OpenTelemetry spans that keeps what it is sent, and shows a trace as the tree that its parent ids make.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode};
use rota_telemetry::trace::hex;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// What was sent of one span.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// Its trace, as hexadecimal digits.
    pub trace: String,
    /// Its id.
    pub id: String,
    /// Its parent's id.
    pub parent: String,
    /// Its attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// Ids of the spans that it is linked with.
    pub links: Vec<String>,
    /// Whether it failed, and with what.
    pub error: Option<String>,
    began: u64,
}

/// A collector that listens.
#[derive(Debug, Clone)]
pub struct Collector {
    addr: SocketAddr,
    seen: Arc<watch::Sender<Vec<Seen>>>,
}

struct Service(Arc<watch::Sender<Vec<Seen>>>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let spans = resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans);
        let new: Vec<_> = spans.map(Seen::from).collect();
        self.0.send_modify(|seen| seen.extend(new));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl From<Span> for Seen {
    fn from(span: Span) -> Self {
        let text = |value: Option<Value>| match value {
            Some(Value::StringValue(text)) => text,
            Some(Value::IntValue(number)) => number.to_string(),
            other => format!("{other:?}"),
        };
        let attributes = span.attributes.into_iter();
        let status = span.status.filter(|status| status.code() == StatusCode::Error);
        Self {
            name: span.name,
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            attributes: attributes
                .map(|pair| (pair.key, text(pair.value.and_then(|any| any.value))))
                .collect(),
            links: span.links.iter().map(|link| hex(&link.span_id)).collect(),
            error: status.map(|status| status.message),
            began: span.start_time_unix_nano,
        }
    }
}

impl Collector {
    /// Listens on a thread of its own, as long as the process.
    pub fn start() -> Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let seen = Arc::new(watch::channel(Vec::new()).0);
        let service = TraceServiceServer::new(Service(Arc::clone(&seen)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("collector".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
                anyhow::Ok(
                    tonic::transport::Server::builder()
                        .add_service(service)
                        .serve_with_incoming(incoming)
                        .await?,
                )
            })
        })?;
        Ok(Self { addr, seen })
    }

    /// Where it listens, as a URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The spans of a trace, once there are so many; sooner if they do not come in time.
    pub async fn trace(&self, trace: &str, count: usize) -> Result<Vec<Seen>> {
        let mut seen = self.seen.subscribe();
        let ours =
            |all: &Vec<Seen>| all.iter().filter(|span| span.trace == trace).cloned().collect::<Vec<_>>();
        let _ =
            tokio::time::timeout(crate::tasks::PATIENCE, seen.wait_for(|all| ours(all).len() >= count)).await;
        let spans = ours(&seen.borrow());
        anyhow::ensure!(spans.len() >= count, "{count} spans were expected; there are {spans:#?}");
        Ok(spans)
    }
}

/// The tree below a span that is not there itself, a span a line, indented, in the order of their beginnings. Fails
/// where a span hangs nowhere.
pub fn tree(spans: &[Seen], root: &str) -> Result<String> {
    let mut lines = Vec::new();
    below(spans, root, 0, &mut lines);
    let text = lines.join("\n");
    anyhow::ensure!(lines.len() == spans.len(), "some hang elsewhere: {text}\nof {spans:#?}");
    Ok(text)
}

fn below(spans: &[Seen], parent: &str, depth: usize, lines: &mut Vec<String>) {
    let mut children: Vec<_> = spans.iter().filter(|span| span.parent == parent).collect();
    // What begins together is told by its name: a wait comes before what ends it.
    children.sort_by_key(|span| (span.began, std::cmp::Reverse(span.name.clone())));
    for span in children {
        let told = ["rota.attempt", "rota.outcome", "rota.task.state"];
        let told =
            told.iter().filter_map(|name| span.attributes.get(*name).cloned()).chain(span.error.clone());
        let words: Vec<_> = std::iter::once(span.name.clone()).chain(told).collect();
        lines.push(format!("{}{}", "  ".repeat(depth), words.join(" ")));
        below(spans, &span.id, depth + 1, lines);
    }
}

/// The one of a name.
pub fn named<'a>(spans: &'a [Seen], name: &str) -> Result<&'a Seen> {
    spans.iter().find(|span| span.name == name).with_context(|| format!("no {name} in {spans:#?}"))
}
