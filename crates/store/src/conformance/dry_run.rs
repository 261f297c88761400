//! Dry runs: the replies of the batch itself, without a change.

use rota_core::rank::Priority;
use rota_core::task::{self, DependencyState, State};
use rota_core::{Epoch, failure};

use super::harness::{Harness, delete_agent, make, namespace, on, on_alias, open_session, put_agent};
use crate::{Command, Create, Refused, Reply};

impl Harness {
    /// Executes a dry run, and checks that no commit is published.
    async fn dry_run(&mut self, batch: Vec<Command>) -> Vec<Result<Reply, Refused>> {
        let published = self.commits.len();
        let before = format!("{:?}", self.store.snapshot().await.unwrap());
        let replies = self.store.dry_run(batch).await.unwrap();
        assert_eq!(format!("{:?}", self.store.snapshot().await.unwrap()), before);
        // An empty batch, whose reply follows any commit of the dry run.
        self.batch(Vec::new()).await;
        assert_eq!(self.commits.len(), published, "a dry run published a commit");
        replies
    }
}

fn keyed(mut create: Create, key: &str) -> Create {
    create.key = Some(key.to_owned());
    create
}

pub async fn new_and_existing_tasks(t: &mut Harness) {
    t.agent("a").await;
    let (first, second) = (keyed(t.task(), "k"), keyed(t.task(), "k"));
    let (id, other) = (first.task.id, second.task.id);
    let replies = t.dry_run(vec![make(first), make(second)]).await;
    let [Ok(Reply::Created(made)), Ok(Reply::Existing(same))] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!((made.id, made.state, same.id), (id, State::Queued, id));
    for id in [id, other] {
        assert_eq!(t.find(id).await, None);
        assert_eq!(t.payload(id).await, None);
    }
    // The key is unused.
    let third = keyed(t.task(), "k");
    let third = t.create(third).await;
    let again = keyed(t.task(), "k");
    let replies = t.dry_run(vec![make(again)]).await;
    assert!(matches!(&replies[..], [Ok(Reply::Existing(task))] if *task == third), "{replies:?}");
}

pub async fn rejections_match(t: &mut Harness) {
    let strict = |t: &mut Harness| {
        let mut create = t.task();
        create.strict = true;
        create
    };
    let (one, two) = (strict(t), strict(t));
    let replies = t.dry_run(vec![make(one), put_agent("a", "v1", None), make(two)]).await;
    let missing = Refused::Strict { what: "agent", name: "a".to_owned(), index: 0 };
    assert!(matches!(&replies[0], Err(refused) if *refused == missing), "{replies:?}");
    assert!(matches!(&replies[1..], [Ok(Reply::Agent(_)), Ok(Reply::Created(_))]), "{replies:?}");
    // The agent was part of the dry run.
    let three = strict(t);
    assert_eq!(t.one(make(three)).await.unwrap_err(), missing);
}

pub async fn cycle_is_detected(t: &mut Harness) {
    t.agent("a").await;
    let mut waits = t.task();
    waits.task.dependencies = vec![on_alias("last")];
    let waits = t.create(waits).await;
    let mut last = t.task();
    last.task.alias = Some("last".to_owned());
    last.task.dependencies = vec![on(waits.id)];
    let replies = t.dry_run(vec![make(last)]).await;
    let [Ok(Reply::Created(change))] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!(change.failure.as_ref().unwrap().class, failure::Class::Dependency);
    assert_eq!(t.read(waits.id).await, *waits);
    // It still waits for a task with this alias.
    let mut last = t.task();
    last.task.alias = Some("last".to_owned());
    let last = t.create(last).await;
    assert_eq!(t.read(waits.id).await.dependencies[0].state, DependencyState::Waiting(last.id));
}

pub async fn agents_and_updates_match(t: &mut Harness) {
    t.agent("a").await;
    let task = t.plain().await;
    let update = |priority| Command::Task {
        namespace: namespace("n"),
        id: task.id,
        command: task::Command::Update {
            priority: Priority::new(priority),
            labels: None,
            desired: None,
            reason: String::new(),
        },
    };
    let agents = [delete_agent("a"), put_agent("a", "v2", Some(false)), put_agent("b", "v1", Some(true))];
    let replies = t.dry_run([update(9)].into_iter().chain(agents).collect()).await;
    let [Ok(Reply::Task(change, _)), Ok(Reply::Deleted), Ok(Reply::Agent(_)), Err(Refused::NoAgent(_))] =
        &replies[..]
    else {
        panic!("{replies:?}")
    };
    assert_eq!(change.priority.get(), 9);
    assert_eq!(t.read(task.id).await, *task);
}

pub async fn dry_run_leaves_nothing(t: &mut Harness) {
    t.agent("a").await;
    let worker = t.hello("w").await;
    let mut create = t.task();
    create.offer = Some(worker.clone());
    let running = t.create(create).await;
    assert_eq!(running.state, State::Assigned);
    // Another Hello ends the worker's attempts; that of a dry run must not.
    let replies = t.dry_run(vec![open_session("w", "process 2", Vec::new())]).await;
    let [Ok(Reply::Session(epoch, _))] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!(*epoch, Epoch(worker.epoch.0 + 1));
    assert_eq!(t.read(running.id).await, *running);
    let mut next = t.task();
    next.offer = Some(worker.clone());
    let next = t.create(next).await;
    assert_eq!((next.state, next.log_seq), (State::Assigned, running.log_seq));
    t.reopen().await;
    assert_eq!(t.read(running.id).await, *running);
    assert_eq!(t.hello("w").await.epoch, *epoch);
}
