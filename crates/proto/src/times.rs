//! Times of control planes by which workers choose their own.

use std::time::Duration;

/// Time between sweeps of the storage of artifacts, after which parts of removed tasks have become free.
pub const FREED_AFTER: Duration = Duration::from_secs(3600);

/// Time after which the disk of a worker that is to store files counts as lost.
pub const MAX_STORING_TIME: Duration = Duration::from_hours(7 * 24);

/// Longest time between two uploads of a worker whose files were refused, without jitter, which at most doubles it.
pub const UPLOAD_DELAY: Duration = Duration::from_secs(300);

/// Time from the request to end to the kill, for tasks without a `cancelGrace`.
pub const DEFAULT_CANCEL_GRACE: Duration = Duration::from_secs(10);

/// Longest wait for a limit of the model API to be lifted: longer than the period of any, so that only nonsense is cut.
pub const MAX_RESET: Duration = Duration::from_hours(32 * 24);

/// Time beyond the cancellation grace for a worker to confirm the end of an attempt.
pub const CONFIRM_SLACK: Duration = Duration::from_secs(30);
