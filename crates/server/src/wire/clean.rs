//! Redaction of what workers report, before it is stored. Rota's own workers have redacted it already, and know the secrets
//! of their tasks; workers in other languages may not. Knows only the shapes of keys, and sees each chunk by itself.

use std::borrow::Cow;

use rota_proto::v1::{self, event::Kind};
use rota_proto::visit_strings;
use rota_telemetry::redact;

pub(super) fn event(kind: &mut Kind) {
    if let Kind::Output(output) = kind
        && let Cow::Owned(clean) = redact::bytes(&output.data)
    {
        output.data = clean.into();
    }
    visit_strings::in_event(kind, &mut redact::text);
}

pub(crate) fn result(result: &mut v1::TaskResult) {
    visit_strings::in_result(result, &mut redact::text);
}

pub(crate) fn failure(failure: &mut v1::Failure) {
    visit_strings::in_failure(failure, &mut redact::text);
}

pub(crate) fn usage(usage: &mut v1::Usage) {
    visit_strings::in_usage(usage, &mut redact::text);
}
