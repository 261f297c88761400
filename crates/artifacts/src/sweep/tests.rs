//! Removals that fail, or do not end in time.

use std::collections::HashSet;
use std::fmt::{Display, Formatter};
use std::sync::atomic::{AtomicU8, Ordering};

use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result as StoreResult,
};

use super::*;

const WORKS: u8 = 0;
const FAILS: u8 = 1;
const HANGS: u8 = 2;

/// A store in memory whose removals can fail.
#[derive(Debug, Default)]
struct Faulty {
    inner: InMemory,
    removals: AtomicU8,
}

impl Display for Faulty {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        self.inner.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        all: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        match self.removals.load(Ordering::Relaxed) {
            WORKS => self.inner.delete_stream(all),
            FAILS => {
                let failed = object_store::Error::Generic { store: "test", source: "removal refused".into() };
                futures::stream::iter([Err(failed)]).boxed()
            }
            _ => futures::stream::pending().boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn parts() -> (Arc<Faulty>, Parts) {
    let store = Arc::new(Faulty::default());
    (Arc::clone(&store), Parts::over(store))
}

/// Removes all parts of any age, and returns how many were removed.
async fn sweep(parts: &Parts) -> Result<u64, Error> {
    let until = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 36);
    let referenced = async { Ok::<_, Error>(HashSet::new()) };
    Ok(parts.sweep(until, referenced, async || Ok(())).await?.removed)
}

#[tokio::test]
async fn part_whose_removal_failed_can_be_stored_again() {
    let (store, parts) = parts();
    let (digest, _) = parts.put("a", "kept".into()).await.unwrap();
    store.removals.store(FAILS, Ordering::Relaxed);
    let failed = sweep(&parts).await.unwrap_err();
    assert!(failed.to_string().contains("removal refused"), "{failed}");
    assert_eq!(parts.missing("a", &[digest]).await.unwrap(), []);
    assert_eq!(parts.put("a", "kept".into()).await.unwrap(), (digest, 0));
    store.removals.store(WORKS, Ordering::Relaxed);
    assert_eq!(sweep(&parts).await.unwrap(), 1);
    assert_eq!(parts.missing("a", &[digest]).await.unwrap(), [digest]);
}

/// The removal may still happen after the part was stored again.
#[tokio::test(start_paused = true)]
async fn part_whose_removal_may_follow_stays_condemned() {
    let (store, parts) = parts();
    let (digest, _) = parts.put("a", "kept".into()).await.unwrap();
    store.removals.store(HANGS, Ordering::Relaxed);
    assert!(matches!(sweep(&parts).await, Err(Error::TimedOut)));
    let refused = async || {
        assert_eq!(parts.missing("a", &[digest]).await.unwrap(), [digest]);
        let refused = parts.put("a", "kept".into()).await.unwrap_err();
        assert!(refused.to_string().contains("is being removed"), "{refused}");
    };
    refused().await;
    // It happens.
    store.inner.delete(&path(&("a".into(), digest))).await.unwrap();
    refused().await;
    store.removals.store(WORKS, Ordering::Relaxed);
    assert_eq!(sweep(&parts).await.unwrap(), 0);
    assert!(parts.put("a", "kept".into()).await.unwrap().1 > 0);
    assert_eq!(parts.missing("a", &[digest]).await.unwrap(), []);
}
