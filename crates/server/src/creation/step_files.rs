//! Files that the tasks of steps are given: whether they are stored is looked up once for all tasks that are given the same ones, outside of
//! the driver's turns. A storage that does not answer holds up the steps that need it, and no others.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::pin::Pin as Pinned;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::Shared;
use parking_lot::Mutex;
use rota_artifacts::{Digest, Error, Pin};
use rota_core::Namespace;
use rota_telemetry::{OnExit, spawn};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;

use crate::artifacts::{self, Artifacts};

/// Time for which a turn waits for an answer of the storage, unless that is slow.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// Time of all looks of a turn from which on its other steps wait for the next one.
const MAX_WAIT_OF_TURN: Duration = Duration::from_millis(10);
/// Time of a look from which on the storage is slow.
const SLOW: Duration = Duration::from_millis(500);
/// Looks at the same time.
const MAX_LOOKS: usize = 32;
/// Looks whose outcomes are known.
const MAX_KNOWN: usize = 1024;
/// Time for which an outcome is used by other tasks, and its parts stay.
const KEPT: Duration = Duration::from_secs(10);
/// Time for which an outcome waits for the step that has asked for it, which tries again once a minute at least.
const MAX_UNTAKEN: Duration = Duration::from_secs(150);

type Key = (Namespace, Vec<Digest>);
/// Parts that are not stored. The others stay until the pin is dropped.
type Outcome = Result<(Vec<Digest>, Arc<Pin>), Status>;

type Looking = Pinned<Box<dyn Future<Output = Outcome> + Send>>;

struct Look {
    outcome: Shared<Looking>,
    is_taken: bool,
}

#[derive(Default)]
struct Looks {
    known: HashMap<Key, Look>,
    /// Number of looks that are slow and have no outcome yet.
    slow: usize,
}

/// Clones share what is known.
#[derive(Clone)]
pub(crate) struct StepFiles {
    looks: Arc<Mutex<Looks>>,
    running: Arc<Semaphore>,
    /// Microseconds that the turn has waited for the storage.
    waited: Arc<AtomicU64>,
}

impl Default for StepFiles {
    fn default() -> Self {
        Self { looks: Arc::default(), running: Arc::new(Semaphore::new(MAX_LOOKS)), waited: Arc::default() }
    }
}

fn unanswered() -> Status {
    artifacts::status(Error::TimedOut)
}

impl StepFiles {
    /// Returns the same for a turn of the driver, with waits of its own.
    pub(crate) fn of_turn(&self) -> Self {
        Self { waited: Arc::default(), ..self.clone() }
    }

    /// Whether the turn has waited so long for the storage that other steps should not wait with it.
    pub(crate) fn has_waited(&self) -> bool {
        u128::from(self.waited.load(Ordering::Relaxed)) >= MAX_WAIT_OF_TURN.as_micros()
    }

    /// As [`Artifacts::missing`], but fails if the storage takes long to answer: a later call has the outcome.
    pub(crate) async fn missing(
        &self,
        artifacts: &Artifacts,
        namespace: &Namespace,
        mut digests: Vec<Digest>,
    ) -> Outcome {
        digests.sort_unstable();
        let (artifacts, key) = (artifacts.clone(), (namespace.clone(), digests));
        let (within, wanted) = key.clone();
        self.look(key, async move {
            let (missing, pin) = artifacts.missing(&within, &wanted).await?;
            Ok((missing, Arc::new(pin)))
        })
        .await
    }

    /// As [`Self::missing`], but with no outcome that was for another task: what was there then may be lost by now.
    pub(crate) async fn missing_now(
        &self,
        artifacts: &Artifacts,
        namespace: &Namespace,
        mut digests: Vec<Digest>,
    ) -> Outcome {
        digests.sort_unstable();
        let key = (namespace.clone(), digests.clone());
        {
            let mut looks = self.looks.lock();
            if looks.known.get(&key).is_some_and(|look| look.is_taken) {
                looks.known.remove(&key);
            }
        }
        self.missing(artifacts, namespace, digests).await
    }

    async fn look(&self, key: Key, look: impl Future<Output = Outcome> + Send + 'static) -> Outcome {
        let (outcome, waits) = {
            let mut looks = self.looks.lock();
            if looks.known.len() >= MAX_KNOWN {
                looks.known.retain(|_, one| !one.is_taken || one.outcome.peek().is_none());
            }
            let is_full = looks.known.len() >= MAX_KNOWN;
            let waits = looks.slow == 0;
            let outcome = match looks.known.entry(key.clone()) {
                Entry::Occupied(known) => known.get().outcome.clone(),
                Entry::Vacant(_) if is_full => return Err(unanswered()),
                Entry::Vacant(place) => {
                    let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() else {
                        return Err(unanswered());
                    };
                    let look = async move {
                        let _permit = permit;
                        look.await
                    };
                    let outcome = look.boxed().shared();
                    place.insert(Look { outcome: outcome.clone(), is_taken: false });
                    spawn("step-files", OnExit::Done, self.clone().keep(key.clone(), outcome.clone()));
                    outcome
                }
            };
            (outcome, waits)
        };
        let answer = match outcome.peek() {
            Some(known) => Some(known.clone()),
            None if waits => {
                let begin = Instant::now();
                let answer = timeout(MAX_WAIT, outcome).await.ok();
                let waited = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.waited.fetch_add(waited, Ordering::Relaxed);
                answer
            }
            None => None,
        };
        let Some(answer) = answer else { return Err(unanswered()) };
        let mut looks = self.looks.lock();
        if let Entry::Occupied(mut known) = looks.known.entry(key)
            && known.get().outcome.peek().is_some()
        {
            match &answer {
                Ok((missing, _)) if missing.is_empty() => known.get_mut().is_taken = true,
                // It is asked again: the storage may answer by now, or have what was missing.
                _ => drop(known.remove()),
            }
        }
        answer
    }

    /// Sees a look to its end, and forgets its outcome later.
    async fn keep(self, key: Key, outcome: Shared<Looking>) {
        if timeout(SLOW, outcome.clone()).await.is_err() {
            self.looks.lock().slow += 1;
            drop(outcome.clone().await);
            self.looks.lock().slow -= 1;
        }
        let is_this = |look: &Look| look.outcome.ptr_eq(&outcome);
        sleep(KEPT).await;
        let waits = self.looks.lock().known.get(&key).is_some_and(|look| is_this(look) && !look.is_taken);
        if waits {
            sleep(MAX_UNTAKEN).await;
        }
        let mut looks = self.looks.lock();
        if looks.known.get(&key).is_some_and(is_this) {
            looks.known.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn key(namespace: &str, file: u8) -> Key {
        (Namespace::new(namespace).unwrap(), vec![Digest::of(&[file])])
    }

    fn stored() -> Outcome {
        let folder = tempfile::tempdir().unwrap();
        let parts = rota_artifacts::Parts::in_folder(folder.path()).unwrap();
        Ok((Vec::new(), Arc::new(parts.pin("n", &[]))))
    }

    #[tokio::test(start_paused = true)]
    async fn storage_that_hangs_holds_up_no_turns() {
        let (files, begin) = (StepFiles::default(), Instant::now());
        let looks = (0..12).map(|file| {
            let namespace = if file < 6 { "a" } else { "b" };
            files.look(key(namespace, file), std::future::pending())
        });
        let outcomes = futures::future::join_all(looks).await;
        assert!(
            outcomes.iter().all(|one| one.as_ref().is_err_and(|one| one.code() == tonic::Code::Unavailable))
        );
        assert_eq!(begin.elapsed().as_secs(), 1, "once");
        for file in 0..=u8::MAX {
            files.look(key("a", file), std::future::pending()).await.unwrap_err();
        }
        assert_eq!(begin.elapsed().as_secs(), 1, "the storage is known to be slow");
        assert_eq!(files.looks.lock().known.len(), MAX_LOOKS);
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_with_the_same_files_share_one_look() {
        let (files, count) = (StepFiles::default(), Arc::new(AtomicUsize::new(0)));
        let look = || {
            let count = Arc::clone(&count);
            files.look(key("a", 1), async move {
                count.fetch_add(1, Ordering::Relaxed);
                sleep(SLOW / 2).await;
                stored()
            })
        };
        for _ in 0..256 {
            assert_eq!(look().await.unwrap().0, []);
        }
        assert_eq!(count.load(Ordering::Relaxed), 1);
        // The parts do not stay for the next steps.
        sleep(KEPT * 2).await;
        assert!(files.looks.lock().known.is_empty());
        look().await.unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_look_ends_its_own_turn() {
        let files = StepFiles::default();
        let (slow, other) = (files.of_turn(), files.of_turn());
        let look = async {
            sleep(SLOW / 2).await;
            stored()
        };
        slow.look(key("a", 1), look).await.unwrap();
        assert!(slow.has_waited() && !other.has_waited());
        other.look(key("a", 1), std::future::pending()).await.unwrap();
        assert!(!other.has_waited(), "the outcome was known");
    }

    #[tokio::test(start_paused = true)]
    async fn late_answer_is_there_for_the_next_try() {
        let files = StepFiles::default();
        let late = || async {
            sleep(MAX_WAIT * 20).await;
            stored()
        };
        files.look(key("a", 1), late()).await.unwrap_err();
        sleep(Duration::from_secs(60)).await;
        files.look(key("a", 1), late()).await.unwrap();
        assert_eq!(files.looks.lock().slow, 0);
        let begin = Instant::now();
        files.look(key("a", 2), async { Err(unanswered()) }).await.unwrap_err();
        files.look(key("a", 2), async { stored() }).await.unwrap();
        assert_eq!(begin.elapsed(), Duration::ZERO, "a failure is not kept");
    }
}
