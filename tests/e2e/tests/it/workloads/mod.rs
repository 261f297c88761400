//! Workloads group: large batches, the Claude Code CLI, traces.

mod batch;
mod claude;
mod traces;
