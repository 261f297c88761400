//! Times of control planes by which workers choose their own.

use std::time::Duration;

/// Time between sweeps of the storage of artifacts, after which parts of removed tasks have become free.
pub const FREED_AFTER: Duration = Duration::from_secs(3600);

/// Time after which the disk of a worker that is to store files counts as lost.
pub const MAX_STORING_TIME: Duration = Duration::from_hours(7 * 24);

/// Time beyond the cancellation grace for a worker to confirm the end of an attempt.
pub const CONFIRM_SLACK: Duration = Duration::from_secs(30);
