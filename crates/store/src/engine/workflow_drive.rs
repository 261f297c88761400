//! What the driver of workflows has evaluated: the starts and ends of steps, and the tasks that it creates for them.

use bytes::Bytes;
use rota_core::workflow::{COMPENSATION, Kind, Rejected, Step, StepCommand, StepState, TaskEnd};
use rota_core::{TaskKey, Timestamp};

use super::{Answer, Engine};
use crate::{Action, Backend, Create, Error, NewRound, StepKey, reused_list, reused_results, step_items};

/// Result of an approval without a decision, as a decision without a comment leaves it.
pub(super) const fn default_decision(approves: bool) -> &'static [u8] {
    match approves {
        true => br#"{"approved":true,"comment":""}"#,
        false => br#"{"approved":false,"comment":""}"#,
    }
}

impl<B: Backend> Engine<B> {
    pub(super) fn put_output(&mut self, key: StepKey, output: Option<Bytes>) {
        let Some(output) = output else { return };
        let set = &mut self.write_set.workflows;
        if let Some(Some(entry)) = set.steps.get_mut(&key) {
            entry.step.has_output = true;
        }
        set.changes.outputs.push((key, output));
    }

    pub(super) fn drive(
        &mut self,
        key: StepKey,
        action: Action,
        now: Timestamp,
    ) -> Result<Result<Vec<TaskKey>, Rejected>, Error> {
        let done = match action {
            Action::Skip => self.apply_step(key, StepCommand::Skip, now)?,
            Action::Start(NewRound { start, items, tasks, nested }) => {
                if let Some(why) = self.no_room_for_nested(&nested)? {
                    let (round, state) = (start.round, StepState::Ready);
                    let fail = StepCommand::Fail { round, state, created: 0, message: why };
                    return Ok(self.apply_step(key, fail, now)?.map(|()| Vec::new()));
                }
                if let Err(rejected) = self.apply_step(key, StepCommand::Start(start), now)? {
                    return Ok(Err(rejected));
                }
                let parts = (0..).zip(items).map(|(part, body)| ((key.0, step_items(key.1, part)), body));
                self.write_set.workflows.changes.outputs.extend(parts);
                if !nested.is_empty() {
                    return self.create_nested(key, nested, now);
                }
                return self.create_tasks(key, tasks, now);
            }
            Action::Reuse { round, total, inputs, results, lists } => {
                let bytes = lists.iter().map(|(_, list)| list.len()).sum::<usize>();
                let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
                let reuse = StepCommand::Reuse { round, total, inputs, lists: bytes };
                self.reuse(key, reuse, results, lists, now)?
            }
            Action::More { round, created, tasks, nested } => {
                self.load_step(key)?;
                let step = self.write_set.workflows.step(key);
                let is_current = |step: &Step| step.round == round && step.created == created;
                if !step.is_some_and(is_current) {
                    return Ok(Err(Rejected::Outdated));
                }
                if let Some(why) = self.no_room_for_nested(&nested)? {
                    let state = StepState::Running;
                    let fail = StepCommand::Fail { round, state, created, message: why };
                    return Ok(self.apply_step(key, fail, now)?.map(|()| Vec::new()));
                }
                if !nested.is_empty() {
                    return self.create_nested(key, nested, now);
                }
                return self.create_tasks(key, tasks, now);
            }
            Action::Finish { round, again, outputs } => {
                if let Err(rejected) = self.apply_step(key, StepCommand::Finish { round, again }, now)? {
                    return Ok(Err(rejected));
                }
                self.put_output(key, outputs);
                Ok(())
            }
            Action::Fail { round, state, created, message } => {
                self.apply_step(key, StepCommand::Fail { round, state, created, message }, now)?
            }
            Action::CompensationFailed { after, message } => {
                self.apply_step(key, StepCommand::CompensationFailed { after, message }, now)?
            }
            Action::Compensate(create) => {
                let item = create.task.step.as_ref().map_or(0, |place| place.item);
                let created = StepCommand::CompensationCreated { item };
                if let Err(rejected) = self.apply_step(key, created, now)? {
                    return Ok(Err(rejected));
                }
                let failed = StepCommand::TaskEnded { round: COMPENSATION, end: TaskEnd::Failed };
                let offered = self.create_task(key, *create, failed, now)?;
                return Ok(Ok(offered.into_iter().collect()));
            }
        };
        Ok(done.map(|()| Vec::new()))
    }

    fn reuse(
        &mut self,
        key: StepKey,
        reuse: StepCommand,
        results: Option<Bytes>,
        lists: Vec<(u32, Bytes)>,
        now: Timestamp,
    ) -> Result<Result<(), Rejected>, Error> {
        if let Err(rejected) = self.apply_step(key, reuse, now)? {
            return Ok(Err(rejected));
        }
        let step = self.write_set.workflows.step(key);
        match step.filter(|step| step.reused).map(|step| step.kind) {
            None => {}
            Some(Kind::Task | Kind::Workflow) => {
                let results = results.map(|results| ((key.0, reused_results(key.1)), results));
                self.write_set.workflows.changes.outputs.extend(results);
                let lists = lists.into_iter().map(|(item, list)| (reused_list(key, item), list));
                self.write_set.changes.artifacts.extend(lists);
            }
            Some(_) => self.put_output(key, results),
        }
        Ok(Ok(()))
    }

    /// Creates tasks of a step that runs, as many as it wants. Returns those that were offered to a worker.
    fn create_tasks(
        &mut self,
        key: StepKey,
        mut tasks: Vec<Create>,
        now: Timestamp,
    ) -> Result<Result<Vec<TaskKey>, Rejected>, Error> {
        let Some(step) = self.write_set.workflows.step(key) else { return Ok(Err(Rejected::Outdated)) };
        tasks.truncate(step.wanted() as usize);
        let round = step.round;
        let Ok(count @ 1..) = u32::try_from(tasks.len()) else { return Ok(Ok(Vec::new())) };
        // Before the first of them may end.
        if let Err(rejected) = self.apply_step(key, StepCommand::Created { count }, now)? {
            return Ok(Err(rejected));
        }
        let mut offered = Vec::new();
        for create in tasks {
            let refused = StepCommand::TaskEnded { round, end: TaskEnd::Failed };
            offered.extend(self.create_task(key, create, refused, now)?);
        }
        Ok(Ok(offered))
    }

    /// Creates a task of a step; one that is refused counts as failed. Returns a task that was offered to a worker.
    fn create_task(
        &mut self,
        key: StepKey,
        create: Create,
        refused: StepCommand,
        now: Timestamp,
    ) -> Result<Option<TaskKey>, Error> {
        let (id, is_offered) = (create.task.id, create.offer.is_some());
        match self.create(create, now)? {
            Ok(created) => {
                if let Some(Some(entry)) = self.write_set.workflows.steps.get_mut(&key) {
                    entry.step.last_task = Some(id);
                }
                match created {
                    Answer::Created(task) if is_offered => return Ok(Some(task)),
                    _ => {}
                }
            }
            Err(why) => {
                if let Some(Some(entry)) = self.write_set.workflows.steps.get_mut(&key) {
                    entry.step.message = format!("a task was refused: {why}");
                }
                self.write_set.workflows.calls.push_back((key, refused));
            }
        }
        Ok(None)
    }
}
