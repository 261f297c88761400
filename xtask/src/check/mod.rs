//! `cargo xtask check`: runs all checks of this crate. Each check is a file of its own that returns problems as sentences.

mod directions;
mod failure_modes;
mod protos;
mod server_modules;
mod worker_files;
mod worker_modules;

use crate::workspace;

/// Runs every check, and returns all problems.
pub(crate) fn run() -> anyhow::Result<Vec<String>> {
    let mut problems = directions::check(&workspace::metadata()?)?;
    let pool = crate::protos::pool()?;
    problems.extend(protos::check(&pool));
    problems.extend(protos::unused_exceptions(&pool));
    problems.extend(failure_modes::check()?);
    problems.extend(server_modules::check()?);
    problems.extend(worker_files::check()?);
    problems.extend(worker_modules::check()?);
    problems.extend(crate::docs::crds(true)?);
    Ok(problems)
}
