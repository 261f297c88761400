//! Rules that the model of commits can leave out, what is violated without each, and the bounds of the exploration.

/// Rule that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutant {
    /// The fence counts rows and raises no error: what was sent behind it is executed.
    CountingFence,
    EpochUnchecked,
    RevisionUnchecked,
    AnswerBeforeCommit,
    /// A commit in doubt is taken for made if the shard still has its owner.
    DoubtTakenForMade,
    /// Epochs count by one from that of the database, also after it has lost some.
    EpochsReissued,
    UnconfirmedAnswers,
    /// A watcher continues with what is new.
    NoResumeNumber,
    /// A watcher continues from its number in any history.
    NumberWithoutRun,
}

pub(super) const KEPT: &str = "what was acknowledged is kept";
pub(super) const ONCE: &str = "no operation is executed twice";
pub(super) const ONE_HISTORY: &str = "a commit follows the log that its sender knows";
pub(super) const UP_TO_DATE: &str = "answers have what was acknowledged before";
pub(super) const COMPLETE: &str = "watchers have seen what their replica knows, up to their position";

impl Mutant {
    pub(super) const ALL: [Self; 9] = [
        Self::CountingFence,
        Self::EpochUnchecked,
        Self::RevisionUnchecked,
        Self::AnswerBeforeCommit,
        Self::DoubtTakenForMade,
        Self::EpochsReissued,
        Self::UnconfirmedAnswers,
        Self::NoResumeNumber,
        Self::NumberWithoutRun,
    ];

    /// Returns the property that does not hold without the rule.
    pub(super) fn violates(self) -> &'static str {
        match self {
            Self::CountingFence => ONCE,
            Self::RevisionUnchecked | Self::EpochsReissued => ONE_HISTORY,
            Self::AnswerBeforeCommit | Self::DoubtTakenForMade => KEPT,
            Self::EpochUnchecked | Self::UnconfirmedAnswers => UP_TO_DATE,
            Self::NoResumeNumber | Self::NumberWithoutRun => COMPLETE,
        }
    }

    pub(super) fn bounds(self) -> Bounds {
        match self {
            Self::NoResumeNumber | Self::NumberWithoutRun => Bounds::WATCHES,
            _ => Bounds::COMMITS,
        }
    }
}

/// Bounds of the exploration: all states within them are visited.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) operations: u8,
    /// Largest number of a run or an epoch, which are counted together.
    pub(super) issued: u8,
    pub(super) replacements: u8,
    pub(super) watches: bool,
}

impl Bounds {
    pub(super) const COMMITS: Self = Self { operations: 2, issued: 3, replacements: 1, watches: false };
    pub(super) const WATCHES: Self = Self { operations: 1, issued: 3, replacements: 1, watches: true };
}
