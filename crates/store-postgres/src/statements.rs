//! The statements of a commit: what a write changes, as arrays.

use std::collections::BTreeMap;
use std::sync::Arc;

use rota_core::AgentName;
use rota_core::task::Task;
use rota_core::{Namespace, RouteId, TaskKey};
use rota_store::codec::{encode, route_text, signed};
use rota_store::{Changes, DocumentKey, Error, place_of, stored_due, stored_task_end};
use tokio_postgres::types::ToSql;

use crate::rows::route_number;
use crate::sql;

type Param = Box<dyn ToSql + Sync + Send>;

/// The statements of a transaction between the fence and the commit, in order.
pub(crate) struct Statements {
    parts: Vec<(&'static str, Vec<Param>)>,
    /// Whether deadlines of workflows and steps may have changed.
    pub(crate) workflows: bool,
}

fn columns<T: ToSql + Sync + Send + 'static>(column: Vec<T>) -> Param {
    Box::new(column)
}

/// Collects one column of some items.
macro_rules! column {
    ($items:expr, |$item:pat_param| $value:expr) => {
        columns($items.iter().map(|$item| $value).collect::<Vec<_>>())
    };
}

/// Collects one column of some items, each of which is encoded.
macro_rules! encoded {
    ($items:expr, |$item:pat_param| $value:expr) => {
        columns($items.iter().map(|$item| $value).collect::<Result<Vec<_>, Error>>()?)
    };
}

// Behind the macros, which it uses.
mod workflows;

fn key(key: TaskKey) -> i64 {
    signed(key.0)
}

fn text(namespace: &Namespace) -> String {
    namespace.as_str().to_owned()
}

fn document_keys<'a>(keys: impl Iterator<Item = &'a DocumentKey> + Clone) -> Vec<Param> {
    vec![
        columns(keys.clone().map(|key| key.kind.as_str().to_owned()).collect()),
        columns(keys.clone().map(|key| text(&key.namespace)).collect()),
        columns(keys.map(|key| key.name.clone()).collect()),
    ]
}

impl Statements {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &[Param])> {
        self.parts.iter().map(|(sql, columns)| (*sql, &columns[..]))
    }

    /// Encodes what a write changes.
    pub(crate) fn new(changes: &Changes) -> Result<Self, Error> {
        let mut statements = Self { parts: Vec::new(), workflows: changes.workflows.has_rows() };
        statements.remove(changes);
        statements.tasks(changes)?;
        statements.names(changes)?;
        statements.workflows(&changes.workflows)?;
        Ok(statements)
    }

    /// Tasks that are stored as they are, and workflows and steps whose times are restored, at a start.
    pub(crate) fn repair(tasks: &[(Arc<Task>, RouteId)]) -> Result<Self, Error> {
        let restore = [sql::RESTORE_DUE, sql::RESTORE_ENDED, sql::RESTORE_STEPS];
        let parts = restore.into_iter().map(|sql| (sql, Vec::new())).collect();
        let mut statements = Self { parts, workflows: false };
        statements.update(tasks)?;
        Ok(statements)
    }

    /// Adds a statement, unless there is nothing to do for it.
    fn add(&mut self, count: usize, sql: &'static str, columns: impl FnOnce() -> Vec<Param>) {
        if count > 0 {
            self.parts.push((sql, columns()));
        }
    }

    fn remove(&mut self, changes: &Changes) {
        let removed = &changes.removed;
        let keys = removed.iter().map(|task| task.key).chain(changes.discarded.iter().copied());
        let keys: Vec<_> = keys.collect();
        for sql in [
            sql::DELETE_TASKS,
            sql::DELETE_SPECS,
            sql::DELETE_RESULTS,
            sql::DELETE_ARTIFACTS,
            sql::DELETE_SECRETS,
            sql::DELETE_EVENTS,
        ] {
            self.add(keys.len(), sql, || vec![column!(keys, |of| key(*of))]);
        }
        self.add(keys.len(), sql::LEAVE_KEYS, || vec![column!(keys, |of| key(*of)), Box::new(changes.now.0)]);
        let discarded = &changes.discarded;
        self.add(discarded.len(), sql::DISCARD_ALIASES, || vec![column!(discarded, |of| key(*of))]);
        let aliases: Vec<_> = removed.iter().filter_map(|task| Some((task, task.alias.clone()?))).collect();
        self.add(aliases.len(), sql::DELETE_ALIASES, || {
            vec![
                column!(aliases, |(task, _)| text(&task.namespace)),
                column!(aliases, |(_, alias)| alias.clone()),
                column!(aliases, |(task, _)| key(task.key)),
            ]
        });
        for (sql, keys) in [
            (sql::SET_ASIDE, &changes.undecodable),
            (sql::DELETE_SECRETS, &changes.removed_secrets),
            (sql::DELETE_DEPENDENTS, &changes.removed_dependents),
        ] {
            self.add(keys.len(), sql, || vec![column!(keys, |of| key(*of))]);
        }
        let routes = &changes.removed_routes;
        self.add(routes.len(), sql::DELETE_ROUTES, || vec![column!(routes, |route| route_number(*route))]);
        for (sql, names) in
            [(sql::DELETE_KEYS, &changes.removed_keys), (sql::DELETE_THREADS, &changes.removed_threads)]
        {
            self.add(names.len(), sql, || {
                vec![
                    column!(names, |(namespace, _)| text(namespace)),
                    column!(names, |(_, name)| name.clone()),
                ]
            });
        }
        let waits = &changes.removed_waits;
        self.add(waits.len(), sql::DELETE_WAITS, || {
            vec![
                column!(waits, |((namespace, _), _)| text(namespace)),
                column!(waits, |((_, of), _)| of.to_string()),
                column!(waits, |(_, waiter)| key(*waiter)),
            ]
        });
        let agents = &changes.removed_agents;
        self.add(agents.len(), sql::DELETE_AGENTS, || {
            vec![
                column!(agents, |(namespace, _)| text(namespace)),
                column!(agents, |(_, name)| name.as_str().to_owned()),
            ]
        });
        let cool_downs = &changes.removed_cool_downs;
        self.add(cool_downs.len(), sql::DELETE_COOL_DOWNS, || {
            vec![
                column!(cool_downs, |(namespace, _)| text(namespace)),
                column!(cool_downs, |(_, credential)| credential.to_string()),
            ]
        });
        let sessions = &changes.removed_sessions;
        self.add(sessions.len(), sql::DELETE_SESSIONS, || {
            vec![
                column!(sessions, |(namespace, _)| text(namespace)),
                column!(sessions, |(_, worker)| worker.as_str().to_owned()),
            ]
        });
        let documents = &changes.removed_documents;
        self.add(documents.len(), sql::DELETE_DOCUMENTS, || document_keys(documents.iter()));
        let numbers = &changes.removed_follow_ups;
        self.add(numbers.len(), sql::DELETE_FOLLOW_UPS, || vec![column!(numbers, |number| signed(*number))]);
    }

    fn update(&mut self, updated: &[(Arc<Task>, RouteId)]) -> Result<(), Error> {
        if updated.is_empty() {
            return Ok(());
        }
        let params = vec![
            column!(updated, |(task, _)| key(task.key)),
            column!(updated, |(task, _)| i16::from(task.state as u8)),
            column!(updated, |(_, route)| route_number(*route)),
            column!(updated, |(task, _)| task.rank()),
            column!(updated, |(task, _)| stored_due(task).map(|at| at.0)),
            column!(updated, |(task, _)| stored_task_end(task).map(|at| at.0)),
            encoded!(updated, |(task, _)| encode(&**task)),
        ];
        self.parts.push((sql::UPDATE_TASKS, params));
        Ok(())
    }

    fn tasks(&mut self, changes: &Changes) -> Result<(), Error> {
        let new = &changes.inserted;
        if !new.is_empty() {
            let params = vec![
                column!(new, |(task, ..)| key(task.key)),
                column!(new, |(task, ..)| task.id.0),
                column!(new, |(task, ..)| text(&task.namespace)),
                column!(new, |(task, ..)| i16::from(task.state as u8)),
                column!(new, |(_, route, _)| route_number(*route)),
                column!(new, |(task, ..)| task.rank()),
                column!(new, |(task, ..)| stored_due(task).map(|at| at.0)),
                column!(new, |(task, ..)| stored_task_end(task).map(|at| at.0)),
                encoded!(new, |(task, ..)| encode(&**task)),
                column!(new, |(.., payload)| payload.to_vec()),
                column!(new, |(task, ..)| place_of(task).map(|(workflow, _)| signed(workflow.0))),
                column!(new, |(task, ..)| place_of(task).map(|(_, (step, ..))| i64::from(step))),
                column!(new, |(task, ..)| place_of(task).map(|(_, (_, round, _))| i64::from(round))),
                column!(new, |(task, ..)| place_of(task).map(|(_, (.., item))| i64::from(item))),
            ];
            self.parts.push((sql::INSERT_TASKS, params));
        }
        self.update(&changes.updated)?;
        for (sql, bodies) in [(sql::PUT_RESULTS, &changes.results), (sql::PUT_SECRETS, &changes.secrets)] {
            // A statement must not change a row twice: the last one counts.
            let bodies: BTreeMap<_, _> = bodies.iter().map(|(key, body)| (*key, body)).collect();
            self.add(bodies.len(), sql, || {
                vec![column!(bodies, |(of, _)| key(*of)), column!(bodies, |(_, body)| body.to_vec())]
            });
        }
        let artifacts: BTreeMap<_, _> = changes.artifacts.iter().map(|(key, list)| (*key, list)).collect();
        self.add(artifacts.len(), sql::PUT_ARTIFACTS, || {
            vec![
                column!(artifacts, |(of, _)| key(of.task)),
                column!(artifacts, |(of, _)| i64::from(of.attempt)),
                column!(artifacts, |(_, list)| list.to_vec()),
            ]
        });
        let log = &changes.log;
        if !log.is_empty() {
            let first = |events: &[rota_core::task::Event]| events.first().map_or(0, |event| event.log_seq);
            let params = vec![
                column!(log, |(revision, ..)| signed(*revision)),
                column!(log, |(_, of, _)| key(*of)),
                column!(log, |(.., events)| signed(first(events))),
                encoded!(log, |(.., events)| encode(events)),
            ];
            self.parts.push((sql::APPEND, params));
        }
        Ok(())
    }

    fn names(&mut self, changes: &Changes) -> Result<(), Error> {
        let routes = &changes.routes;
        if !routes.is_empty() {
            let params = vec![
                column!(routes, |(id, _)| route_number(*id)),
                encoded!(routes, |(_, route)| route_text(route)),
            ];
            self.parts.push((sql::INSERT_ROUTES, params));
        }
        let aliases = &changes.aliases;
        self.add(aliases.len(), sql::PUT_ALIASES, || {
            vec![
                column!(aliases, |((namespace, _), _)| text(namespace)),
                column!(aliases, |((_, alias), _)| alias.clone()),
                column!(aliases, |(_, of)| key(*of)),
            ]
        });
        let keys = &changes.idempotency_keys;
        self.add(keys.len(), sql::INSERT_KEYS, || {
            vec![
                column!(keys, |((namespace, _), ..)| text(namespace)),
                column!(keys, |((_, name), ..)| name.clone()),
                column!(keys, |(_, id, _)| id.0),
                column!(keys, |(.., of)| key(*of)),
            ]
        });
        let threads = &changes.threads;
        if !threads.is_empty() {
            let params = vec![
                column!(threads, |((namespace, _), _)| text(namespace)),
                column!(threads, |((_, name), _)| name.clone()),
                column!(threads, |(_, thread)| thread.idle_since().map(|at| at.0)),
                encoded!(threads, |(_, thread)| encode(thread)),
            ];
            self.parts.push((sql::PUT_THREADS, params));
        }
        let waits = &changes.waits;
        self.add(waits.len(), sql::PUT_WAITS, || {
            vec![
                column!(waits, |((namespace, _), _)| text(namespace)),
                column!(waits, |((_, of), _)| of.to_string()),
                column!(waits, |(_, waiter)| key(*waiter)),
            ]
        });
        let edges = &changes.edges;
        self.add(edges.len(), sql::PUT_EDGES, || {
            vec![column!(edges, |(task, _)| key(*task)), column!(edges, |(_, dependent)| key(*dependent))]
        });
        let follow_ups: BTreeMap<_, _> =
            changes.follow_ups.iter().map(|(number, one)| (*number, one)).collect();
        if !follow_ups.is_empty() {
            let params = vec![
                column!(follow_ups, |(number, _)| signed(*number)),
                encoded!(follow_ups, |(_, one)| encode(*one)),
            ];
            self.parts.push((sql::PUT_FOLLOW_UPS, params));
        }
        self.objects(changes)
    }

    fn objects(&mut self, changes: &Changes) -> Result<(), Error> {
        let agents = &changes.agents;
        if !agents.is_empty() {
            let params = vec![
                column!(agents, |agent| text(&agent.namespace)),
                column!(agents, |agent| agent.name.as_str().to_owned()),
                encoded!(agents, |agent| encode(&**agent)),
            ];
            self.parts.push((sql::PUT_AGENTS, params));
        }
        let cool_downs = &changes.cool_downs;
        if !cool_downs.is_empty() {
            let params = vec![
                column!(cool_downs, |cool_down| text(&cool_down.namespace)),
                column!(cool_downs, |cool_down| cool_down.credential.to_string()),
                encoded!(cool_downs, |cool_down| encode(&**cool_down)),
            ];
            self.parts.push((sql::PUT_COOL_DOWNS, params));
        }
        let accounts = &changes.accounts;
        if !accounts.is_empty() {
            let agent = |scope: &rota_core::spending::Scope| {
                scope.agent().map(AgentName::as_str).unwrap_or_default().to_owned()
            };
            let params = vec![
                column!(accounts, |account| text(&account.namespace)),
                column!(accounts, |account| agent(&account.scope)),
                encoded!(accounts, |account| encode(&**account)),
            ];
            self.parts.push((sql::PUT_ACCOUNTS, params));
        }
        let documents: BTreeMap<_, _> =
            changes.documents.iter().map(|document| (&document.key, document)).collect();
        if !documents.is_empty() {
            let mut params = document_keys(documents.keys().copied());
            params.push(encoded!(documents, |(_, document)| encode(&***document)));
            self.parts.push((sql::PUT_DOCUMENTS, params));
        }
        let sessions = &changes.sessions;
        if !sessions.is_empty() {
            let params = vec![
                column!(sessions, |session| text(&session.namespace)),
                column!(sessions, |session| session.worker.as_str().to_owned()),
                column!(sessions, |session| signed(session.epoch.0)),
                column!(sessions, |session| session.open),
                column!(sessions, |session| (!session.open).then_some(session.since.0)),
                encoded!(sessions, |session| encode(session)),
            ];
            self.parts.push((sql::PUT_SESSIONS, params));
        }
        Ok(())
    }
}
