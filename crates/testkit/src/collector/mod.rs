//! An OpenTelemetry collector for tests: keeps the spans and metrics that it receives over gRPC or HTTP, and prints a
//! trace as the tree of its parent ids.

mod listen;
mod metrics;

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

pub use self::metrics::MetricSample;

/// A span as received, with ids as hexadecimal digits.
#[derive(Debug, Clone)]
pub struct ReceivedSpan {
    pub name: String,
    pub trace: String,
    pub id: String,
    pub parent: String,
    /// Attributes with their values as text.
    pub attributes: BTreeMap<String, String>,
    /// Span ids of the links.
    pub links: Vec<String>,
    /// Description of the error status, if the span failed.
    pub error: Option<String>,
    /// `client` or `server`; `None` for an internal span.
    pub side: Option<&'static str>,
    /// `service.name` of the sender.
    pub service: String,
    /// Protocol: `grpc`, `http/protobuf` or `http/json`.
    pub via: &'static str,
    started_at: u64,
}

/// A listening collector. Clones share what was received.
#[derive(Debug, Clone)]
pub struct Collector {
    addr: SocketAddr,
    scheme: &'static str,
    received: Received,
}

#[derive(Debug, Clone)]
struct Received {
    spans: Arc<watch::Sender<Vec<ReceivedSpan>>>,
    metrics: Arc<watch::Sender<Vec<MetricSample>>>,
}

impl Received {
    fn new() -> Self {
        let (spans, metrics) = (watch::channel(Vec::new()).0, watch::channel(Vec::new()).0);
        Self { spans: Arc::new(spans), metrics: Arc::new(metrics) }
    }

    fn spans(&self, request: ExportTraceServiceRequest, via: &'static str) {
        let mut new = Vec::new();
        for resource in request.resource_spans {
            let attributes = texts(resource.resource.map(|resource| resource.attributes).unwrap_or_default());
            let service = attributes.get("service.name").cloned().unwrap_or_default();
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            new.extend(spans.map(|span| ReceivedSpan {
                service: service.clone(),
                via,
                ..ReceivedSpan::from(span)
            }));
        }
        self.spans.send_modify(|seen| seen.extend(new));
    }

    fn metrics(&self, request: ExportMetricsServiceRequest, via: &'static str) {
        let new = metrics::read(request, via);
        self.metrics.send_modify(|seen| seen.extend(new));
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

impl From<Span> for ReceivedSpan {
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
            started_at: span.start_time_unix_nano,
        }
    }
}

impl Collector {
    /// Listens on loopback, on a thread that lives as long as the process.
    pub fn start() -> Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST.into())
    }

    /// Listens at another address of this machine, for clients elsewhere.
    pub fn start_at(address: IpAddr) -> Result<Self> {
        let received = Received::new();
        Ok(Self { addr: listen::on_thread(address, received.clone(), None)?, scheme: "http", received })
    }

    /// Listens on loopback with a certificate and its key as PEM.
    pub fn start_with_tls(certificate: &str, key: &str) -> Result<Self> {
        let received = Received::new();
        let tls = listen::acceptor(certificate, key)?;
        Ok(Self {
            addr: listen::on_thread(Ipv4Addr::LOCALHOST.into(), received.clone(), Some(tls))?,
            scheme: "https",
            received,
        })
    }

    /// Returns the URL of the collector.
    pub fn endpoint(&self) -> String {
        match self.addr.ip() {
            // Certificates are issued for the name.
            ip if ip.is_loopback() => format!("{}://localhost:{}", self.scheme, self.addr.port()),
            _ => format!("{}://{}", self.scheme, self.addr),
        }
    }

    /// Waits for `count` spans of a trace and returns all of them. Fails if they do not arrive in time.
    pub async fn trace(&self, trace: &str, count: usize) -> Result<Vec<ReceivedSpan>> {
        let mut seen = self.received.spans.subscribe();
        let ours = |all: &Vec<ReceivedSpan>| {
            all.iter().filter(|span| span.trace == trace).cloned().collect::<Vec<_>>()
        };
        let _ =
            tokio::time::timeout(crate::tasks::WAIT_TIMEOUT, seen.wait_for(|all| ours(all).len() >= count))
                .await;
        let spans = ours(&seen.borrow());
        anyhow::ensure!(spans.len() >= count, "expected {count} spans, received {spans:#?}");
        Ok(spans)
    }

    /// Waits until the newest sample of a metric with these labels meets a condition, and returns it.
    pub async fn metric(
        &self,
        name: &str,
        labels: &[(&str, &str)],
        condition: impl Fn(f64) -> bool,
    ) -> Result<MetricSample> {
        let mut seen = self.received.metrics.subscribe();
        let fits = |sample: &&MetricSample| {
            sample.name == name
                && labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|is| is == value))
        };
        let newest = |all: &Vec<MetricSample>| {
            all.iter().rev().find(fits).filter(|sample| condition(sample.value)).cloned()
        };
        let found =
            tokio::time::timeout(crate::tasks::WAIT_TIMEOUT, seen.wait_for(|all| newest(all).is_some()))
                .await;
        match found {
            Ok(all) => {
                let all = all?;
                newest(&all).context("the sample was just found")
            }
            Err(_) => {
                let all = self.received.metrics.borrow();
                let same: Vec<_> = all.iter().filter(|sample| sample.name == name).collect();
                anyhow::bail!("no such sample of {name} {labels:?} among {}: {same:#?}", all.len())
            }
        }
    }
}

/// Formats the tree below a span that is not part of `spans`: one span per line, indented, by start time. Fails if a
/// span has another root.
pub fn tree(spans: &[ReceivedSpan], root: &str) -> Result<String> {
    let mut lines = Vec::new();
    below(spans, root, 0, &mut lines);
    let text = lines.join("\n");
    anyhow::ensure!(lines.len() == spans.len(), "spans with another root: {text}\nof {spans:#?}");
    Ok(text)
}

fn below(spans: &[ReceivedSpan], parent: &str, depth: usize, lines: &mut Vec<String>) {
    let mut children: Vec<_> = spans.iter().filter(|span| span.parent == parent).collect();
    // Spans of the same start are sorted by name, so that `queue` comes before `attempt`.
    children.sort_by_key(|span| (span.started_at, std::cmp::Reverse(span.name.clone())));
    for span in children {
        let details: &[&str] = match span.name.as_str() {
            "task" => &["rota.task.state"],
            "attempt" => &["rota.attempt", "rota.outcome"],
            "workflow" => &["rota.workflow.state"],
            "approval" | "wait" => &["rota.step", "rota.step.state"],
            _ => &[],
        };
        let details =
            details.iter().filter_map(|name| span.attributes.get(*name).cloned()).chain(span.error.clone());
        let name = span.side.into_iter().map(str::to_owned).chain(std::iter::once(span.name.clone()));
        let words: Vec<_> = name.chain(details).filter(|word| !word.is_empty()).collect();
        lines.push(format!("{}{}", "  ".repeat(depth), words.join(" ")));
        below(spans, &span.id, depth + 1, lines);
    }
}

/// Returns the first span of a name.
pub fn named<'a>(spans: &'a [ReceivedSpan], name: &str) -> Result<&'a ReceivedSpan> {
    spans.iter().find(|span| span.name == name).with_context(|| format!("no {name} in {spans:#?}"))
}
