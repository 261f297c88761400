//! `Task` resources: each is handed to the control plane once, followed, and written down.

mod apply;
mod build;
mod dereference;
mod feed;
mod mirror;
mod status;
mod sweep;
mod validate;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use rota_crds::resource::{Task, TaskPhase};
use rota_proto::v1;
use rota_telemetry::clock;
use tokio::sync::mpsc;

use self::apply::Handed;
use self::mirror::Mirror;
use self::sweep::Gone;
use crate::context::Context;
use crate::controller::{Failure, Guarded, Reconciler};

pub(crate) use self::feed::Stores;

/// Resources that were deleted and that the control plane has not been told of yet. More than that,
/// and the sweep finds the rest.
const GONE: usize = 4096;
/// A task that waits is looked at again this often: what it waits for may read differently.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Something that goes on without a word is looked at this often, in case a word was lost.
const LOOK_AGAIN_ANYWAY: Duration = Duration::from_secs(600);

/// Looks after tasks.
pub(crate) struct Tasks {
    context: Context,
    stores: Stores,
    mirror: Arc<Mirror>,
    gone: mpsc::Sender<Gone>,
    /// Those of which an Event has said that they wait long.
    told_to_wait: Mutex<HashSet<String>>,
}

/// What belongs to tasks beside their reconciler.
pub(crate) struct Parts {
    pub tasks: Arc<Tasks>,
    mirror: Arc<Mirror>,
    gone: mpsc::Receiver<Gone>,
}

impl Parts {
    pub(crate) fn new(context: Context, stores: Stores) -> Self {
        let mirror = Arc::new(Mirror::default());
        let (sender, gone) = mpsc::channel(GONE);
        let tasks = Tasks {
            context,
            stores,
            mirror: Arc::clone(&mirror),
            gone: sender,
            told_to_wait: Mutex::default(),
        };
        Self { tasks: Arc::new(tasks), mirror, gone }
    }

    /// Follows the control plane and ends what lost its resource, until `shutdown`.
    pub(crate) async fn run(
        self,
        context: Context,
        stores: Stores,
        shutdown: tokio_util::sync::CancellationToken,
    ) -> Result<(), crate::Error> {
        let (missed, asked) = mpsc::channel(1);
        let sweep = sweep::run(context.clone(), Arc::clone(&stores), self.gone, asked, shutdown.clone());
        let feed = feed::run(context, stores, self.mirror, missed, shutdown);
        tokio::select! {
            followed = feed => followed,
            () = sweep => Ok(()),
        }
    }
}

impl Reconciler<Task> for Tasks {
    async fn reconcile(&self, task: &Task) -> Result<Action, Failure> {
        let uid = task.uid().unwrap_or_default();
        let now = Timestamp::try_from(clock::now()).unwrap_or(Timestamp::UNIX_EPOCH);
        if task.metadata.deletion_timestamp.is_some() {
            sweep::cancel(&self.context, Gone::of(task)).await?;
            return Ok(Action::await_change());
        }
        if task.status.as_ref().is_some_and(|status| status::is_final(status.phase)) {
            self.forget(&uid);
            return self.expire(task, now).await;
        }
        if let Err(message) = validate::check(task) {
            let ended = status::ended(task, TaskPhase::Failed, "InvalidSpec", &message, now);
            apply::status(&self.context, task, ended).await?;
            return Ok(Action::await_change());
        }

        let record = match dereference::record(&self.context, &self.mirror, task).await? {
            Some(record) => record,
            None if task.status.as_ref().is_some_and(|status| status.task_id.is_some()) => {
                let message = "the control plane no longer knows this task; it is not run a second time";
                let ended = status::ended(task, TaskPhase::OutcomeUnknown, "RecordGone", message, now);
                apply::status(&self.context, task, ended).await?;
                return Ok(Action::await_change());
            }
            None => match apply::hand_in(&self.context, task).await? {
                Handed::In(record) => {
                    // Deleted while it was handed in: whoever saw it go found nothing to end.
                    if !self.exists(task) {
                        sweep::cancel(&self.context, Gone::of(task)).await?;
                        return Ok(Action::await_change());
                    }
                    self.mirror.put(*record)
                }
                Handed::Refused { reason, message } => {
                    let ended = status::ended(task, TaskPhase::Failed, &reason, &message, now);
                    apply::status(&self.context, task, ended).await?;
                    return Ok(Action::await_change());
                }
            },
        };
        let record = match build::change(task, &record, &self.context.cluster) {
            Some(request) if !is_over(&record) => apply::change(&self.context, &self.mirror, request).await?,
            _ => record,
        };
        self.write_down(task, &record, now).await
    }

    fn deleted(&self, task: &Task) {
        self.forget(&task.uid().unwrap_or_default());
        // If there are too many at once, the sweep finds the rest.
        let _ = self.gone.try_send(Gone::of(task));
    }
}

impl Tasks {
    /// Writes what the record says, if it is time to.
    async fn write_down(
        &self,
        task: &Task,
        record: &Arc<v1::Task>,
        now: Timestamp,
    ) -> Result<Action, Failure> {
        let waited = dereference::waited(record, now);
        let waits = dereference::waits(record);
        let record = if is_over(record) {
            // A stream of many tasks leaves results out.
            &dereference::with_result(&self.context, record).await?
        } else {
            record
        };
        let waiting = match waits && waited >= status::PATIENCE {
            true => Some(dereference::waiting(&self.context, task, record).await?),
            false => None,
        };
        let built = status::build(task, record, waiting, now);
        let due = status::due(task, &built, waited);
        if let status::Due::In(wait) = due {
            return Ok(Action::requeue(wait));
        }
        self.tell(task, &built, waits && waited >= LOOK_AGAIN).await;
        let over = status::is_final(built.phase);
        if due == status::Due::Now {
            apply::status(&self.context, task, built).await?;
        }
        if over {
            self.forget(&record.uid);
        }
        Ok(Action::requeue(if waits { LOOK_AGAIN } else { LOOK_AGAIN_ANYWAY }))
    }

    /// Events, for what people want to hear of: a retry, a failure, a long wait.
    async fn tell(&self, task: &Task, built: &rota_crds::resource::TaskStatus, long: bool) {
        use kube::runtime::events::EventType::{Normal, Warning};
        let message = built.message.clone().unwrap_or_default();
        let before = task.status.as_ref().and_then(|status| status.attempt).unwrap_or(1);
        if let Some(attempt) = built.attempt.filter(|attempt| *attempt > before) {
            let note = format!("attempt {attempt} on {}", built.worker.as_deref().unwrap_or("a worker"));
            self.context.event(task, Normal, "Retried", "Run", &note).await;
        }
        if matches!(built.phase, TaskPhase::Failed | TaskPhase::OutcomeUnknown) {
            let reason = built.reason.as_deref().unwrap_or("Failed");
            self.context.event(task, Warning, "Failed", "Run", &format!("{reason}: {message}")).await;
        }
        if long && self.told_to_wait.lock().insert(task.uid().unwrap_or_default()) {
            self.context.event(task, Normal, "Waiting", "Schedule", &message).await;
        }
    }

    /// A resource may go some time after its end. The record stays.
    async fn expire(&self, task: &Task, now: Timestamp) -> Result<Action, Failure> {
        Ok(match build::remaining(task, now) {
            None => Action::await_change(),
            Some(wait) if wait.is_zero() => {
                apply::delete(&self.context, task).await?;
                Action::await_change()
            }
            Some(wait) => Action::requeue(wait),
        })
    }

    fn exists(&self, task: &Task) -> bool {
        let reference =
            ObjectRef::<Guarded<Task>>::new(&task.name_any()).within(&task.namespace().unwrap_or_default());
        let same = |known: Arc<Guarded<Task>>| known.uid() == task.uid();
        self.stores.iter().any(|(store, _)| store.get(&reference).is_some_and(same))
    }

    fn forget(&self, uid: &str) {
        self.mirror.forget(uid);
        self.told_to_wait.lock().remove(uid);
    }
}

fn is_over(record: &v1::Task) -> bool {
    let state = record.status.as_ref().map_or(v1::TaskState::Unspecified, v1::TaskStatus::state);
    rota_client::watch::is_final(state)
}
