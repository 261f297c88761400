//! Rehearsals: answered as the batch itself would be, and nothing changes.

use rota_core::rank::Priority;
use rota_core::task::{self, DependencyState, State};
use rota_core::{Epoch, failure};

use super::trial::{Trial, delete_agent, make, namespace, on, on_alias, open_session, put_agent};
use crate::{Command, Create, Refused, Reply};

impl Trial {
    /// Rehearses a batch, and sees that nobody was told of anything.
    async fn rehearse(&mut self, batch: Vec<Command>) -> Vec<Result<Reply, Refused>> {
        let told = self.commits.len();
        let before = format!("{:?}", self.store.snapshot().await.unwrap());
        let replies = self.store.rehearse(batch).await.unwrap();
        assert_eq!(format!("{:?}", self.store.snapshot().await.unwrap()), before);
        // A commit of nothing comes behind whatever the rehearsal could have told.
        self.batch(Vec::new()).await;
        assert_eq!(self.commits.len(), told, "a rehearsal was told");
        replies
    }
}

fn keyed(mut create: Create, key: &str) -> Create {
    create.key = Some(key.to_owned());
    create
}

pub async fn new_ones_and_known_ones(t: &mut Trial) {
    t.agent("a").await;
    let (first, second) = (keyed(t.task(), "k"), keyed(t.task(), "k"));
    let (id, other) = (first.new.id, second.new.id);
    let replies = t.rehearse(vec![make(first), make(second)]).await;
    let [Ok(Reply::Created(made)), Ok(Reply::Existing(same))] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!((made.id, made.state, same.id), (id, State::Queued, id));
    for id in [id, other] {
        assert_eq!(t.store.task(id).await.unwrap(), None);
        assert_eq!(t.store.payload(id).await.unwrap(), None);
    }
    // The key is nobody's yet.
    let third = keyed(t.task(), "k");
    let third = t.create(third).await;
    let again = keyed(t.task(), "k");
    let replies = t.rehearse(vec![make(again)]).await;
    assert!(matches!(&replies[..], [Ok(Reply::Existing(task))] if *task == third), "{replies:?}");
}

pub async fn what_is_refused(t: &mut Trial) {
    let strict = |t: &mut Trial| {
        let mut create = t.task();
        create.strict = true;
        create
    };
    let (one, two) = (strict(t), strict(t));
    let replies = t.rehearse(vec![make(one), put_agent("a", "v1", None), make(two)]).await;
    let missing = Refused::Strict { what: "agent", name: "a".to_owned(), index: 0 };
    assert!(matches!(&replies[0], Err(refused) if *refused == missing), "{replies:?}");
    assert!(matches!(&replies[1..], [Ok(Reply::Agent(_)), Ok(Reply::Created(_))]), "{replies:?}");
    // The agent was rehearsed, too.
    let three = strict(t);
    assert_eq!(t.one(make(three)).await.unwrap_err(), missing);
}

pub async fn a_cycle_is_seen(t: &mut Trial) {
    t.agent("a").await;
    let mut waits = t.task();
    waits.new.dependencies = vec![on_alias("last")];
    let waits = t.create(waits).await;
    let mut last = t.task();
    last.new.alias = Some("last".to_owned());
    last.new.dependencies = vec![on(waits.id)];
    let replies = t.rehearse(vec![make(last)]).await;
    let [Ok(Reply::Created(told))] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!(told.failure.as_ref().unwrap().class, failure::Class::Dependency);
    assert_eq!(t.read(waits.id).await, *waits);
    // It still waits for whoever comes under that name.
    let mut last = t.task();
    last.new.alias = Some("last".to_owned());
    let last = t.create(last).await;
    assert_eq!(t.read(waits.id).await.dependencies[0].state, DependencyState::Waiting(last.id));
}

pub async fn agents_and_updates(t: &mut Trial) {
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
    let replies = t.rehearse([update(9)].into_iter().chain(agents).collect()).await;
    let [Ok(Reply::Task(told, _)), Ok(Reply::Deleted), Ok(Reply::Agent(_)), Err(Refused::NoAgent(_))] =
        &replies[..]
    else {
        panic!("{replies:?}")
    };
    assert_eq!(told.priority.get(), 9);
    assert_eq!(t.read(task.id).await, *task);
}

pub async fn nothing_is_left(t: &mut Trial) {
    t.agent("a").await;
    let worker = t.hello("w").await;
    let mut create = t.task();
    create.offer = Some(worker.clone());
    let running = t.create(create).await;
    assert_eq!(running.state, State::Assigned);
    // Another Hello ends what the worker had; a rehearsed one must not.
    let replies = t.rehearse(vec![open_session("w", "process 2", Vec::new())]).await;
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
