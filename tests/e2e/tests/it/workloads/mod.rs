//! Workloads group: large batches, the Claude Code CLI, traces, images of their own.

mod batch;
mod claude;
mod fleet;
mod foreign_image;
mod traces;
