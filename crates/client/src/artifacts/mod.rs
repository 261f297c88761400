//! Contents of artifacts: files are uploaded in parts of 1 MiB, of which the server stores what it does not have, and
//! downloaded with their digest checked. An interrupted transfer continues where it ended.

mod scan;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use backon::Retryable;
use futures::stream;
use rota_proto::v1::artifact_service_client::ArtifactServiceClient;
use rota_proto::v1::{
    Artifact, DownloadPartsRequest, FetchArtifactsRequest, FetchArtifactsResponse, FindMissingPartsRequest,
    UploadPartsRequest,
};
use rota_proto::{names, num};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::task::spawn_blocking;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::channel::Transport;
use crate::retry::{backoff, is_retryable};
use crate::{Auth, Client, Error};

/// Parts of one call: a slow connection sends them within the timeout of a call.
const PARTS_PER_CALL: usize = 4;
/// Time for which a client repeats a transfer that has begun at least, since its last progress: the server may be restarted.
const RETRY_FOR: Duration = Duration::from_secs(300);
/// Digests that one look-up carries.
const LOOK_UPS_PER_CALL: usize = 8192;
/// Parts of one download: a call that fails is repeated from the first part that is missing.
const DOWNLOADS_PER_CALL: usize = 4096;

/// File, and number of a part of it.
type Place = (usize, usize);

/// A file that an upload reads.
pub struct Source {
    /// Name that the artifact will have.
    pub name: String,
    /// Whether the file can be executed.
    pub executable: bool,
    /// Bytes that the file may have; one that has more by then is skipped.
    pub size: u64,
    /// Opens the file; called twice.
    pub open: Box<dyn Fn() -> io::Result<File> + Send + Sync>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What an upload has stored.
#[derive(Debug, Default)]
pub struct Uploaded {
    /// What is stored, in the order of the sources.
    pub artifacts: Vec<Artifact>,
    /// Files that could not be read, or changed meanwhile, with the reason.
    pub skipped: Vec<(String, String)>,
}

/// Failure of an upload or a download.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The server refused a call, or did not answer for too long.
    #[error(transparent)]
    Call(#[from] Error),
    /// The file could not be written.
    #[error("failed to write {name}: {source}")]
    Write {
        /// Name of the artifact that was downloaded.
        name: String,
        /// Why it could not be written.
        source: io::Error,
    },
    /// What was received is not what was uploaded.
    #[error("{0} is damaged: its SHA-256 differs")]
    Damaged(String),
}

/// Access to the artifacts of a namespace.
#[derive(Debug, Clone)]
pub struct Artifacts {
    service: ArtifactServiceClient<Transport>,
    parent: String,
    endpoint: String,
    retry_for: Duration,
    /// Time for which a transfer that has begun is repeated since its last progress.
    transfer_for: Duration,
}

/// What a download has reached, as it reports it each time.
#[derive(Debug)]
pub enum Progress<'a> {
    /// Number of bytes that are written so far.
    Bytes(u64),
    /// A call has failed with this status, and is repeated.
    Retrying(&'a Status),
}

impl Client {
    /// Returns access to the artifacts of a namespace.
    pub fn artifacts(&self, namespace: &str) -> Artifacts {
        Artifacts {
            service: self.artifact_service(),
            parent: names::namespace(namespace),
            endpoint: self.options.endpoint.clone(),
            retry_for: self.options.retry_for,
            transfer_for: self.options.retry_for.max(RETRY_FOR),
        }
    }

    /// Returns the artifacts of a task: of its input, and of its attempts.
    pub async fn fetch_artifacts(&self, parent: &str) -> Result<FetchArtifactsResponse, Error> {
        self.repeat(|| {
            let (mut service, parent) = (self.artifact_service(), parent.to_owned());
            async move { service.fetch_artifacts(FetchArtifactsRequest { parent }).await }
        })
        .await
    }
}

impl Artifacts {
    /// Returns access over a channel of the caller. Calls are repeated for this long while no server answers.
    pub fn over(channel: Channel, auth: Auth, namespace: &str, retry_for: Duration) -> Self {
        let transport = tonic::service::interceptor::InterceptedService::new(channel, auth);
        Self {
            service: crate::channel::artifact_service(transport),
            parent: names::namespace(namespace),
            endpoint: String::new(),
            retry_for,
            transfer_for: retry_for,
        }
    }

    /// Uploads files, and reports the bytes that are done, of how many. Files that cannot be read are skipped.
    pub async fn upload(
        &self,
        sources: Vec<Source>,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Uploaded, TransferError> {
        let mut uploaded = Uploaded::default();
        let mut scanned = Vec::new();
        // Threads that read go on after the caller has given up, unless they see it.
        let wanted = Arc::new(());
        for source in sources {
            let wanted = Arc::downgrade(&wanted);
            let (source, found) = blocking(move || {
                let found = scan::scan(&source, &wanted);
                (source, found)
            })
            .await?;
            match found {
                Ok(artifact) => scanned.push((source, artifact)),
                Err(error) => uploaded.skipped.push((source.name, error.to_string())),
            }
        }
        // Files that share a part may change one by one: each has a place of it.
        let mut places = BTreeMap::<&[u8], Vec<Place>>::new();
        for (at, (_, artifact)) in scanned.iter().enumerate() {
            for (index, digest) in artifact.parts.iter().enumerate() {
                let places = places.entry(digest).or_default();
                if places.last().is_none_or(|(last, _)| *last != at) {
                    places.push((at, index));
                }
            }
        }
        let size = |(at, index): &Place| scan::part_size(&scanned[*at].1, *index);
        let digests: Vec<_> = places.iter().map(|(digest, places)| (*digest, size(&places[0]))).collect();
        let missing = self.missing(&digests).await?;
        // In the order of the files, so that each is opened a few times only.
        let mut missing: Vec<_> = missing.iter().filter_map(|digest| places.remove(&digest[..])).collect();
        missing.sort_unstable();
        let sizes = |list: &[Vec<Place>]| -> u64 { list.iter().map(|places| size(&places[0])).sum() };
        let (mut done, total) = (0, sizes(&missing));
        let mut changed = HashSet::new();
        for batch in missing.chunks(PARTS_PER_CALL) {
            let mut parts = Vec::new();
            for places in batch {
                for &(at, index) in places {
                    let (source, artifact) = &scanned[at];
                    match scan::read_part(source, artifact, index).await? {
                        Ok(data) => {
                            parts.push(data);
                            break;
                        }
                        Err(reason) => drop(changed.insert((at, reason))),
                    }
                }
            }
            self.put(parts).await?;
            done += sizes(batch);
            progress(done, total);
        }
        for (at, (_, artifact)) in scanned.into_iter().enumerate() {
            match changed.iter().find(|(file, _)| *file == at) {
                Some((_, reason)) => uploaded.skipped.push((artifact.name, reason.clone())),
                None => uploaded.artifacts.push(artifact),
            }
        }
        Ok(uploaded)
    }

    /// Returns which of these parts, each with its size, are not stored. Fails if there is no room for them.
    async fn missing(&self, parts: &[(&[u8], u64)]) -> Result<Vec<Vec<u8>>, Error> {
        let sizes: HashMap<_, _> = parts.iter().copied().collect();
        let (mut missing, mut bytes) = (Vec::new(), 0);
        for parts in parts.chunks(LOOK_UPS_PER_CALL) {
            let request = FindMissingPartsRequest {
                parent: self.parent.clone(),
                digests: parts.iter().map(|(digest, _)| digest.to_vec()).collect(),
                sizes: parts.iter().map(|(_, size)| u32::try_from(*size).unwrap_or(u32::MAX)).collect(),
                earlier_bytes: num::to_i64(bytes),
            };
            let found = self.repeat(|| {
                let (mut service, request) = (self.service.clone(), request.clone());
                async move { service.find_missing_parts(request).await }
            });
            let found = found.await?.digests;
            bytes += found.iter().filter_map(|digest| sizes.get(&digest[..])).sum::<u64>();
            missing.extend(found);
        }
        Ok(missing)
    }

    async fn put(&self, parts: Vec<bytes::Bytes>) -> Result<(), Error> {
        if parts.is_empty() {
            return Ok(());
        }
        let lasting = Self { retry_for: self.transfer_for, ..self.clone() };
        let sent = lasting.repeat(|| {
            let (mut service, parent, parts) = (self.service.clone(), self.parent.clone(), parts.clone());
            let parts =
                parts.into_iter().map(move |data| UploadPartsRequest { parent: parent.clone(), data });
            async move { service.upload_parts(stream::iter(parts)).await }
        });
        sent.await.map(drop)
    }

    /// Downloads an artifact into a file, and reports the progress.
    pub async fn download(
        &self,
        artifact: &Artifact,
        to: &mut tokio::fs::File,
        mut progress: impl FnMut(Progress<'_>),
    ) -> Result<(), TransferError> {
        let failed = |source| TransferError::Write { name: artifact.name.clone(), source };
        let (mut hash, mut done, mut bytes) = (Sha256::new(), 0, 0);
        let mut since = tokio::time::Instant::now();
        let mut waits = backon::BackoffBuilder::build(backoff());
        while done < artifact.parts.len() {
            let wanted = artifact.parts.iter().skip(done).take(DOWNLOADS_PER_CALL).cloned().collect();
            let request = DownloadPartsRequest { parent: self.parent.clone(), digests: wanted };
            let ended = async {
                let mut parts = self.service.clone().download_parts(request).await?.into_inner();
                while let Some(part) = parts.message().await? {
                    let right = artifact.parts.get(done);
                    if right.map(Vec::as_slice) != Some(&Sha256::digest(&part.data)[..]) {
                        return Ok(Err(TransferError::Damaged(artifact.name.clone())));
                    }
                    hash.update(&part.data);
                    if let Err(error) = to.write_all(&part.data).await {
                        return Ok(Err(failed(error)));
                    }
                    done += 1;
                    bytes += part.data.len() as u64;
                    since = tokio::time::Instant::now();
                    progress(Progress::Bytes(bytes));
                }
                Ok::<_, Status>(Ok(()))
            };
            match ended.await {
                Ok(ended) => ended?,
                Err(status) if is_retryable(&status) && since.elapsed() < self.transfer_for => {
                    progress(Progress::Retrying(&status));
                    tokio::time::sleep(waits.next().unwrap_or(Duration::from_secs(5))).await;
                }
                Err(status) => return Err(Error::new(status, &self.endpoint).into()),
            }
        }
        if hex::encode(hash.finalize()) != artifact.sha256 {
            return Err(TransferError::Damaged(artifact.name.clone()));
        }
        to.flush().await.map_err(failed)?;
        to.sync_all().await.map_err(failed)
    }

    async fn repeat<T, F>(&self, call: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let repeated = call.retry(backoff().with_total_delay(Some(self.retry_for))).when(is_retryable);
        repeated.await.map(Response::into_inner).map_err(|status| Error::new(status, &self.endpoint))
    }
}

/// Runs what blocks on a thread for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let done = spawn_blocking(work).await;
    done.map_err(|error| Error::new(Status::internal(error.to_string()), ""))
}
