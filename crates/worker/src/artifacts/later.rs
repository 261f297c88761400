//! Stores what an attempt of an earlier process of the worker has left.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use backon::Retryable;
use rota_proto::v1::{FailureClass, event};
use rota_proto::worker::v1::{Cancelled, Result as AttemptResult, result};
use tokio::sync::watch;
use tonic::Status;

use super::calls::Caller;
use super::globs::Keep;
use super::keep::{called, in_time};
use super::left::Left;
use super::room::delays;
use super::store::{look, store};
use crate::runtimes::{Stop, failure};
use crate::workspace::AttemptDirs;

/// Stores what is left, however long that takes. Returns notices for the log, and how the attempt ends.
pub(crate) async fn store_left(
    caller: &Caller,
    left: &Left,
    dirs: &AttemptDirs,
    stop: watch::Receiver<Option<Stop>>,
) -> (Vec<event::Kind>, AttemptResult) {
    let (kept, changes) = (left.kept(), left.changes.clone());
    // They were valid when the attempt began.
    let globs = Keep::of(&kept.globs).ok();
    let look = look(dirs, globs, changes.clone().unwrap_or_default(), left.copied());
    let once = || async {
        let mut notices = Vec::new();
        store(caller, &kept, dirs, changes.clone(), look.clone(), false, &mut notices).await?;
        Ok::<_, Status>(notices)
    };
    let stored = async { once.retry(delays()).await.map_err(|status| called(&status).into()) };
    match in_time(Duration::MAX, stop, &AtomicBool::new(false), Box::pin(stored)).await {
        Ok(notices) => (notices, ended(left)),
        // It was cancelled meanwhile.
        Err(_) => {
            let kind = Some(result::Kind::Cancelled(Cancelled { by: "interrupt".to_owned() }));
            (Vec::new(), AttemptResult { kind, ..left.result.clone() })
        }
    }
}

/// Returns how an attempt ends whose files are stored: work that is to be delivered is done, and another attempt delivers it.
fn ended(left: &Left) -> AttemptResult {
    let mut ended = left.result.clone();
    if let Some(result::Kind::Succeeded(result)) = &ended.kind
        && left.delivers
    {
        let (text, result) = match left.changes {
            Some(_) => ("the worker was restarted before it could deliver the work", Some(result.clone())),
            None => ("the work is not delivered: the changes of its repository are not known", None),
        };
        ended.kind = Some(result::Kind::Failed(failure(FailureClass::Delivery, text)));
        ended.undelivered = result;
    }
    ended
}
