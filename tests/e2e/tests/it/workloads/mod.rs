//! Workloads group: large batches, the Claude Code CLI, traces, images of their own.

mod at_rest;
mod batch;
mod claude;
mod foreign_image;
mod traces;
