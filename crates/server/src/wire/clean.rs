//! Keys are taken out of what workers tell before it is kept. Ours have done that already, and know their task's
//! secrets; workers in other languages may not. Knows shapes of keys alone, and sees each piece of output by itself.

use std::borrow::Cow;

use rota_proto::texts;
use rota_proto::v1::{self, event::Kind};
use rota_telemetry::redact;

/// A text.
pub(crate) fn text(text: &mut String) {
    if let Cow::Owned(clean) = redact::own(text.as_bytes()) {
        *text = String::from_utf8_lossy(&clean).into_owned();
    }
}

/// What happened.
pub(super) fn event(kind: &mut Kind) {
    if let Kind::Output(output) = kind
        && let Cow::Owned(clean) = redact::own(&output.data)
    {
        output.data = clean.into();
    }
    texts::of_event(kind, &mut text);
}

/// How it ended well.
pub(crate) fn result(result: &mut v1::TaskResult) {
    texts::of_result(result, &mut text);
}

/// How it ended badly.
pub(crate) fn failure(failure: &mut v1::Failure) {
    texts::of_failure(failure, &mut text);
}

/// What it used.
pub(crate) fn usage(usage: &mut v1::Usage) {
    texts::of_usage(usage, &mut text);
}
