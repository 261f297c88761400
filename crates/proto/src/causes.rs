//! Codes of [`Cause`](crate::v1::Cause), by which clients recognize a cause. Messages are for users and may change.

pub const AGENT_MISSING: &str = "agent_missing";
pub const ALL_DRAINING: &str = "all_draining";
pub const AT_CEILING: &str = "at_ceiling";
pub const BEHIND: &str = "behind";
pub const BREAKER_OPEN: &str = "breaker_open";
pub const BUDGET_SPENT: &str = "budget_spent";
pub const BUSY_WITH: &str = "busy_with";
pub const DELIVERY: &str = "delivery";
pub const DEPENDENCY: &str = "dependency";
pub const DEPENDENCY_MISSING: &str = "dependency_missing";
pub const DISPATCHING: &str = "dispatching";
pub const GROUP_FULL: &str = "group_full";
pub const NO_FREE_SLOT: &str = "no_free_slot";
pub const NO_WORKER: &str = "no_worker";
pub const NOT_TAKEN_YET: &str = "not_taken_yet";
pub const POOL_STARTING: &str = "pool_starting";
pub const CREDENTIAL_REJECTED: &str = "credential_rejected";
pub const RATE_LIMIT: &str = "rate_limit";
pub const RETRY_DELAY: &str = "retry_delay";
pub const START_TIME: &str = "start_time";
pub const STEP_APPROVAL: &str = "step_approval";
pub const SUSPENDED: &str = "suspended";
pub const WORKERS_CANNOT_START: &str = "workers_cannot_start";
pub const WORKERS_NOT_READY: &str = "workers_not_ready";
pub const WORKER_BREAKER_OPEN: &str = "worker_breaker_open";
pub const WORKER_NOT_READY: &str = "worker_not_ready";
