//! Conversion between the API and the core: validates requests, builds responses. Holds no state.

pub(crate) mod agent;
pub(crate) mod breaker;
pub(crate) mod budget;
pub(crate) mod check;
pub(crate) mod clean;
pub(crate) mod etag;
pub(crate) mod event;
pub(crate) mod failure;
pub(crate) mod kind;
pub(crate) mod merge;
pub(crate) mod names;
pub(crate) mod overrides;
pub(crate) mod permission_rule;
mod pull_request;
pub(crate) mod schedule;
pub(crate) mod scheduled_workflow;
pub(crate) mod schema;
pub(crate) mod spec;
pub(crate) mod status;
pub(crate) mod target;
pub(crate) mod task;
pub(crate) mod task_row;
pub(crate) mod template;
pub(crate) mod time;
pub(crate) mod workflow;
