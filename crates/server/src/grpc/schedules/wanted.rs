//! What a caller wants a schedule to be: the whole of it, or the parts that a mask names.

use rota_core::{Namespace, Timestamp};
use rota_proto::v1;
use tonic::Status;

use crate::wire::check;
use crate::wire::schedule::{self as wire, Checked};
use crate::wire::status::invalid;

/// What a caller wants a schedule to be.
pub(super) enum Wanted {
    Whole(Box<Checked>),
    /// These parts of the one that exists.
    Parts {
        labels: bool,
        paused: Option<bool>,
        given: Box<v1::Schedule>,
    },
}

/// Returns what an update wants, by its mask.
pub(super) fn masked(
    namespace: Namespace,
    given: v1::Schedule,
    paths: &[String],
    now: Timestamp,
) -> Result<Wanted, Status> {
    let is_whole = |path: &String| path == "*" || path == "spec";
    if paths.is_empty() || paths.iter().any(is_whole) {
        return Ok(Wanted::Whole(Box::new(wire::check(namespace, given, now)?)));
    }
    let (mut labels, mut paused) = (false, None);
    for path in paths {
        match path.as_str() {
            "labels" => labels = true,
            "spec.paused" => {
                paused = Some(given.spec.as_ref().and_then(|spec| spec.paused).unwrap_or_default());
            }
            other => {
                let why = format!(
                    "{:?} cannot be updated; labels, spec and spec.paused can",
                    check::shorten(other)
                );
                return Err(invalid("update_mask", why));
            }
        }
    }
    Ok(Wanted::Parts { labels, paused, given: Box::new(given) })
}
