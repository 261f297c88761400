//! Identity of the store, and the runs of control planes on it: decides for callers that resume from a position whether this
//! store contains it. Knows no other records, and no clock.

use std::sync::Arc;

use prost::Message;
use rota_core::{Namespace, Timestamp};
use rota_proto::{num, v1};
use rota_store::{Command, DocumentKey, DocumentKind, Expected, Opening, PutDocument, Reply};
use uuid::Uuid;

use crate::error::Error;
use crate::store_client::StoreClient;

/// Runs that the store names. A position of an earlier one is not resumed from.
const MAX_RUNS: usize = 512;

/// Store and run that a position comes from. A store that was restored from a backup, or that a standby continues which
/// lacks commits, has the identity of the original, and another history after that.
#[derive(Debug, Clone)]
pub(crate) struct Lineage {
    store: Uuid,
    /// The last one is this run.
    runs: Arc<[Run]>,
}

/// Payload of the document with the runs.
#[derive(Clone, PartialEq, Message)]
struct Runs {
    #[prost(message, repeated, tag = "1")]
    runs: Vec<Run>,
}

/// Run of a control plane. All that it has committed comes after the revision at which it began.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Run {
    #[prost(fixed32, tag = "1")]
    id: u32,
    #[prost(uint64, tag = "2")]
    began: u64,
    /// Time of its beginning, in microseconds since 1970.
    #[prost(int64, tag = "3")]
    began_at: i64,
    /// Revision that the store had before, if commits up to there were found to be lost; otherwise 0.
    #[prost(uint64, tag = "4")]
    lost: u64,
}

/// Commits that a run has found to be lost when it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Loss {
    /// Revisions of the last commit that there was, and of the last one that is lost.
    pub(crate) kept: u64,
    pub(crate) lost: u64,
    pub(crate) noticed: Timestamp,
}

/// Part of a token that identifies its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    store: u32,
    run: u32,
}

/// Begins a run: the store names it before anything of it is sent. Returns the runs so far.
async fn begin(store: &StoreClient) -> Result<Vec<Run>, Error> {
    let key = DocumentKey {
        kind: DocumentKind::Runs,
        namespace: Namespace::default(),
        name: "control plane".to_owned(),
    };
    let document = store.reads().document(key.clone()).await?;
    let decoded = document.as_ref().map(|document| Runs::decode(&document.payload[..])).transpose();
    let mut runs = match decoded {
        Ok(runs) => runs.unwrap_or_default().runs,
        Err(error) => {
            tracing::error!(%error, "the runs in the store cannot be decoded: watches begin again");
            Vec::new()
        }
    };
    let Opening { revision: began, lost } = store.reads().opening();
    // One that has ended before it did anything is followed by one that finds the same.
    let lost = lost.filter(|lost| runs.iter().all(|run| run.lost != *lost)).unwrap_or(0);
    if lost > 0 {
        tracing::error!(
            kept = began,
            lost,
            "history_lost: the store has lost commits that were acknowledged"
        );
    }
    runs.push(Run { id: Uuid::new_v4().as_fields().0, began, began_at: store.now().0, lost });
    runs.drain(..runs.len().saturating_sub(MAX_RUNS));
    let expected = document.map_or(Expected::Absent, |document| document.expected());
    let stored = Runs { runs };
    let payload = stored.encode_to_vec().into();
    let put = Command::PutDocument(PutDocument { key, payload, expected });
    match store.apply(vec![put]).await?.pop() {
        Some(Ok(Reply::Document(_))) => Ok(stored.runs),
        _ => Err(rota_store::Error::Closed.into()),
    }
}

impl Lineage {
    /// Begins a run on a store.
    pub(crate) async fn begin(store: &StoreClient) -> Result<Self, Error> {
        Ok(Self { store: Uuid::nil(), runs: begin(store).await?.into() })
    }

    /// Returns the lineage with the identity of the store.
    pub(crate) fn of(self, store: Uuid) -> Self {
        Self { store, ..self }
    }

    fn run(&self) -> Run {
        self.runs.last().copied().unwrap_or_default()
    }

    /// Returns whether this store contains what a run had committed up to a revision.
    pub(crate) fn contains(&self, origin: Origin, revision: u64) -> bool {
        if self.origin().store != origin.store {
            return false;
        }
        // A run that is not named was before all of these, or its beginning itself was lost.
        let Some(at) = self.runs.iter().rposition(|run| run.id == origin.run) else { return false };
        // What it committed after a later run began was lost.
        let lost = self.runs[at + 1..].iter().find(|later| later.began < revision);
        if let Some(later) = lost {
            tracing::warn!(revision, began = later.began, "a caller resumes from a commit that was lost");
        }
        lost.is_none()
    }

    /// Returns the last loss of commits that was noticed.
    pub(crate) fn loss(&self) -> Option<Loss> {
        let run = self.runs.iter().rfind(|run| run.lost > 0)?;
        Some(Loss { kept: run.began, lost: run.lost, noticed: Timestamp(run.began_at) })
    }

    /// Returns the revision at which this run began.
    pub(crate) fn began(&self) -> u64 {
        self.run().began
    }

    fn origin(&self) -> Origin {
        Origin { store: self.store.as_fields().0, run: self.run().id }
    }

    /// Returns the store's version at a revision, as the API has it.
    pub(crate) fn version(&self, revision: u64) -> v1::StoreVersion {
        let run = name(self.run());
        v1::StoreVersion {
            id: self.store.to_string(),
            run,
            revision: num::to_i64(revision),
            runs: Vec::new(),
        }
    }

    /// Returns all runs, the latest last, as the API has them.
    pub(crate) fn runs(&self) -> Vec<v1::StoreRun> {
        let run = |run: &Run| v1::StoreRun { run: name(*run), began: num::to_i64(run.began) };
        self.runs.iter().map(run).collect()
    }
}

fn name(run: Run) -> String {
    format!("{:08x}", run.id)
}

impl Default for Lineage {
    fn default() -> Self {
        Self { store: Uuid::nil(), runs: [Run::default()].into() }
    }
}

impl std::fmt::Display for Lineage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Origin { store, run } = self.origin();
        write!(f, "{store:08x}-{run:08x}")
    }
}

impl Origin {
    /// Reads what [`Lineage`] displays as.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (store, run) = text.split_once('-')?;
        Some(Self { store: u32::from_str_radix(store, 16).ok()?, run: u32::from_str_radix(run, 16).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lineage(store: u128, began: &[u64]) -> Lineage {
        let run = |(id, began): (usize, &u64)| Run { id: id as u32, began: *began, ..Run::default() };
        let runs = began.iter().enumerate().map(run).collect();
        Lineage { store: Uuid::from_u128(store << 96), runs }
    }

    #[test]
    fn position_is_valid_only_in_its_own_history() {
        let origin = Origin::parse(&lineage(1, &[100]).to_string()).unwrap();
        assert!(lineage(1, &[100]).contains(origin, 500));
        assert!(lineage(1, &[100, 500]).contains(origin, 500), "an ordinary restart");
        assert!(lineage(1, &[100, 500, 700]).contains(origin, 500), "and one more");
        assert!(!lineage(1, &[100, 499]).contains(origin, 500), "the last commit was lost");
        assert!(!lineage(1, &[100, 450, 600]).contains(origin, 500), "and a restart later");
        assert!(lineage(1, &[100, 450, 600]).contains(origin, 450), "before what was lost");
        let later = Origin::parse(&lineage(1, &[100, 450]).to_string()).unwrap();
        assert!(lineage(1, &[100, 450, 600]).contains(later, 600));
        assert!(!lineage(1, &[100]).contains(later, 460), "a run whose beginning was lost");
        assert!(!lineage(2, &[100, 900]).contains(origin, 500), "another store");
        assert_eq!(Origin::parse("x"), None);
    }
}
