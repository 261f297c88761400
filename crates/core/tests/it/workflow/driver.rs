//! What the driver of a control plane does for a step, and what people and time do.

use super::*;

impl World {
    pub(super) fn person(&mut self, index: usize) {
        let command = match self.steps[index].kind {
            // Its deadline does not pass during a pause.
            Kind::Approval { .. } if self.graph.steps[index].fails && self.workflow.is_paused() => {
                StepCommand::Decide { approves: false, message: String::new() }
            }
            Kind::Approval { .. } if self.graph.steps[index].fails => {
                self.now = self.now + Duration::from_secs(2);
                StepCommand::TICK
            }
            Kind::Approval { .. } => StepCommand::Decide { approves: true, message: String::new() },
            Kind::Signal { .. } => StepCommand::Signal,
            _ => {
                self.now = self.now + Duration::from_secs(2);
                StepCommand::TICK
            }
        };
        self.step(index, command);
    }

    pub(super) fn drive(&mut self, index: usize) {
        let (plan, step) = (self.graph.steps[index].clone(), self.steps[index].clone());
        let round = step.round;
        match step.state {
            StepState::Ready if plan.skips && round == 1 => self.step(index, StepCommand::Skip),
            StepState::Ready if plan.reused && round == 1 => {
                let (round, total) = (plan.rounds, plan.items);
                self.done.insert((index, round), (0..total).collect());
                self.step(index, StepCommand::Reuse { round, total, inputs: String::new(), lists: 0 });
            }
            StepState::Ready => {
                let (total, parallel) = (plan.items, plan.parallel);
                let start = Start { round, total, parallel, ..Start::default() };
                self.step(index, StepCommand::Start(start));
            }
            StepState::Ending => self.step(index, StepCommand::Finish { round, again: round < plan.rounds }),
            _ if step.compensation == Some(StepState::Ready) => {
                let end = step.compensable_end();
                let next = |item: &u32| !step.compensates_each || *item < end;
                let item = self.compensable(index).into_iter().find(next).unwrap();
                // One that was evaluated before the last one.
                let outdated = StepCommand::CompensationFailed { after: Some(item), message: String::new() };
                self.step(index, outdated);
                self.step(index, StepCommand::CompensationCreated { item });
                self.step(index, StepCommand::CompensationCreated { item });
                self.compensated.push((index, item));
                self.work.push(Work::Compensation(index, item));
                return;
            }
            _ => {}
        }
        let (wanted, created) = (self.steps[index].wanted().min(2), self.steps[index].created);
        if wanted > 0 {
            self.step(index, StepCommand::Created { count: wanted });
            let Step { round, created: now, .. } = self.steps[index];
            match &plan.inner {
                Some(graph) => (created..now).for_each(|item| self.create_inner(graph, index, round, item)),
                None => self.work.extend((created..now).map(|item| Work::Task(index, round, item))),
            }
        }
    }
}
