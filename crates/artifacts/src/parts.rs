//! Parts in an object store.

use std::collections::HashSet;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::time::timeout;
use url::Url;

use crate::folder::{self, Folder};
use crate::guard::{Guard, Key, Pin};
use crate::{Digest, Error};

/// Size of the largest part.
pub const MAX_PART_BYTES: usize = 1 << 20;
/// Level of compression: about 400 MB/s of text.
const LEVEL: i32 = 1;
/// Calls to the object store at a time, per request.
const CONCURRENCY: usize = 32;
/// Time of one call to the object store, with its own retries.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Parts of artifacts, by namespace and digest. Clones share the store.
#[derive(Clone)]
pub struct Parts {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) guard: Arc<Guard>,
    location: String,
    /// Folder of a local store, if it is one.
    folder: Option<Arc<Folder>>,
    /// Whether the folder must be known.
    is_checked: bool,
    /// Who may remove parts; none if no other program can use the location.
    pub(crate) owner: Option<Arc<str>>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("location", &self.location).finish_non_exhaustive()
    }
}

impl Parts {
    /// Opens a store by its URL: `file:///folder`, `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` or
    /// `memory:///`. `settings` are those of `object_store`, for example `aws_endpoint`; a folder is created.
    ///
    /// Source of the names: <https://docs.rs/object_store>.
    pub fn open(location: &str, settings: Vec<(String, String)>) -> Result<Self, Error> {
        let bad = |reason: String| Error::Url { url: location.to_owned(), reason };
        let url = Url::parse(location).map_err(|error| bad(error.to_string()))?;
        if url.scheme() == "file" {
            let folder = url.to_file_path().map_err(|()| bad("is not an absolute path".to_owned()))?;
            return Self::in_folder(&folder);
        }
        let (store, prefix) =
            object_store::parse_url_opts(&url, settings).map_err(|error| bad(error.to_string()))?;
        Ok(Self { location: location.to_owned(), ..Self::over(Arc::new(PrefixStore::new(store, prefix))) })
    }

    /// Uses a store that is open.
    pub(crate) fn over(store: Arc<dyn ObjectStore>) -> Self {
        let location = store.to_string();
        Self { store, guard: Arc::default(), location, folder: None, is_checked: false, owner: None }
    }

    /// Opens a folder, which is created, and readable by its owner only.
    pub fn in_folder(folder: &std::path::Path) -> Result<Self, Error> {
        let location = folder.display().to_string();
        let bad = |error: String| Error::Url { url: location.clone(), reason: error };
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(folder).map_err(|error| bad(error.to_string()))?;
        let local = LocalFileSystem::new_with_prefix(folder).map_err(|error| bad(error.to_string()))?;
        let store = Arc::new(local.with_fsync(true));
        let folder = Some(Arc::new(Folder::new(folder)));
        Ok(Self { store, guard: Arc::default(), location, folder, is_checked: false, owner: None })
    }

    /// Makes a folder for a store whose earlier parts are lost, unless it exists. Blocks.
    pub fn make_folder(folder: &std::path::Path) -> std::io::Result<()> {
        folder::make_empty(folder)
    }

    /// Returns the parts of one control plane: several may share a location, and none removes those of another. Calls fail until a folder
    /// is [recognized](Self::recognize).
    pub fn of(&self, store: &str) -> Self {
        let inner = PrefixStore::new(Arc::clone(&self.store), store);
        Self { store: Arc::new(inner), guard: Arc::default(), is_checked: true, ..self.clone() }
    }

    /// Marks the folder of a local store as the one that has the parts which lists refer to, unless it has none of them.
    pub async fn recognize<E: From<Error>>(
        &self,
        referenced: impl Future<Output = Result<HashSet<Digest>, E>>,
    ) -> Result<(), E> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let Err(unknown) = folder.check().await else { return Ok(()) };
        let referenced = referenced.await?;
        if !referenced.is_empty() && !self.has_any(&referenced).await? {
            return Err(unknown.into());
        }
        Ok(folder.mark().await?)
    }

    /// Fails if a local store has another folder than the one that is known: work whose parts are lost is done again, and a disk that is
    /// away is no reason for that.
    pub async fn check(&self) -> Result<(), Error> {
        match &self.folder {
            Some(folder) if self.is_checked => folder.check().await,
            _ => Ok(()),
        }
    }

    /// Returns the same for one owner: sweeps fail while another one sweeps.
    pub fn owned_by(self, owner: &str) -> Self {
        Self { owner: Some(owner.into()), ..self }
    }

    /// Returns its URL, or the path of a folder.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Stores a part, durably. Returns by how many bytes more is stored, too: none if it was there.
    pub async fn put(&self, namespace: &str, data: Bytes) -> Result<(Digest, usize), Error> {
        if data.is_empty() || data.len() > MAX_PART_BYTES {
            return Err(Error::Size(data.len()));
        }
        let packed =
            tokio::task::spawn_blocking(move || (Digest::of(&data), zstd::bulk::compress(&data, LEVEL)));
        let (digest, packed) = packed.await.map_err(|error| Error::Unavailable(error.to_string()))?;
        let packed = packed.map_err(|error| Error::Unavailable(error.to_string()))?;
        let key: Key = (namespace.into(), digest);
        let path = path(&key);
        let is_new = within_if_any(self.store.head(&path)).await?.is_none();
        // While it is being removed, the old content may still be there, and what is written now would be removed too.
        if self.guard.is_condemned(&key) {
            return Err(Error::Unavailable("the part is being removed; repeat the call".to_owned()));
        }
        let size = if is_new { packed.len() } else { 0 };
        // Also what is there: it may be damaged.
        within(self.store.put(&path, packed.into())).await?;
        Ok((digest, size))
    }

    /// Returns a part, checked against its digest.
    pub async fn get(&self, namespace: &str, digest: Digest) -> Result<Bytes, Error> {
        let path = path(&(namespace.into(), digest));
        let packed = within_if_any(async { self.store.get(&path).await?.bytes().await }).await?;
        let Some(packed) = packed else {
            self.check().await?;
            // Of a bucket that does not exist, nothing is lost: a list of it fails.
            within(self.store.list(None).try_next()).await?;
            return Err(Error::NotFound(digest));
        };
        let unpacked = tokio::task::spawn_blocking(move || {
            let data = zstd::bulk::decompress(&packed, MAX_PART_BYTES).ok()?;
            (Digest::of(&data) == digest).then(|| Bytes::from(data))
        });
        let unpacked = unpacked.await.map_err(|error| Error::Unavailable(error.to_string()))?;
        unpacked.ok_or(Error::Damaged(digest))
    }

    /// Returns those of these parts that are not stored, each once.
    pub async fn missing(&self, namespace: &str, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
        let namespace: Arc<str> = namespace.into();
        let distinct: HashSet<_> = digests.iter().copied().collect();
        let looks = stream::iter(distinct).map(|digest| {
            let key: Key = (Arc::clone(&namespace), digest);
            async move {
                if self.guard.is_condemned(&key) {
                    return Ok::<_, Error>(Some(digest));
                }
                let found = within_if_any(self.store.head(&path(&key))).await?;
                Ok(found.is_none().then_some(digest))
            }
        });
        let mut missing: Vec<_> = looks
            .buffer_unordered(CONCURRENCY)
            .try_filter_map(|missing| async move { Ok(missing) })
            .try_collect()
            .await?;
        // Also if none is: what is stored elsewhere is not there.
        self.check().await?;
        missing.sort_unstable();
        Ok(missing)
    }

    /// Keeps parts from being removed by a sweep, until the pin is dropped.
    pub fn pin(&self, namespace: &str, digests: &[Digest]) -> Pin {
        let namespace: Arc<str> = namespace.into();
        self.guard.pin(digests.iter().map(|digest| (Arc::clone(&namespace), *digest)).collect())
    }
}

/// Returns where a part is: 256 folders per namespace, so that none has too many entries.
pub(crate) fn path((namespace, digest): &Key) -> Path {
    let digest = digest.to_string();
    Path::from_iter([namespace, &digest[..2], &digest])
}

/// Limits the time of a call that needs no object. If something is not found all the same, it is the location.
pub(crate) async fn within<T>(call: impl Future<Output = object_store::Result<T>>) -> Result<T, Error> {
    let done = within_if_any(call).await?;
    done.ok_or_else(|| Error::Unavailable("the bucket does not exist".to_owned()))
}

/// Limits the time of a call; `None` if there is no such object.
pub(crate) async fn within_if_any<T>(
    call: impl Future<Output = object_store::Result<T>>,
) -> Result<Option<T>, Error> {
    match timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(done)) => Ok(Some(done)),
        Ok(Err(object_store::Error::NotFound { .. })) => Ok(None),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Error::TimedOut),
    }
}
