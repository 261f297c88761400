//! A collector of OpenTelemetry that keeps what it is sent, by gRPC or HTTP, and shows a trace as the tree that its
//! parent ids make.

mod figures;
mod listen;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use rota_telemetry::trace::hex;
use tokio::sync::watch;

pub use self::figures::Figure;

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
    /// `client` or `server`, if it is one of these.
    pub side: Option<&'static str>,
    /// Which service sent it.
    pub service: String,
    /// By which protocol it came.
    pub via: &'static str,
    began: u64,
}

/// A collector that listens.
#[derive(Debug, Clone)]
pub struct Collector {
    addr: SocketAddr,
    scheme: &'static str,
    seen: Kept,
}

/// All that came.
#[derive(Debug, Clone)]
struct Kept {
    spans: Arc<watch::Sender<Vec<Seen>>>,
    figures: Arc<watch::Sender<Vec<Figure>>>,
}

impl Kept {
    fn new() -> Self {
        let (spans, figures) = (watch::channel(Vec::new()).0, watch::channel(Vec::new()).0);
        Self { spans: Arc::new(spans), figures: Arc::new(figures) }
    }

    fn spans(&self, request: ExportTraceServiceRequest, via: &'static str) {
        let mut new = Vec::new();
        for resource in request.resource_spans {
            let attributes = texts(resource.resource.map(|resource| resource.attributes).unwrap_or_default());
            let service = attributes.get("service.name").cloned().unwrap_or_default();
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            new.extend(spans.map(|span| Seen { service: service.clone(), via, ..Seen::from(span) }));
        }
        self.spans.send_modify(|seen| seen.extend(new));
    }

    fn figures(&self, request: ExportMetricsServiceRequest, via: &'static str) {
        let new = figures::read(request, via);
        self.figures.send_modify(|seen| seen.extend(new));
    }
}

fn texts(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<Value>| match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    pairs.into_iter().map(|pair| (pair.key, text(pair.value.and_then(|any| any.value)))).collect()
}

impl From<Span> for Seen {
    fn from(span: Span) -> Self {
        let side = match span.kind() {
            SpanKind::Client => Some("client"),
            SpanKind::Server => Some("server"),
            _ => None,
        };
        let status = span.status.filter(|status| status.code() == StatusCode::Error);
        Self {
            name: span.name,
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            attributes: texts(span.attributes),
            links: span.links.iter().map(|link| hex(&link.span_id)).collect(),
            error: status.map(|status| status.message),
            side,
            service: String::new(),
            via: "",
            began: span.start_time_unix_nano,
        }
    }
}

impl Collector {
    /// Listens on a thread of its own, as long as the process.
    pub fn start() -> Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST.into())
    }

    /// The same at an address of this machine, for what is not on it.
    pub fn start_at(address: IpAddr) -> Result<Self> {
        let seen = Kept::new();
        Ok(Self { addr: listen::on_thread(address, seen.clone(), None)?, scheme: "http", seen })
    }

    /// The same with a certificate and its key, as PEM.
    pub fn start_with_tls(certificate: &str, key: &str) -> Result<Self> {
        let seen = Kept::new();
        let tls = listen::acceptor(certificate, key)?;
        Ok(Self {
            addr: listen::on_thread(Ipv4Addr::LOCALHOST.into(), seen.clone(), Some(tls))?,
            scheme: "https",
            seen,
        })
    }

    /// Where it listens, as a URL.
    pub fn endpoint(&self) -> String {
        match self.addr.ip() {
            // A certificate is for the name.
            ip if ip.is_loopback() => format!("{}://localhost:{}", self.scheme, self.addr.port()),
            _ => format!("{}://{}", self.scheme, self.addr),
        }
    }

    /// The spans of a trace, once there are so many; sooner if they do not come in time.
    pub async fn trace(&self, trace: &str, count: usize) -> Result<Vec<Seen>> {
        let mut seen = self.seen.spans.subscribe();
        let ours =
            |all: &Vec<Seen>| all.iter().filter(|span| span.trace == trace).cloned().collect::<Vec<_>>();
        let _ =
            tokio::time::timeout(crate::tasks::PATIENCE, seen.wait_for(|all| ours(all).len() >= count)).await;
        let spans = ours(&seen.borrow());
        anyhow::ensure!(spans.len() >= count, "{count} spans were expected; there are {spans:#?}");
        Ok(spans)
    }

    /// The newest figure of this name and these labels that is as somebody wants it, once it has come.
    pub async fn figure(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        wanted: impl Fn(f64) -> bool,
    ) -> Result<Figure> {
        let mut seen = self.seen.figures.subscribe();
        let fits = |figure: &&Figure| {
            figure.name == name
                && labels.iter().all(|(key, value)| figure.labels.get(*key).is_some_and(|is| is == value))
        };
        let newest =
            |all: &Vec<Figure>| all.iter().rev().find(fits).filter(|figure| wanted(figure.value)).cloned();
        let found =
            tokio::time::timeout(crate::tasks::PATIENCE, seen.wait_for(|all| newest(all).is_some())).await;
        match found {
            Ok(all) => {
                let all = all?;
                newest(&all).context("it was there")
            }
            Err(_) => {
                let all = self.seen.figures.borrow();
                let same: Vec<_> = all.iter().filter(|figure| figure.name == name).collect();
                anyhow::bail!("no such figure: {name} {labels:?}, of {} there are {same:#?}", all.len())
            }
        }
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
        let told: &[&str] = match span.name.as_str() {
            "task" => &["rota.task.state"],
            "attempt" => &["rota.attempt", "rota.outcome"],
            _ => &[],
        };
        let told =
            told.iter().filter_map(|name| span.attributes.get(*name).cloned()).chain(span.error.clone());
        let name = span.side.into_iter().map(str::to_owned).chain(std::iter::once(span.name.clone()));
        let words: Vec<_> = name.chain(told).filter(|word| !word.is_empty()).collect();
        lines.push(format!("{}{}", "  ".repeat(depth), words.join(" ")));
        below(spans, &span.id, depth + 1, lines);
    }
}

/// The one of a name.
pub fn named<'a>(spans: &'a [Seen], name: &str) -> Result<&'a Seen> {
    spans.iter().find(|span| span.name == name).with_context(|| format!("no {name} in {spans:#?}"))
}
