//! From spans to the SDK that gathers and sends them.

use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
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

use super::{Finished, Kind, Value};
use crate::otlp::{Error, Http, Protocol, Target};
use crate::trace::Context;

/// What sends spans.
#[derive(Debug)]
pub(super) struct Export {
    processor: BatchSpanProcessor,
    sampler: Box<dyn ShouldSample>,
    scope: InstrumentationScope,
    target: Target,
}

impl Export {
    pub(super) fn start(target: &Target, resource: &Resource, runtime: &Handle) -> Result<Self, Error> {
        let wrong = |error: ExporterBuildError| Error::Exporter(target.shown(&error.to_string()));
        let exporter = if target.protocol == Protocol::Grpc {
            // Its connection lives where it is made.
            let _inside = runtime.enter();
            let mut builder = SpanExporter::builder()
                .with_tonic()
                .with_endpoint(&target.endpoint)
                .with_timeout(target.timeout);
            if target.endpoint.starts_with("https://") {
                builder = builder.with_tls_config(match &target.authority {
                    Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                    None => ClientTlsConfig::new().with_native_roots(),
                });
            }
            builder.build().map_err(wrong)?
        } else {
            let builder = SpanExporter::builder().with_http().with_http_client(Http::new(target, runtime)?);
            let builder = builder.with_endpoint(&target.endpoint).with_protocol(target.protocol);
            builder.with_timeout(target.timeout).build().map_err(wrong)?
        };
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        processor.set_resource(resource);
        let scope = InstrumentationScope::builder("rota").with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Self { processor, sampler: Config::default().sampler, scope, target: target.clone() })
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
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
            span_kind: match span.kind {
                Kind::Internal => SpanKind::Internal,
                Kind::Client => SpanKind::Client,
                Kind::Server => SpanKind::Server,
            },
            name: span.name,
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
    use crate::otlp::{Settings, resource, runtime};

    fn export(endpoint: &str, protocol: Protocol) -> Export {
        let settings = Settings::to("t", endpoint, protocol);
        Export::start(settings.traces.as_ref().unwrap(), &resource("t"), &runtime().unwrap()).unwrap()
    }

    /// A process must end though its collector takes connections and never answers, and though its only runtime
    /// thread is the one that waits.
    #[tokio::test]
    async fn a_silent_collector_holds_up_nobody() {
        for protocol in [Protocol::Grpc, Protocol::HttpBinary] {
            let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let endpoint = format!("http://{}", silent.local_addr().unwrap());
            let export: &'static Export = Box::leak(Box::new(export(&endpoint, protocol)));
            export.send(Finished {
                name: "t".into(),
                trace_id: [1; 16],
                span_id: [1; 8],
                ..Finished::default()
            });
            let (done, ended) = mpsc::channel();
            std::thread::spawn(move || {
                // The SDK itself would wait for seconds, and a connection for longer.
                export.flush(Duration::from_millis(1));
                let _ = done.send(());
            });
            ended.recv_timeout(Duration::from_secs(60)).unwrap();
        }
    }

    #[tokio::test]
    async fn an_address_that_cannot_be_used_is_told_without_its_password() {
        for protocol in [Protocol::Grpc, Protocol::HttpBinary] {
            let settings = Settings::to("t", "http://me:secret@no host", protocol);
            let target = settings.traces.as_ref().unwrap();
            let failed = Export::start(target, &resource("t"), &runtime().unwrap()).unwrap_err();
            let told = format!("{failed} {failed:?}");
            assert!(!told.contains("secret"), "{told}");
        }
    }

    #[test]
    fn a_callers_word_counts_and_new_traces_are_recorded() {
        let export = export("http://127.0.0.1:1", Protocol::Grpc);
        let caller = |sampled| Context { trace_id: [1; 16], span_id: [2; 8], sampled };
        assert!(export.samples(trace_id(), None));
        assert!(export.samples([1; 16], Some(&caller(true))));
        assert!(!export.samples([1; 16], Some(&caller(false))));
    }
}
