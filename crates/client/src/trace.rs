//! Whose trace a client's creations are a part of, and the spans of those calls.

use http::Uri;
use rota_telemetry::trace::Context;
use rota_telemetry::traces::Kind;
use rota_telemetry::traces::rpc::Call;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};

use crate::{Client, Error};

/// A place in somebody's trace.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    parent: Option<Context>,
    state: Option<MetadataValue<Ascii>>,
}

/// A creation that is under way, over all its repetitions.
pub(crate) struct Creation {
    call: Call,
    header: Option<MetadataValue<Ascii>>,
    state: Option<MetadataValue<Ascii>>,
}

impl Client {
    /// This client, with creations that are a part of somebody's trace: a W3C `traceparent`, and its `tracestate`. What
    /// is no trace context is left out: a task matters more than its trace.
    #[must_use]
    pub fn in_trace(&self, traceparent: Option<&str>, tracestate: Option<&str>) -> Self {
        let parent = traceparent.and_then(|text| text.parse().ok());
        let state = tracestate.filter(|_| parent.is_some()).and_then(|text| text.parse().ok());
        let mut client = self.clone();
        client.place = Place { parent, state };
        client
    }

    pub(crate) fn creation(&self, method: &'static str) -> Creation {
        let mut call = Call::begin(method, Kind::Client, self.place.parent.as_ref());
        if call.span().is_seen()
            && let Some(host) = self.options.endpoint.parse::<Uri>().ok().as_ref().and_then(Uri::host)
        {
            call.span().set("server.address", host);
        }
        let header = call.context().and_then(|context| context.to_string().parse().ok());
        Creation { call, header, state: self.place.state.clone() }
    }
}

impl Creation {
    /// A message that says whose trace it is a part of.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        for (name, value) in [("traceparent", &self.header), ("tracestate", &self.state)] {
            if let Some(value) = value {
                request.metadata_mut().insert(name, value.clone());
            }
        }
        request
    }

    /// How it ended.
    pub(crate) fn ended<T>(self, answer: &Result<T, Error>) {
        self.call.answered(answer.as_ref().err().map_or(0, |error| error.code as i32));
    }
}
