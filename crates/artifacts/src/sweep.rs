//! Removal of parts that no list refers to, and search for those that lists refer to in vain.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::guard::Key;
use crate::parts::{path, within, within_if_any};
use crate::{Digest, Error, Parts};

/// Parts that are removed together: a part of them cannot be stored meanwhile.
const BATCH: usize = 256;
/// Name of the object with who removes parts at a location.
const OWNER: &str = ".owner";
/// Time for which another owner counts as alive after its last sweep, less than an hour of which every sweep disregards.
const OWNED_FOR: Duration = Duration::from_secs(24 * 3600);

/// Time after a confirmation in which removals may begin: one that was frozen meanwhile begins no more of them.
const CONFIRMED_FOR: Duration = Duration::from_secs(2);
/// Confirmations in a row that may take longer than that.
const MAX_SLOW: usize = 3;

/// Until when parts must have been stored to be removed by a sweep.
#[derive(Debug, Clone)]
pub struct Until {
    pub all: SystemTime,
    /// Times of single namespaces in place of that.
    pub of: HashMap<Arc<str>, SystemTime>,
}

impl From<SystemTime> for Until {
    fn from(all: SystemTime) -> Self {
        Self { all, of: HashMap::new() }
    }
}

/// What a sweep has found and removed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Swept {
    /// Bytes of the parts that are left, as stored, by namespace.
    pub bytes: HashMap<Arc<str>, u64>,
    pub removed: u64,
}

/// Ownership of the lists, as it was last confirmed. Another process may take it over at any time.
struct Ownership<C> {
    confirm: C,
    confirmed: Mutex<Option<Instant>>,
}

impl<C> Ownership<C> {
    /// Confirms the ownership, unless it was a moment ago.
    async fn renew<E: From<Error>, F: Future<Output = Result<(), E>>>(&self) -> Result<(), E>
    where
        C: Fn() -> F,
    {
        for _ in 0..=MAX_SLOW {
            let is_recent = self.confirmed.lock().is_some_and(|at| at.elapsed() < CONFIRMED_FOR);
            if is_recent {
                return Ok(());
            }
            // From before the question: another one may be the owner when the answer arrives.
            let asked = Instant::now();
            (self.confirm)().await?;
            *self.confirmed.lock() = Some(asked);
        }
        Err(Error::Unavailable("the store takes too long to confirm its owner".to_owned()).into())
    }
}

impl Parts {
    /// Removes the parts that were stored until a time and that `referenced` does not return: what lists refer to. It
    /// is polled after the parts were listed: a part of a list that was committed in between is older than that list. `confirm` fails
    /// once another process may commit lists: it could name parts that this one has not read about. Nothing is removed then.
    pub async fn sweep<E: From<Error>, F: Future<Output = Result<(), E>>>(
        &self,
        until: impl Into<Until>,
        referenced: impl Future<Output = Result<HashSet<Digest>, E>>,
        confirm: impl Fn() -> F,
    ) -> Result<Swept, E> {
        let until = until.into();
        self.check().await?;
        self.claim(until.all).await?;
        let _sweeping = self.guard.sweep();
        let mut unsure = self.guard.condemned();
        let (mut old, mut swept) = (Vec::new(), Swept::default());
        let mut all = self.store.list(None);
        while let Some(found) = within(all.try_next()).await? {
            let stored = SystemTime::from(found.last_modified);
            let Some(key) = key(&found.location) else { continue };
            unsure.remove(&key);
            *swept.bytes.entry(Arc::clone(&key.0)).or_default() += found.size;
            if stored <= *until.of.get(&key.0).unwrap_or(&until.all) {
                old.push((key, found.size));
            }
        }
        drop(all);
        // Their removal has ended since.
        self.guard.removed(&unsure);
        if old.is_empty() {
            return Ok(swept);
        }
        let referenced = referenced.await?;
        old.retain(|((_, digest), _)| !referenced.contains(digest));
        let ownership = Ownership { confirm, confirmed: Mutex::new(None) };
        for batch in old.chunks(BATCH) {
            let condemned = self.guard.condemn(batch.iter().map(|(key, _)| key.clone()).collect());
            let (removed, failed) = self.remove(&condemned, &ownership).await;
            for ((namespace, _), size) in batch.iter().filter(|(key, _)| removed.contains(key)) {
                if let Some(bytes) = swept.bytes.get_mut(namespace) {
                    *bytes = bytes.saturating_sub(*size);
                }
            }
            swept.removed += removed.len() as u64;
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(swept)
    }

    /// Returns the bytes of all parts, as stored, by namespace.
    pub async fn bytes(&self) -> Result<HashMap<Arc<str>, u64>, Error> {
        let mut bytes = HashMap::<_, u64>::new();
        let mut all = self.store.list(None);
        while let Some(found) = within(all.try_next()).await? {
            if let Some((namespace, _)) = key(&found.location) {
                *bytes.entry(namespace).or_default() += found.size;
            }
        }
        Ok(bytes)
    }

    /// Whether any of these parts is stored, in any namespace.
    pub(crate) async fn has_any(&self, wanted: &HashSet<Digest>) -> Result<bool, Error> {
        let mut all = self.store.list(None);
        while let Some(found) = within(all.try_next()).await? {
            if key(&found.location).is_some_and(|(_, digest)| wanted.contains(&digest)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the digests of all parts, of any namespace.
    pub async fn stored(&self) -> Result<HashSet<Digest>, Error> {
        self.check().await?;
        let (mut stored, mut all) = (HashSet::new(), self.store.list(None));
        while let Some(found) = within(all.try_next()).await? {
            stored.extend(key(&found.location).map(|(_, digest)| digest));
        }
        Ok(stored)
    }

    /// Returns those of these parts, which lists refer to, that no namespace has.
    pub async fn absent(&self, mut referenced: HashSet<Digest>) -> Result<HashSet<Digest>, Error> {
        self.check().await?;
        let mut all = self.store.list(None);
        while !referenced.is_empty()
            && let Some(found) = within(all.try_next()).await?
        {
            if let Some((_, digest)) = key(&found.location) {
                referenced.remove(&digest);
            }
        }
        Ok(referenced)
    }

    /// Notes at the location that this control plane removes parts there, and fails if another one does: it may have been started
    /// from a copy of the same store, and knows of none of the later lists.
    async fn claim(&self, until: SystemTime) -> Result<(), Error> {
        let Some(owner) = &self.owner else { return Ok(()) };
        let path = Path::from(OWNER);
        if let Some(found) = within_if_any(self.store.get(&path)).await? {
            let at = SystemTime::from(found.meta.last_modified);
            let is_recent = at.checked_add(OWNED_FOR).is_none_or(|ends| ends > until);
            if within(found.bytes()).await? != owner.as_bytes() && is_recent {
                return Err(Error::Shared(self.location().to_owned()));
            }
        }
        within(self.store.put(&path, owner.as_bytes().to_vec().into())).await.map(drop)
    }

    /// Removes parts, and returns which of them are removed, with the first error. A part whose call has not ended in time stays
    /// condemned until a later sweep: it could still be removed after it was stored again.
    async fn remove<E: From<Error>, F: Future<Output = Result<(), E>>>(
        &self,
        keys: &[Key],
        ownership: &Ownership<impl Fn() -> F>,
    ) -> (HashSet<Key>, Option<E>) {
        let removals = futures::stream::iter(keys.to_vec()).map(|key| async move {
            if let Err(error) = ownership.renew().await {
                return (key, false, Err(error));
            }
            match within_if_any(self.store.delete(&path(&key))).await {
                Ok(_) => (key, false, Ok(())),
                Err(error) => (key, matches!(error, Error::TimedOut), Err(E::from(error))),
            }
        });
        let (mut removed, mut failed) = (HashSet::new(), None);
        for (key, may_follow, ended) in removals.buffer_unordered(8).collect::<Vec<_>>().await {
            if !may_follow {
                self.guard.removed([&key]);
            }
            match ended {
                Ok(()) => drop(removed.insert(key)),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        (removed, failed)
    }
}

/// Returns the part that is at a path; `None` for what is not one.
fn key(path: &Path) -> Option<Key> {
    let mut names = path.parts();
    let (namespace, _, digest) = (names.next()?, names.next()?, names.next()?);
    let digest = Digest::from_hex(digest.as_ref())?;
    names.next().is_none().then(|| (Arc::from(namespace.as_ref()), digest))
}

#[cfg(test)]
mod tests;
