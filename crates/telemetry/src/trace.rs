//! W3C trace context (<https://www.w3.org/TR/trace-context/>): the position in a trace that a `traceparent` header
//! carries. Parsing and formatting are the OpenTelemetry SDK's, which accepts more than the standard: the shape of a
//! header is checked here.

use std::fmt;
use std::str::FromStr;

use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::propagation::TraceContextPropagator;

/// Length of a `traceparent` of version 00, with which those of later versions begin.
const TRACEPARENT_BYTES: usize = 55;

/// Position in a trace: trace, span, and whether the trace is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// Never zero when parsed.
    pub trace_id: [u8; 16],
    /// Never zero when parsed.
    pub span_id: [u8; 8],
    /// Whether the caller records the trace.
    pub sampled: bool,
}

/// Error for a text that is not a valid `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Presents a header value to the propagator as the headers that it looks for.
struct TraceParent<'a>(&'a str);

impl Extractor for TraceParent<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        (name == "traceparent").then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}

impl FromStr for TraceContext {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let text = text.trim();
        if !has_traceparent_shape(text) {
            return Err(Malformed);
        }
        let empty = opentelemetry::Context::new();
        let extracted = TraceContextPropagator::new().extract_with_context(&empty, &TraceParent(text));
        if !extracted.has_active_span() {
            return Err(Malformed);
        }
        let span = extracted.span();
        let context = span.span_context();
        Ok(Self {
            trace_id: context.trace_id().to_bytes(),
            span_id: context.span_id().to_bytes(),
            sampled: context.is_sampled(),
        })
    }
}

/// Returns whether a text has the shape `<version>-<32 digits>-<16 digits>-<2 digits>` in lower-case hexadecimal digits.
/// Only versions after 00 may have more, separated by a hyphen; version ff is invalid.
fn has_traceparent_shape(text: &str) -> bool {
    let Some((fields, more)) = text.as_bytes().split_at_checked(TRACEPARENT_BYTES) else { return false };
    let well_formed = fields.iter().enumerate().all(|(at, byte)| match at {
        2 | 35 | 52 => *byte == b'-',
        _ => matches!(*byte, b'0'..=b'9' | b'a'..=b'f'),
    });
    let may_have_more = !fields.starts_with(b"00");
    let ends = more.is_empty() || may_have_more && more.starts_with(b"-");
    well_formed && ends && !fields.starts_with(b"ff")
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace_id, span_id) = (TraceId::from_bytes(self.trace_id), SpanId::from_bytes(self.span_id));
        write!(f, "00-{trace_id}-{span_id}-0{}", u8::from(self.sampled))
    }
}

impl From<&TraceContext> for SpanContext {
    fn from(context: &TraceContext) -> Self {
        let (trace_id, span_id) =
            (TraceId::from_bytes(context.trace_id), SpanId::from_bytes(context.span_id));
        let flags = if context.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
        Self::new(trace_id, span_id, flags, true, TraceState::default())
    }
}

/// Formats a trace or span id as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparent_round_trips() {
        for flags in ["00", "01"] {
            let text = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
            assert_eq!(text.parse::<TraceContext>().map(|context| context.to_string()), Ok(text));
        }
    }

    #[test]
    fn later_versions_may_have_more_fields() {
        let known = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let expected = format!("00-{known}").parse::<TraceContext>().unwrap();
        for later in [format!("01-{known}"), format!("01-{known}-"), format!("fe-{known}-what.comes-next")] {
            assert_eq!(later.parse::<TraceContext>(), Ok(expected), "{later}");
        }
    }

    #[test]
    fn malformed_traceparent_is_rejected() {
        let padded = [
            format!("00-1-1-{}1", "0".repeat(50)),
            format!("01-1-1-01-{}", "x".repeat(60)),
            format!("0-+{}-b7ad6b7169203331-001", "1".repeat(31)),
        ];
        for malformed in padded {
            assert_eq!(malformed.parse::<TraceContext>(), Err(Malformed), "{malformed}");
        }
        for malformed in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x",
            "0g-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-ä-b-01",
        ] {
            assert_eq!(malformed.parse::<TraceContext>(), Err(Malformed), "{malformed}");
        }
    }
}
