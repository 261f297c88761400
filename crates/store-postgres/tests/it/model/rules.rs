//! Rules of the model of commits, each as the store and the server have it, or as its mutant leaves it out.

use super::commits::{Commits, Database, Entry, Sent, State};
use super::mutants::Mutant;

/// Returns the epoch of another owner or connection, greater than all that were given out before, also by a database that has lost
/// them (`RECLAIM`).
pub(super) fn next_epoch(model: &Commits, state: &State) -> u8 {
    match model.mutant {
        Some(Mutant::EpochsReissued) => state.database.epoch + 1,
        _ => state.issued,
    }
}

/// Whether the first statement of a commit succeeds (`advance`).
pub(super) fn fence_passes(model: &Commits, database: &Database, sent: &Sent) -> bool {
    let epoch = sent.epoch == database.epoch || model.mutant == Some(Mutant::EpochUnchecked);
    let revision = sent.basis.len() == database.log.len() || model.mutant == Some(Mutant::RevisionUnchecked);
    epoch && revision
}

/// Whether an owner may answer without a commit (`CONFIRM`).
pub(super) fn confirms(model: &Commits, database: &Database, epoch: u8) -> bool {
    let unchecked = [Some(Mutant::UnconfirmedAnswers), Some(Mutant::EpochUnchecked)];
    epoch == database.epoch || unchecked.contains(&model.mutant)
}

/// Whether a log contains what a run had committed up to a number (`Lineage::contains`).
pub(super) fn contains(model: &Commits, log: &[Entry], run: Option<u8>, number: usize) -> bool {
    if model.mutant == Some(Mutant::NumberWithoutRun) {
        return number <= log.len();
    }
    let Some(run) = run else { return number == 0 };
    let Some(at) = log.iter().rposition(|entry| *entry == Entry::Run(run)) else { return false };
    let later = log.iter().enumerate().skip(at + 1).find(|(_, entry)| matches!(entry, Entry::Run(_)));
    later.is_none_or(|(began, _)| began >= number)
}
