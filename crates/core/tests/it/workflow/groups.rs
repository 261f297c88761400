//! Concurrency groups: one for the workflow, and one for some of its steps, of which one runs at a time.

use rota_core::workflow::{Group, Place};

use super::*;

pub(super) fn group(is_member: bool) -> Option<Box<Group>> {
    let group = Group { name: "g".to_owned(), limit: 1, replaces: false, place: Place::Outside };
    is_member.then(|| Box::new(group))
}

impl World {
    fn holders(&self) -> usize {
        let places = self.steps.iter().filter_map(|step| step.group.as_ref());
        places.filter(|group| group.place == Place::Holding).count()
    }

    pub(super) fn check_group(&self) {
        assert!(self.holders() <= 1, "{} steps hold the group", self.holders());
        let lacks = self.workflow.group.as_ref().is_some_and(|group| group.place != Place::Holding);
        assert!(!lacks || self.workflow.active == 0, "a step has started before the workflow has its place");
    }

    pub(super) fn admit(&mut self, member: Option<usize>) {
        match member {
            None => match self.workflow.apply(Command::Admit, self.now) {
                Ok(change) => self.settle(change),
                Err(rejected) => assert!(matches!(rejected, Rejected::Outdated | Rejected::Final(_))),
            },
            Some(index) if !self.steps[index].waits_for_group() => {}
            Some(index) if self.holders() > 0 => self.waiting.push(index),
            Some(index) => self.step(index, StepCommand::Admit),
        }
    }

    /// Checks that an ended workflow has left all groups.
    pub(super) fn check_left(&self) {
        let groups = self.steps.iter().map(|step| &step.group).chain([&self.workflow.group]);
        for group in groups.flatten() {
            assert_eq!(group.place, Place::Outside, "{:#?} {:#?}", self.workflow, self.steps);
        }
    }
}

#[test]
fn replaced_step_ends_with_its_tasks() {
    let mut world = World::by_hand(0, &[Kind::Task, Kind::Task]);
    for index in 0..2 {
        world.steps[index].group = group(true);
        world.steps[index].group.as_mut().unwrap().place = Place::Holding;
    }
    world.graph.steps[0].items = 3;
    let before: Vec<_> = world.steps.iter().map(|step| step.group.clone()).collect();
    assert!(before.iter().all(Option::is_some));
    // One at a time is not what this is about.
    world.steps[1].group = None;
    world.run_but(&[0, 1]);
    assert_eq!(world.steps[0].state, StepState::Running);
    world.step(0, StepCommand::Replace);
    assert!(world.work.contains(&Work::Follow(Follow::CancelStep { step: 0 })), "{:?}", world.work);
    let refused = world.workflow.apply_to(&mut world.steps[0], StepCommand::Replace, world.now);
    assert_eq!(refused, Err(Rejected::Outdated), "a second time");
    let open = world.steps[0].open();
    (0..open).for_each(|_| world.step(0, StepCommand::TaskEnded { round: 1, end: TaskEnd::Cancelled }));
    assert_eq!(world.steps[0].state, StepState::Cancelled);
    assert!(world.steps[0].message.contains("concurrency group"), "{}", world.steps[0].message);
}

#[test]
fn time_of_a_workflow_begins_with_its_place() {
    let mut world = World::by_hand(1, &[Kind::Task, Kind::Task]);
    world.workflow.group = group(true);
    world.workflow.timeout = Some(Duration::from_secs(5));
    assert_eq!(world.workflow.due(), None);
    world.workflow.group.as_mut().unwrap().place = Place::Waiting;
    world.now = Timestamp(9_000_000);
    world.admit(None);
    assert_eq!(world.workflow.due(), Some(world.now + Duration::from_secs(5)));
}
