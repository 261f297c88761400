//! Core group: access, installation, admission, scaling, isolation, deletion, failed starts, workflows.

mod access;
mod admission;
mod deletion;
mod install;
mod isolation;
mod scaling;
mod start_failure;
mod workflow;
