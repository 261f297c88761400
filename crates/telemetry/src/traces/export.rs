//! The way to a collector: OTLP over gRPC, set up by the `OTEL_` variables of the specification. It has a thread and a
//! runtime of its own, so that flushing cannot wait for a runtime that waits for the flush.

use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig, tonic_types};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchSpanProcessor, Config, IdGenerator, RandomIdGenerator, SamplingDecision, ShouldSample, SpanData,
    SpanEvents, SpanLinks, SpanProcessor,
};

use super::{Finished, Value};
use crate::env;
use crate::trace::Context;

/// Where spans go, and whose they are.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name of the service, unless `OTEL_SERVICE_NAME` says another.
    pub service: &'static str,
    /// The collector, unless the variables say another; `http://host:4317` or `https://…`.
    pub endpoint: Option<String>,
}

/// Spans cannot be sent as somebody wants it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The variables.
    #[error("OTEL_EXPORTER_OTLP_PROTOCOL is {0:?}; spans are sent with grpc only")]
    Protocol(String),
    /// A file.
    #[error("the file {path:?} of OTEL_EXPORTER_OTLP_CERTIFICATE cannot be read: {source}")]
    Certificate {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The exporter.
    #[error("spans cannot be sent: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The thread.
    #[error("the thread that sends spans cannot start: {0}")]
    Thread(#[from] std::io::Error),
}

/// A variable for traces, or else for everything.
fn of_traces(name: &str) -> Option<String> {
    env::var(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))
        .or_else(|| env::var(&format!("OTEL_EXPORTER_OTLP_{name}")))
}

impl Settings {
    /// What the environment asks for: nothing, unless it names a collector.
    pub fn from_env(service: &'static str) -> Option<Self> {
        let is = |name: &str, value: &str| env::var(name).is_some_and(|set| set.eq_ignore_ascii_case(value));
        let off = is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none");
        let on = of_traces("ENDPOINT").is_some() || is("OTEL_TRACES_EXPORTER", "otlp");
        (on && !off).then_some(Self { service, endpoint: None })
    }
}

/// What sends spans.
#[derive(Debug)]
pub(super) struct Export {
    processor: BatchSpanProcessor,
    sampler: Box<dyn ShouldSample>,
    scope: InstrumentationScope,
    endpoint: String,
}

impl Export {
    pub(super) fn start(settings: &Settings) -> Result<Self, Error> {
        if let Some(protocol) = of_traces("PROTOCOL").filter(|protocol| protocol != "grpc") {
            return Err(Error::Protocol(protocol));
        }
        let endpoint = settings.endpoint.clone().or_else(|| of_traces("ENDPOINT"));
        let endpoint = endpoint.unwrap_or_else(|| "http://localhost:4317".to_owned());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let exporter = {
            // Its connection lives where it is made.
            let _inside = runtime.enter();
            let mut builder = SpanExporter::builder().with_tonic().with_endpoint(&endpoint);
            if let Some(path) = of_traces("CERTIFICATE") {
                let pem = std::fs::read(&path).map_err(|source| Error::Certificate { path, source })?;
                let authority = tonic_types::transport::Certificate::from_pem(pem);
                let tls = tonic_types::transport::ClientTlsConfig::new().ca_certificate(authority);
                builder = builder.with_tls_config(tls);
            }
            builder.build()?
        };
        // It ends with the process: what it sends is waited for in `flush`.
        std::thread::Builder::new()
            .name("rota-otlp".to_owned())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        let mut resource = Resource::builder();
        if env::var("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(settings.service);
        }
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        processor.set_resource(&resource.build());
        let scope = InstrumentationScope::builder("rota").with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Self { processor, sampler: Config::default().sampler, scope, endpoint })
    }

    pub(super) fn samples(&self, trace_id: [u8; 16], caller: Option<&Context>) -> bool {
        let parent =
            caller.map(|caller| opentelemetry::Context::new().with_remote_span_context(remote(caller)));
        let trace_id = TraceId::from_bytes(trace_id);
        let sampling =
            self.sampler.should_sample(parent.as_ref(), trace_id, "task", &SpanKind::Internal, &[], &[]);
        sampling.decision == SamplingDecision::RecordAndSample
    }

    pub(super) fn send(&self, span: Finished) {
        let mut links = SpanLinks::default();
        links.links = span.links.iter().map(|link| Link::new(remote(link), Vec::new(), 0)).collect();
        let attributes = span.attributes.into_iter().map(|(name, value)| match value {
            Value::Text(text) => KeyValue::new(name, text),
            Value::Number(number) => KeyValue::new(name, number),
        });
        let context = Context { trace_id: span.trace_id, span_id: span.span_id, sampled: true };
        self.processor.on_end(SpanData {
            span_context: remote(&context),
            parent_span_id: SpanId::from_bytes(span.parent_id),
            parent_span_is_remote: true,
            span_kind: SpanKind::Internal,
            name: span.name.into(),
            start_time: time(span.began),
            end_time: time(span.ended.max(span.began)),
            attributes: attributes.collect(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: span.error.map_or(Status::Unset, Status::error),
            instrumentation_scope: self.scope.clone(),
        });
    }

    pub(super) fn for_programs(&self) -> Vec<(&'static str, String)> {
        vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", self.endpoint.clone()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".to_owned()),
        ]
    }

    /// The SDK's own limit is a setting of its own; ours holds whatever that does.
    pub(super) fn flush(&'static self, limit: Duration) {
        let (done, flushed) = mpsc::channel();
        let flushing = std::thread::Builder::new().name("rota-otlp-flush".to_owned()).spawn(move || {
            if let Err(error) = self.processor.force_flush() {
                tracing::warn!(%error, "the last spans could not be sent");
            }
            let _ = done.send(());
        });
        if flushing.is_ok() && flushed.recv_timeout(limit).is_err() {
            tracing::warn!("the last spans were not sent within {limit:?}");
        }
    }
}

fn remote(context: &Context) -> SpanContext {
    let flags = if context.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let (trace_id, span_id) = (TraceId::from_bytes(context.trace_id), SpanId::from_bytes(context.span_id));
    SpanContext::new(trace_id, span_id, flags, true, TraceState::default())
}

fn time(micros: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

pub(super) fn span_id() -> [u8; 8] {
    RandomIdGenerator::default().new_span_id().to_bytes()
}

pub(super) fn trace_id() -> [u8; 16] {
    RandomIdGenerator::default().new_trace_id().to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process must end though its collector takes connections and never answers, and though its only runtime
    /// thread is the one that waits.
    #[tokio::test]
    async fn a_silent_collector_holds_up_nobody() {
        let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let endpoint = Some(format!("http://{}", silent.local_addr().unwrap()));
        let export: &'static Export =
            Box::leak(Box::new(Export::start(&Settings { service: "t", endpoint }).unwrap()));
        export.send(Finished { name: "t", trace_id: [1; 16], span_id: [1; 8], ..Finished::default() });
        let (done, ended) = mpsc::channel();
        std::thread::spawn(move || {
            // The SDK itself would wait for seconds, and a connection for longer.
            export.flush(Duration::from_millis(1));
            let _ = done.send(());
        });
        ended.recv_timeout(Duration::from_secs(60)).unwrap();
    }

    #[test]
    fn a_callers_word_counts_and_new_traces_are_recorded() {
        let endpoint = Some("http://127.0.0.1:1".to_owned());
        let export = Export::start(&Settings { service: "t", endpoint }).unwrap();
        let caller = |sampled| Context { trace_id: [1; 16], span_id: [2; 8], sampled };
        assert!(export.samples(trace_id(), None));
        assert!(export.samples([1; 16], Some(&caller(true))));
        assert!(!export.samples([1; 16], Some(&caller(false))));
    }
}
