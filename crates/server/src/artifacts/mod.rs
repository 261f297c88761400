//! Artifacts: contents in the storage of parts, and the lists that refer to them, in the store.

mod full;
mod lists;
mod lost;
mod outage;
mod sweep;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rota_artifacts::{Digest, Error, Parts, Pin};
use rota_core::{Namespace, Timestamp};
use rota_proto::reasons;
use rota_proto::times::UPLOAD_DELAY;
use rota_store::StoreSpace;
use tonic::Status;

use crate::clock::now;
use crate::health::{self, Cause};
use crate::store_client::StoreClient;
use crate::wire::status::{error, hinted};

use full::{Full, NoRoom};
pub(crate) use lists::{check, decode, digests, left_by, newest, of_attempt, of_task};
use lost::Lost;
use outage::Outage;
use outage::Way;
pub(crate) use sweep::run as sweep;

const HINT: &str =
    "check the storage of artifacts (`artifacts` in the server's settings) and the server's log";
pub(crate) const HINT_FULL: &str = "delete old tasks with `rota admin prune`, which frees their artifacts within an hour, or \
                                    raise `artifacts_quota_mib` of the server";

/// Time after the last failure for which it is reported.
const SHOWN: Duration = Duration::from_secs(15 * 60);
// Workers repeat what has failed within it.
const _: () = assert!(SHOWN.as_secs() > 2 * UPLOAD_DELAY.as_secs());

/// A namespace with less than this part of its quota left is nearly full: what it refuses is reported, and what is abandoned removed sooner.
const NEARLY_FULL: u64 = 8;

/// Contents of artifacts, within the quota of each namespace.
#[derive(Clone)]
pub(crate) struct Artifacts {
    pub(crate) parts: Parts,
    store: StoreClient,
    /// Largest number of bytes as stored; 0 for no limit.
    quota: u64,
    /// Bytes as stored, by namespace: counted by each sweep, and added to since.
    used: Arc<Mutex<HashMap<Arc<str>, u64>>>,
    /// The last measurement of the volume, and the bytes that were stored since.
    unmeasured: Arc<Mutex<(Option<StoreSpace>, u64)>>,
    outage: Outage,
    /// Why a local folder could not be recognized, until it is.
    unrecognized: Arc<Mutex<Option<String>>>,
    full: Full,
    lost: Lost,
}

impl Artifacts {
    pub(crate) fn new(parts: Parts, store: StoreClient, quota: u64) -> Self {
        Self {
            parts,
            store,
            quota,
            used: Arc::default(),
            unmeasured: Arc::default(),
            outage: Outage::default(),
            unrecognized: Arc::default(),
            full: Full::default(),
            lost: Lost::default(),
        }
    }

    /// Fails if an upload of so many bytes has no room in a namespace, or of 0 if nothing more may be stored. What a caller declares
    /// decides on this upload only: others learn of it if the namespace is nearly full.
    pub(crate) fn admit(&self, namespace: &Namespace, bytes: u64) -> Result<(), NoRoom> {
        let namespace = namespace.as_str();
        self.room_for(namespace, bytes).inspect_err(|_| {
            if self.little_room(namespace).is_err() {
                self.full.refused(namespace, now());
            }
        })
    }

    /// Fails if an upload of so many bytes would have no room in a namespace. None is refused by that.
    pub(crate) fn check_room(&self, namespace: &Namespace, bytes: u64) -> Result<(), NoRoom> {
        self.room_for(namespace.as_str(), bytes)
    }

    /// Fails if a namespace is nearly full.
    fn little_room(&self, namespace: &str) -> Result<(), NoRoom> {
        let used = self.used.lock().get(namespace).copied().unwrap_or_default();
        match self.quota > 0 && used >= self.quota - self.quota / NEARLY_FULL {
            true => Err(self.no_room(namespace, used)),
            false => self.room_on_volume(),
        }
    }

    fn no_room(&self, namespace: &str, used: u64) -> NoRoom {
        let message = format!(
            "the artifacts of namespace {namespace} take {} MiB, of {} MiB that they may take",
            used >> 20,
            self.quota >> 20
        );
        NoRoom { message, hint: HINT_FULL, bytes: 1 }
    }

    fn room_for(&self, namespace: &str, bytes: u64) -> Result<(), NoRoom> {
        let used = self.used.lock().get(namespace).copied().unwrap_or_default();
        if self.quota > 0 && used.saturating_add(bytes.max(1)) > self.quota {
            let mut full = self.no_room(namespace, used);
            if bytes > 0 {
                let added = bytes.div_ceil(1 << 20);
                full.message = format!("{}, and up to {added} MiB are to be added", full.message);
                full.bytes = bytes;
            }
            return Err(full);
        }
        self.room_on_volume()
    }

    /// Fails if a list of a namespace may not be stored.
    pub(crate) fn admit_list(&self, namespace: &Namespace) -> Result<(), NoRoom> {
        let room = self.room_on_volume();
        room.inspect_err(|_| self.full.refused(namespace.as_str(), now()))
    }

    /// Fails if the volume of the store has no room for more than results. A folder of artifacts is on it by default.
    fn room_on_volume(&self) -> Result<(), NoRoom> {
        let Some(space) = self.store.space() else { return Ok(()) };
        let mut unmeasured = self.unmeasured.lock();
        if unmeasured.0.as_ref() != Some(&space) {
            *unmeasured = (Some(space), 0);
        }
        let stored = unmeasured.1;
        drop(unmeasured);
        if !space.has_room_for_others(stored) {
            return Err(NoRoom {
                message: health::describe_space(&space),
                hint: health::SPACE_HINT,
                bytes: 1,
            });
        }
        Ok(())
    }

    /// Returns why uploads to a namespace are refused, unless there is room again.
    pub(crate) fn full(&self, namespace: &str, now: Timestamp) -> Option<Cause> {
        let since = self.full.shown(namespace, now)?;
        Some(self.little_room(namespace).err()?.cause(namespace, since))
    }

    /// Returns why the storage takes or gives nothing.
    pub(crate) fn outage(&self, now: Timestamp) -> Option<Cause> {
        let mut cause = self.outage.cause(now)?;
        // The error with which every call fails otherwise does not have the reason.
        if let Some(reason) = &*self.unrecognized.lock()
            && !cause.message.ends_with(reason)
        {
            cause.message = format!("{}; {reason}", cause.message);
        }
        Some(cause)
    }

    /// Returns all that is wrong.
    pub(crate) fn causes(&self, now: Timestamp) -> Vec<Cause> {
        let full = self.full.namespaces(now).into_iter().filter_map(|namespace| self.full(&namespace, now));
        self.outage(now).into_iter().chain(full).chain(self.lost.causes()).collect()
    }

    /// Returns how many parts are lost of each namespace, and of none for what workflows have taken over.
    pub(crate) fn lost(&self) -> Vec<(String, usize)> {
        self.lost.parts()
    }

    /// Returns the bytes of every namespace, as stored, and whether uploads to it are refused.
    pub(crate) fn usage(&self) -> Vec<(Arc<str>, u64, bool)> {
        let mut used = self.used.lock().clone();
        for refused in self.full.namespaces(now()) {
            used.entry(refused).or_default();
        }
        let used = used.into_iter().map(|(namespace, bytes)| {
            let is_full = self.full(&namespace, now()).is_some();
            (namespace, bytes, is_full)
        });
        used.collect()
    }

    /// Stores a part durably, and counts its size unless it was there.
    pub(crate) async fn put(&self, namespace: &Namespace, data: Bytes) -> Result<(), Status> {
        let (_, size) = self.parts.put(namespace.as_str(), data).await.map_err(|error| self.failed(error))?;
        self.outage.end(Way::In);
        *self.used.lock().entry(namespace.as_str().into()).or_default() += size as u64;
        self.unmeasured.lock().1 += size as u64;
        Ok(())
    }

    /// Returns those of these parts that are not stored. The others stay until the pin is dropped.
    pub(crate) async fn missing(
        &self,
        namespace: &Namespace,
        digests: &[Digest],
    ) -> Result<(Vec<Digest>, Pin), Status> {
        let pin = self.parts.pin(namespace.as_str(), digests);
        let missing = self.parts.missing(namespace.as_str(), digests).await;
        Ok((missing.map_err(|error| self.failed(error))?, pin))
    }

    /// Returns the content of a part.
    pub(crate) async fn get(&self, namespace: &Namespace, digest: Digest) -> Result<Bytes, Status> {
        match self.parts.get(namespace.as_str(), digest).await {
            Ok(data) => {
                self.outage.end(Way::Out);
                Ok(data)
            }
            Err(error) => {
                self.outage.failed(&error, Way::Out, now());
                Err(status(error))
            }
        }
    }

    fn failed(&self, error: Error) -> Status {
        self.outage.failed(&error, Way::In, now());
        status(error)
    }
}

/// Converts an error of the storage.
pub(crate) fn status(failed: Error) -> Status {
    match failed {
        Error::NotFound(_) => error(reasons::ARTIFACT_NOT_STORED, failed.to_string()),
        Error::Damaged(_) => error("STORE_CORRUPT", failed.to_string()),
        Error::Size(_) => crate::wire::status::invalid("data", failed.to_string()),
        Error::Unavailable(_) | Error::TimedOut | Error::Shared(_) | Error::Url { .. } => {
            hinted("ARTIFACTS_UNAVAILABLE", failed.to_string(), HINT)
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use rota_store::engine::Engine;
    use rota_store::memory::InMemoryStore;
    use rota_store::single_writer::SingleWriterStore;
    use rota_testkit::s3_server::without_bucket;

    use super::*;

    #[tokio::test]
    async fn upload_to_an_absent_bucket_shows_an_outage() {
        let parts = Parts::open("s3://mistyped", without_bucket().await.unwrap()).unwrap();
        let memory = InMemoryStore::default();
        let engine = Engine::new(memory.clone(), 0).unwrap();
        let store = SingleWriterStore::start(engine, memory, Arc::new(now)).unwrap();
        let artifacts =
            Artifacts::new(parts, StoreClient::new(Arc::new(store), Arc::new(now), Counter::default()), 0);
        let refused = artifacts.put(&Namespace::new("n").unwrap(), "text".into()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused}");
        let causes = artifacts.causes(now());
        assert!(matches!(&causes[..], [cause] if cause.message.contains("bucket does not exist")));
    }
}
