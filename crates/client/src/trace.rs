//! Trace context of the caller, and client spans of the calls that create tasks.

use http::Uri;
use rota_telemetry::trace::TraceContext;
use rota_telemetry::traces::SpanKind;
use rota_telemetry::traces::rpc::RpcSpan;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};

use crate::{Client, Error};

/// Trace that a client's creations belong to.
#[derive(Debug, Clone, Default)]
pub(crate) struct CallerTrace {
    parent: Option<TraceContext>,
    state: Option<MetadataValue<Ascii>>,
}

/// Span of a creation, over all its tries.
pub(crate) struct CreationSpan {
    span: RpcSpan,
    traceparent: Option<MetadataValue<Ascii>>,
    tracestate: Option<MetadataValue<Ascii>>,
}

impl Client {
    /// Returns this client with the trace context of a caller (W3C `traceparent` and `tracestate`): tasks that it
    /// creates become part of that trace. An invalid context is ignored, since a task matters more than its trace.
    #[must_use]
    pub fn in_trace(&self, traceparent: Option<&str>, tracestate: Option<&str>) -> Self {
        let parent = traceparent.and_then(|text| text.parse().ok());
        let state = tracestate.filter(|_| parent.is_some()).and_then(|text| text.parse().ok());
        let mut client = self.clone();
        client.trace = CallerTrace { parent, state };
        client
    }

    pub(crate) fn start_creation(&self, method: &'static str) -> CreationSpan {
        let mut span = RpcSpan::start(method, SpanKind::Client, self.trace.parent.as_ref());
        if span.span().is_recording()
            && let Some(host) = self.options.endpoint.parse::<Uri>().ok().as_ref().and_then(Uri::host)
        {
            span.span().set_attribute("server.address", host);
        }
        let traceparent = span.context().and_then(|context| context.to_string().parse().ok());
        CreationSpan { span, traceparent, tracestate: self.trace.state.clone() }
    }
}

impl CreationSpan {
    /// Wraps a message in a request with the trace headers.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        for (name, value) in [("traceparent", &self.traceparent), ("tracestate", &self.tracestate)] {
            if let Some(value) = value {
                request.metadata_mut().insert(name, value.clone());
            }
        }
        request
    }

    pub(crate) fn finish<T>(self, result: &Result<T, Error>) {
        self.span.finish(result.as_ref().err().map_or(0, |error| error.code as i32));
    }
}
