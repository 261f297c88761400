//! Removal of parts that no list refers to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::guard::Key;
use crate::parts::{path, within};
use crate::{Digest, Error, Parts};

/// Parts that are removed together: a part of them cannot be stored meanwhile.
const BATCH: usize = 256;

/// What a sweep has found and removed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Swept {
    /// Bytes of the parts that are left, as stored, by namespace.
    pub bytes: HashMap<Arc<str>, u64>,
    pub removed: u64,
}

impl Parts {
    /// Removes the parts that were stored until a time and that `referenced` does not return: what lists refer to. It
    /// is polled after the parts were listed: a part of a list that was committed in between is older than that list.
    pub async fn sweep<E: From<Error>>(
        &self,
        until: SystemTime,
        referenced: impl Future<Output = Result<HashSet<Digest>, E>>,
    ) -> Result<Swept, E> {
        let (mut old, mut swept) = (Vec::new(), Swept::default());
        let mut all = self.store.list(None);
        while let Some(found) = within(all.try_next()).await? {
            let stored = SystemTime::from(found.last_modified);
            let Some(key) = key(&found.location) else { continue };
            *swept.bytes.entry(Arc::clone(&key.0)).or_default() += found.size;
            if stored <= until {
                old.push((key, found.size));
            }
        }
        drop(all);
        if old.is_empty() {
            return Ok(swept);
        }
        let referenced = referenced.await?;
        old.retain(|((_, digest), _)| !referenced.contains(digest));
        for batch in old.chunks(BATCH) {
            let condemned = self.guard.condemn(batch.iter().map(|(key, _)| key.clone()).collect());
            let removed = self.remove(&condemned).await;
            self.guard.removed(&condemned);
            removed?;
            for ((namespace, _), size) in batch.iter().filter(|(key, _)| condemned.contains(key)) {
                if let Some(bytes) = swept.bytes.get_mut(namespace) {
                    *bytes = bytes.saturating_sub(*size);
                }
            }
            swept.removed += condemned.len() as u64;
        }
        Ok(swept)
    }

    async fn remove(&self, keys: &[Key]) -> Result<(), Error> {
        let paths: Vec<_> = keys.iter().map(path).collect();
        let removals = futures::stream::iter(paths).map(|path| async move {
            match within(self.store.delete(&path)).await {
                Err(Error::NotFound(_)) => Ok(()),
                other => other,
            }
        });
        removals.buffer_unordered(8).try_collect().await
    }
}

/// Returns the part that is at a path; `None` for what is not one.
fn key(path: &Path) -> Option<Key> {
    let mut names = path.parts();
    let (namespace, _, digest) = (names.next()?, names.next()?, names.next()?);
    let digest = Digest::from_hex(digest.as_ref())?;
    names.next().is_none().then(|| (Arc::from(namespace.as_ref()), digest))
}
