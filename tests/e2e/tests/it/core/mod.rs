//! Core group: installation, admission, scaling, isolation, deletion, failed starts.

mod admission;
mod deletion;
mod install;
mod isolation;
mod scaling;
mod start_failure;
