//! Span export through the OpenTelemetry SDK: sampling, batching and OTLP are the SDK's.

use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind as OtelSpanKind, Status, TraceContextExt, TraceId,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use opentelemetry_otlp::{
    ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchSpanProcessor, Config, IdGenerator, RandomIdGenerator, SamplingDecision, ShouldSample, SpanData,
    SpanEvents, SpanLinks, SpanProcessor,
};
use tokio::runtime::Handle;

use super::{Finished, SpanKind, Value};
use crate::otlp::{Error, HttpTransport, Protocol, Target};
use crate::trace::TraceContext;

#[derive(Debug)]
pub(super) struct Exporter {
    processor: BatchSpanProcessor,
    sampler: Box<dyn ShouldSample>,
    scope: InstrumentationScope,
}

impl Exporter {
    pub(super) fn start(target: &Target, resource: &Resource, runtime: &Handle) -> Result<Self, Error> {
        let failed = |error: ExporterBuildError| Error::Exporter(target.without_password(&error.to_string()));
        let exporter = if target.protocol == Protocol::Grpc {
            // The connection is driven by the runtime that it is created on.
            let _inside = runtime.enter();
            let mut builder = SpanExporter::builder()
                .with_tonic()
                .with_endpoint(&target.endpoint)
                .with_timeout(target.timeout);
            if target.endpoint.starts_with("https://") {
                builder = builder.with_tls_config(match &target.ca {
                    Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                    None => ClientTlsConfig::new().with_native_roots(),
                });
            }
            builder.build().map_err(failed)?
        } else {
            let client = HttpTransport::new(target, runtime)?;
            let builder = SpanExporter::builder().with_http().with_http_client(client);
            let builder = builder.with_endpoint(&target.endpoint).with_protocol(target.protocol);
            builder.with_timeout(target.timeout).build().map_err(failed)?
        };
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        processor.set_resource(resource);
        let scope = InstrumentationScope::builder("rota").with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Self { processor, sampler: Config::default().sampler, scope })
    }

    /// Asks the sampler of the `OTEL_TRACES_SAMPLER` variables.
    pub(super) fn is_sampled(&self, trace_id: [u8; 16], caller: Option<&TraceContext>) -> bool {
        let parent = caller
            .map(|caller| opentelemetry::Context::new().with_remote_span_context(SpanContext::from(caller)));
        let trace_id = TraceId::from_bytes(trace_id);
        let kind = OtelSpanKind::Internal;
        let result = self.sampler.should_sample(parent.as_ref(), trace_id, "task", &kind, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }

    /// Queues a span for the next batch. Never waits; the SDK drops spans when its queue is full.
    pub(super) fn export(&self, span: Finished) {
        let mut links = SpanLinks::default();
        links.links = span.links.iter().map(|link| Link::new(link.into(), Vec::new(), 0)).collect();
        let attributes = span.attributes.into_iter().map(|(name, value)| match value {
            Value::Text(text) => KeyValue::new(name, text),
            Value::Number(number) => KeyValue::new(name, number),
        });
        let context = TraceContext { trace_id: span.trace_id, span_id: span.span_id, sampled: true };
        self.processor.on_end(SpanData {
            span_context: SpanContext::from(&context),
            parent_span_id: SpanId::from_bytes(span.parent_id),
            parent_span_is_remote: true,
            span_kind: match span.kind {
                SpanKind::Internal => OtelSpanKind::Internal,
                SpanKind::Client => OtelSpanKind::Client,
                SpanKind::Server => OtelSpanKind::Server,
            },
            name: span.name,
            start_time: system_time(span.began),
            end_time: system_time(span.ended.max(span.began)),
            attributes: attributes.collect(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: span.error.map_or(Status::Unset, Status::error),
            instrumentation_scope: self.scope.clone(),
        });
    }

    /// Exports what is queued, on a thread that is abandoned after `timeout`: the SDK has only a timeout of its own.
    pub(super) fn flush(&'static self, timeout: Duration) {
        let (done, flushed) = mpsc::channel();
        let flushing = std::thread::Builder::new().name("rota-otlp-flush".to_owned()).spawn(move || {
            if let Err(error) = self.processor.force_flush() {
                tracing::warn!(%error, "the last span export failed");
            }
            let _ = done.send(());
        });
        if flushing.is_ok() && flushed.recv_timeout(timeout).is_err() {
            tracing::warn!(?timeout, "the last span export did not finish in time");
        }
    }
}

fn system_time(micros: i64) -> SystemTime {
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
    use crate::otlp::{Settings, resource, start_runtime};

    fn exporter(endpoint: &str, protocol: Protocol) -> Exporter {
        let settings = Settings::for_endpoint("t", endpoint, protocol);
        Exporter::start(settings.traces.as_ref().unwrap(), &resource("t"), &start_runtime().unwrap()).unwrap()
    }

    /// The collector accepts connections and never answers, and the only runtime thread is the one that waits.
    #[tokio::test]
    async fn silent_collector_does_not_delay_exit() {
        for protocol in [Protocol::Grpc, Protocol::HttpBinary] {
            let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let endpoint = format!("http://{}", silent.local_addr().unwrap());
            let exporter: &'static Exporter = Box::leak(Box::new(exporter(&endpoint, protocol)));
            exporter.export(Finished {
                name: "t".into(),
                trace_id: [1; 16],
                span_id: [1; 8],
                ..Finished::default()
            });
            let (done, ended) = mpsc::channel();
            std::thread::spawn(move || {
                // The SDK alone would wait for seconds, and a connection for longer.
                exporter.flush(Duration::from_millis(1));
                let _ = done.send(());
            });
            ended.recv_timeout(Duration::from_secs(60)).unwrap();
        }
    }

    #[tokio::test]
    async fn invalid_endpoint_error_hides_password() {
        for protocol in [Protocol::Grpc, Protocol::HttpBinary] {
            let settings = Settings::for_endpoint("t", "http://me:secret@no host", protocol);
            let target = settings.traces.as_ref().unwrap();
            let error = Exporter::start(target, &resource("t"), &start_runtime().unwrap()).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn sampling_follows_caller_and_records_new_traces() {
        let exporter = exporter("http://127.0.0.1:1", Protocol::Grpc);
        let caller = |sampled| TraceContext { trace_id: [1; 16], span_id: [2; 8], sampled };
        assert!(exporter.is_sampled(trace_id(), None));
        assert!(exporter.is_sampled([1; 16], Some(&caller(true))));
        assert!(!exporter.is_sampled([1; 16], Some(&caller(false))));
    }
}
