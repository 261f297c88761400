//! `ArtifactService`: contents of artifacts, and the lists of tasks.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use rota_artifacts::{Digest, MAX_PART_BYTES};
use rota_core::Namespace;
use rota_proto::names as shape;
use rota_proto::v1::artifact_service_server::ArtifactService;
use rota_proto::{HttpBody, num, v1};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::streams::{Streams, send_in_time};
use crate::agents::AgentRegistry;
use crate::artifacts::{self, Artifacts};
use crate::scheduler::Scheduler;
use crate::sessions::{SessionDeps, check_serves};
use crate::store_client::StoreClient;
use crate::trust::identity::{Holder, Identity};
use crate::wire::status::{error, invalid};
use crate::wire::{check, names};

const MAX_LOOKED_UP: usize = 8192;
const MAX_DOWNLOADED: usize = 65_536;
/// Bytes of an upload: the list of a larger one has more digests of parts than a message has room for.
const MAX_DECLARED: u64 = 256 << 30;
/// Media type of every content: what an agent has written is only saved, whatever it claims to be.
const CONTENT_TYPE: &str = "application/octet-stream";
/// Parts that wait for the caller to read them.
const BUFFER: usize = 2;

pub(crate) struct Service {
    store: StoreClient,
    artifacts: Artifacts,
    scheduler: Arc<Scheduler>,
    agents: Arc<AgentRegistry>,
    streams: Streams,
}

#[tonic::async_trait]
impl ArtifactService for Service {
    type DownloadArtifactStream = ReceiverStream<Result<HttpBody, Status>>;
    type DownloadPartsStream = ReceiverStream<Result<v1::DownloadPartsResponse, Status>>;

    async fn fetch_artifacts(
        &self,
        request: Request<v1::FetchArtifactsRequest>,
    ) -> Result<Response<v1::FetchArtifactsResponse>, Status> {
        let (namespace, named) = names::task("parent", &request.get_ref().parent)?;
        let task = self.store.task(&namespace, named).await?;
        let mut attempts = artifacts::of_task(&self.store, &task, 0..=u32::MAX).await?;
        // Of a task that continues another: what that one has changed.
        let input = attempts.iter_mut().filter(|found| found.attempt == 0);
        input.filter_map(|found| found.list.as_mut()).for_each(|list| list.changes = None);
        Ok(Response::new(v1::FetchArtifactsResponse { attempts }))
    }

    async fn download_artifact(
        &self,
        request: Request<v1::DownloadArtifactRequest>,
    ) -> Result<Response<Self::DownloadArtifactStream>, Status> {
        let v1::DownloadArtifactRequest { parent, attempt, name } = request.get_ref();
        let (namespace, named) = names::task("parent", parent)?;
        let attempt = u32::try_from(*attempt).map_err(|_| invalid("attempt", "must not be negative"))?;
        let task = self.store.task(&namespace, named).await?;
        let list = artifacts::of_attempt(&self.store, &task, attempt).await?;
        let mut all = list.into_iter().flat_map(|list| list.artifacts);
        let artifact = all.find(|artifact| artifact.name == *name).ok_or_else(|| {
            let text = format!("attempt {attempt} of the task has no artifact {:?}", check::shorten(name));
            error("ARTIFACT_NOT_FOUND", text)
        })?;
        let wanted = digests(&artifact.parts, MAX_DOWNLOADED)?;
        let stream = self
            .contents(&namespace, wanted, |data| HttpBody { content_type: CONTENT_TYPE.to_owned(), data });
        Ok(Response::new(stream))
    }

    async fn find_missing_parts(
        &self,
        request: Request<v1::FindMissingPartsRequest>,
    ) -> Result<Response<v1::FindMissingPartsResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().parent)?;
        let request = request.get_ref();
        let wanted = digests(&request.digests, MAX_LOOKED_UP)?;
        let (missing, _) = self.artifacts.missing(&namespace, &wanted).await?;
        let bytes = upload_bytes(request, &wanted, &missing)?;
        if bytes > 0 {
            self.artifacts.admit(&namespace, bytes)?;
        }
        let digests = missing.iter().map(|digest| digest.as_bytes().to_vec()).collect();
        Ok(Response::new(v1::FindMissingPartsResponse { digests }))
    }

    async fn upload_parts(
        &self,
        mut request: Request<Streaming<v1::UploadPartsRequest>>,
    ) -> Result<Response<v1::UploadPartsResponse>, Status> {
        let mut to = None;
        let mut parts = 0;
        while let Some(part) = request.get_mut().message().await? {
            let namespace = match &to {
                Some(namespace) => {
                    // The pod may have been deleted since the upload began.
                    self.check_holder(&request)?;
                    namespace
                }
                None => to.insert(self.namespace(&request, &part.parent)?),
            };
            if part.data.is_empty() || part.data.len() > MAX_PART_BYTES {
                return Err(invalid("data", "must have from 1 byte to 1 MiB"));
            }
            self.artifacts.admit(namespace, 0)?;
            self.artifacts.put(namespace, part.data).await?;
            parts += 1;
        }
        Ok(Response::new(v1::UploadPartsResponse { parts }))
    }

    async fn download_parts(
        &self,
        request: Request<v1::DownloadPartsRequest>,
    ) -> Result<Response<Self::DownloadPartsStream>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().parent)?;
        let wanted = digests(&request.get_ref().digests, MAX_DOWNLOADED)?;
        let stream = self.contents(&namespace, wanted, |data| v1::DownloadPartsResponse { data });
        Ok(Response::new(stream))
    }
}

impl Service {
    /// Returns the service of a control plane with these sessions.
    pub(crate) fn new(sessions: &SessionDeps, streams: Streams) -> Self {
        Self {
            store: sessions.store.clone(),
            artifacts: sessions.artifacts.clone(),
            scheduler: Arc::clone(&sessions.scheduler),
            agents: Arc::clone(&sessions.agents),
            streams,
        }
    }

    /// Returns the namespace of a call. A worker stays in its own.
    fn namespace<T>(&self, request: &Request<T>, parent: &str) -> Result<Namespace, Status> {
        let name = shape::parse_namespace(parent).ok_or_else(|| {
            invalid("parent", format!("{:?} is not of the form namespaces/NAMESPACE", check::shorten(parent)))
        })?;
        let namespace = names::namespace("parent", name)?;
        if let Some(own) = request.extensions().get::<Identity>().map(Identity::namespace)
            && own != namespace.as_str()
        {
            return Err(error("WORKER_NAME_MISMATCH", format!("the worker belongs to namespace {own}")));
        }
        self.check_holder(request)?;
        Ok(namespace)
    }

    /// Checks that the caller, if it is a pod, is a worker: every pod of the cluster can have a token.
    fn check_holder<T>(&self, request: &Request<T>) -> Result<(), Status> {
        match request.extensions().get::<Identity>().map(|identity| &identity.holder) {
            Some(Holder::Pod(pod)) => check_serves(&self.scheduler, self.agents.pools(), pod),
            _ => Ok(()),
        }
    }

    /// Streams the contents of parts, one after the other.
    fn contents<T: Send + 'static>(
        &self,
        namespace: &Namespace,
        wanted: Vec<Digest>,
        message: impl Fn(Bytes) -> T + Send + 'static,
    ) -> ReceiverStream<Result<T, Status>> {
        let (artifacts, namespace) = (self.artifacts.clone(), namespace.clone());
        // Nothing of them is removed while they are read.
        let pin = artifacts.parts.pin(namespace.as_str(), &wanted);
        self.streams.serve("download-parts", BUFFER, |outbox| async move {
            let _pin = pin;
            for digest in wanted {
                let data = artifacts.get(&namespace, digest).await?;
                send_in_time(&outbox, message(data)).await?;
            }
            Ok(())
        })
    }
}

/// Returns the bytes that an upload is about to add; 0 if there is none.
fn upload_bytes(
    request: &v1::FindMissingPartsRequest,
    wanted: &[Digest],
    missing: &[Digest],
) -> Result<u64, Status> {
    let earlier =
        u64::try_from(request.earlier_bytes).map_err(|_| invalid("earlier_bytes", "must not be negative"))?;
    if earlier > MAX_DECLARED {
        return Err(invalid("earlier_bytes", format!("must be at most {MAX_DECLARED}: no list has more")));
    }
    if request.sizes.is_empty() {
        return Ok(0);
    }
    if request.sizes.len() != wanted.len() {
        return Err(invalid("sizes", "must be as many as digests"));
    }
    if request.sizes.iter().any(|size| !(1..=MAX_PART_BYTES).contains(&(*size as usize))) {
        return Err(invalid("sizes", "must be from 1 byte to 1 MiB"));
    }
    let sizes: HashMap<_, _> = wanted.iter().zip(&request.sizes).collect();
    let added: u64 =
        missing.iter().filter_map(|digest| sizes.get(digest)).map(|size| u64::from(**size)).sum();
    Ok(if added > 0 { earlier.saturating_add(added) } else { 0 })
}

fn digests(given: &[Vec<u8>], most: usize) -> Result<Vec<Digest>, Status> {
    check::count("digests", given.len(), most)?;
    let digests = given.iter().enumerate().map(|(index, digest)| {
        let why = || format!("has {} bytes instead of 32", num::to_i64(digest.len()));
        Digest::try_from(&digest[..]).map_err(|_| invalid(format!("digests[{index}]"), why()))
    });
    digests.collect()
}
