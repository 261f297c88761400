//! Order in which the driver evaluates steps: namespaces take turns, and so do the workflows of each, so that expressions which need
//! much work delay their own workflow, and not those of others. Knows no store, and does not wait.

use std::collections::{HashMap, HashSet, VecDeque};

use rota_core::workflow::Workflow;
use rota_core::{Namespace, WorkflowKey};
use rota_store::StepKey;

/// Turns of one workflow at the same time.
const MAX_PER_WORKFLOW: usize = 2;
/// Turns of one namespace at the same time: fewer than those of all, so that others need not wait for it.
const MAX_PER_NAMESPACE: usize = super::driver::CONCURRENCY - 2;
/// Steps of one turn, if they need little time.
const MAX_PER_TURN: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Work {
    Step(StepKey),
    /// The outputs of a workflow.
    Outputs(WorkflowKey),
}

impl Work {
    pub(super) fn workflow(self) -> WorkflowKey {
        match self {
            Self::Step((workflow, _)) | Self::Outputs(workflow) => workflow,
        }
    }

    pub(super) fn step(self) -> Option<StepKey> {
        match self {
            Self::Step(key) => Some(key),
            Self::Outputs(_) => None,
        }
    }
}

#[derive(Debug, Default)]
struct OfWorkflow {
    /// Unset if its record cannot be decoded: such ones share their turns.
    namespace: Option<Namespace>,
    order: VecDeque<Work>,
    evaluating: usize,
    /// Whether its namespace has it among those that may be next.
    is_listed: bool,
    /// Work of its expressions since the start of the control plane.
    spent: u64,
    has_ended: bool,
}

#[derive(Debug, Default)]
struct OfNamespace {
    order: VecDeque<WorkflowKey>,
    evaluating: usize,
    is_listed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    workflows: HashMap<WorkflowKey, OfWorkflow>,
    namespaces: HashMap<Option<Namespace>, OfNamespace>,
    turns: VecDeque<Option<Namespace>>,
    known: HashSet<Work>,
    /// Those that are evaluated or committed now, with whether a commit has pushed them meanwhile.
    under_way: HashMap<Work, bool>,
}

impl Queue {
    /// Takes in a workflow as a commit has left it.
    pub(super) fn observe(&mut self, workflow: &Workflow) {
        if workflow.state.is_final() {
            if let Some(of) = self.workflows.get_mut(&workflow.key) {
                of.has_ended = true;
            }
            self.forget(workflow.key);
        } else {
            self.learn(workflow.key, Some(workflow.namespace.clone()));
            // A compensation may continue after its end.
            if let Some(of) = self.workflows.get_mut(&workflow.key) {
                of.has_ended = false;
            }
        }
    }

    /// Takes in the namespace of a workflow.
    pub(super) fn learn(&mut self, key: WorkflowKey, namespace: Option<Namespace>) {
        let of = self.workflows.entry(key).or_default();
        if of.namespace.is_none() && of.order.is_empty() && of.evaluating == 0 {
            of.namespace = namespace;
        }
    }

    pub(super) fn knows(&self, key: WorkflowKey) -> bool {
        self.workflows.contains_key(&key)
    }

    pub(super) fn is_under_way(&self, work: Work) -> bool {
        self.under_way.contains_key(&work)
    }

    /// Adds one. Returns whether a worker must look at it.
    pub(super) fn push(&mut self, work: Work) -> bool {
        if let Some(again) = self.under_way.get_mut(&work) {
            *again = true;
            return false;
        }
        if !self.known.insert(work) {
            return false;
        }
        self.workflows.entry(work.workflow()).or_default().order.push_back(work);
        self.list(work.workflow())
    }

    /// Takes the next turn, which is then evaluated: steps of one workflow, or its outputs. Each turn that a workflow may have leaves as
    /// many to the others.
    pub(super) fn pop(&mut self) -> Option<Vec<Work>> {
        let namespace = self.turns.pop_front()?;
        let of_namespace = self.namespaces.get_mut(&namespace)?;
        of_namespace.is_listed = false;
        let key = of_namespace.order.pop_front()?;
        of_namespace.evaluating += 1;
        let of = self.workflows.get_mut(&key)?;
        of.is_listed = false;
        let share = of.order.len().div_ceil(MAX_PER_WORKFLOW.saturating_sub(of.evaluating).max(1));
        of.evaluating += 1;
        let mut turn = vec![of.order.pop_front()?];
        let may_follow = |work: &mut Work| matches!(work, Work::Step(_));
        while matches!(turn[0], Work::Step(_))
            && turn.len() < share.min(MAX_PER_TURN)
            && let Some(work) = of.order.pop_front_if(may_follow)
        {
            turn.push(work);
        }
        for work in &turn {
            self.known.remove(work);
            self.under_way.insert(*work, false);
        }
        self.list(key);
        self.list_namespace(namespace);
        Some(turn)
    }

    /// Puts back what a turn had no time for, before what has been pushed since.
    pub(super) fn put_back(&mut self, left: &[Work]) {
        for work in left.iter().rev() {
            self.under_way.remove(work);
            if self.known.insert(*work) {
                self.workflows.entry(work.workflow()).or_default().order.push_front(*work);
            }
        }
    }

    /// Ends the evaluation of a turn of a workflow, whose commit may follow. Returns whether a worker must look at what may be next.
    pub(super) fn evaluated(&mut self, key: WorkflowKey, spent: u64) -> bool {
        let Some(of) = self.workflows.get_mut(&key) else { return false };
        of.evaluating -= 1;
        of.spent = of.spent.saturating_add(spent);
        let namespace = of.namespace.clone();
        if let Some(of_namespace) = self.namespaces.get_mut(&namespace) {
            of_namespace.evaluating -= 1;
        }
        let listed = self.list(key) | self.list_namespace(namespace);
        self.forget(key);
        listed
    }

    /// Ends the commit of one. Returns whether a worker must look at it again.
    pub(super) fn committed(&mut self, work: Work) -> bool {
        let again = self.under_way.remove(&work) == Some(true);
        again && self.push(work)
    }

    /// Returns the work that the expressions of a workflow have needed.
    pub(super) fn spent(&self, key: WorkflowKey) -> u64 {
        self.workflows.get(&key).map_or(0, |of| of.spent)
    }

    /// Lets a workflow be next in its turn, if it may be.
    fn list(&mut self, key: WorkflowKey) -> bool {
        let Some(of) = self.workflows.get_mut(&key) else { return false };
        if of.is_listed || of.order.is_empty() || of.evaluating >= MAX_PER_WORKFLOW {
            return false;
        }
        of.is_listed = true;
        let namespace = of.namespace.clone();
        self.namespaces.entry(namespace.clone()).or_default().order.push_back(key);
        self.list_namespace(namespace)
    }

    fn list_namespace(&mut self, namespace: Option<Namespace>) -> bool {
        let Some(of) = self.namespaces.get_mut(&namespace) else { return false };
        if of.order.is_empty() && of.evaluating == 0 {
            self.namespaces.remove(&namespace);
            return false;
        }
        if of.is_listed || of.order.is_empty() || of.evaluating >= MAX_PER_NAMESPACE {
            return false;
        }
        of.is_listed = true;
        self.turns.push_back(namespace);
        true
    }

    /// Drops what is known of a workflow that has ended, also before this work of it was pushed: then nothing but that is known of it.
    fn forget(&mut self, key: WorkflowKey) {
        let may_end = |of: &OfWorkflow| of.has_ended || (of.namespace.is_none() && of.spent == 0);
        let of = self.workflows.get(&key);
        if of.is_some_and(|of| may_end(of) && of.order.is_empty() && of.evaluating == 0) {
            self.workflows.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(workflows: &[(u64, &str)]) -> Queue {
        let mut queue = Queue::default();
        for (key, namespace) in workflows {
            queue.learn(WorkflowKey(*key), Some(Namespace::new(namespace).unwrap()));
        }
        queue
    }

    fn step(workflow: u64, index: u32) -> Work {
        Work::Step((WorkflowKey(workflow), index))
    }

    /// Takes all that may be evaluated at the same time. Returns their workflows.
    fn take(queue: &mut Queue) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop()).map(|turn| turn[0].workflow().0).collect()
    }

    #[test]
    fn large_workflow_leaves_room_for_others() {
        let mut queue = queue(&[(1, "a"), (2, "a"), (3, "b")]);
        for index in 0..1000 {
            queue.push(step(1, index));
        }
        assert_eq!(take(&mut queue), [1, 1], "the others are not needed for it");
        queue.push(step(2, 0));
        queue.push(step(3, 0));
        assert_eq!(take(&mut queue), [2, 3]);
        assert!(queue.evaluated(WorkflowKey(1), 5), "its next one may follow");
        assert_eq!((take(&mut queue), queue.spent(WorkflowKey(1))), (vec![1], 5));
    }

    #[test]
    fn outputs_are_evaluated_alone() {
        let mut queue = queue(&[(1, "a")]);
        queue.push(Work::Outputs(WorkflowKey(1)));
        for index in 0..3 {
            queue.push(step(1, index));
        }
        assert_eq!(queue.pop(), Some(vec![Work::Outputs(WorkflowKey(1))]));
        assert_eq!(queue.pop().map(|turn| turn[0]), Some(step(1, 0)));
    }

    #[test]
    fn namespace_with_many_workflows_leaves_room_for_others() {
        let many: Vec<_> = (1..100).map(|key| (key, "a")).collect();
        let mut queue = queue(&many);
        queue.learn(WorkflowKey(100), Some(Namespace::new("b").unwrap()));
        for key in 1..100 {
            queue.push(step(key, 0));
        }
        assert_eq!(take(&mut queue), (1..=MAX_PER_NAMESPACE as u64).collect::<Vec<_>>());
        queue.push(step(100, 0));
        assert_eq!(take(&mut queue), [100]);
        queue.evaluated(WorkflowKey(1), 0);
        assert_eq!(take(&mut queue), [7]);
    }

    #[test]
    fn namespaces_and_workflows_take_turns() {
        let mut queue = queue(&[(1, "a"), (2, "a"), (3, "b")]);
        for index in 0..3 {
            for key in 1..=3 {
                queue.push(step(key, index));
            }
        }
        let mut order = Vec::new();
        while let Some(turn) = queue.pop() {
            // Expressions that need much time.
            queue.put_back(&turn[1..]);
            queue.evaluated(turn[0].workflow(), 0);
            queue.committed(turn[0]);
            order.push(turn[0].workflow().0);
        }
        assert_eq!(order, [1, 3, 2, 3, 1, 3, 2, 1, 2]);
    }

    #[test]
    fn steps_of_a_workflow_share_its_turns() {
        let mut queue = queue(&[(1, "a")]);
        let turn = |range: std::ops::Range<u32>| Some(range.map(|index| step(1, index)).collect::<Vec<_>>());
        for index in 0..3 {
            queue.push(step(1, index));
        }
        queue.push(Work::Outputs(WorkflowKey(1)));
        assert_eq!((queue.pop(), queue.pop()), (turn(0..2), turn(2..3)));
        queue.put_back(&[step(1, 1)]);
        // A commit has changed it meanwhile.
        assert!(!queue.push(step(1, 1)) && !queue.push(step(1, 0)));
        queue.evaluated(WorkflowKey(1), 0);
        assert_eq!(queue.pop(), turn(1..2));
        queue.evaluated(WorkflowKey(1), 0);
        assert_eq!(queue.pop(), Some(vec![Work::Outputs(WorkflowKey(1))]));
        assert!(!queue.committed(step(1, 2)));
        queue.evaluated(WorkflowKey(1), 0);
        assert!(queue.committed(step(1, 0)), "it is evaluated again");
        assert_eq!(queue.pop(), turn(0..1));
        let most = u32::try_from(MAX_PER_TURN).unwrap();
        for index in 10..200 {
            queue.push(step(1, index));
        }
        queue.evaluated(WorkflowKey(1), 0);
        assert_eq!(queue.pop(), turn(10..10 + most));
    }

    #[test]
    fn nothing_is_kept_of_what_has_ended() {
        let mut queue = queue(&[(1, "a")]);
        let mut workflow =
            Workflow::new(rota_core::WorkflowId(uuid::Uuid::from_u128(1)), Namespace::new("a").unwrap());
        workflow.key = WorkflowKey(1);
        queue.push(step(1, 0));
        let turn = queue.pop().unwrap();
        workflow.state = rota_core::workflow::State::Succeeded;
        queue.observe(&workflow);
        assert!(queue.knows(WorkflowKey(1)), "it is evaluated");
        queue.evaluated(WorkflowKey(1), 1);
        queue.committed(turn[0]);
        assert!(queue.workflows.is_empty() && queue.namespaces.is_empty() && queue.turns.is_empty());
        assert!(queue.known.is_empty() && queue.under_way.is_empty());
        // A retry, or a read from before its end, pushes it again.
        queue.push(step(1, 0));
        let turn = queue.pop().unwrap();
        queue.evaluated(WorkflowKey(1), 0);
        queue.committed(turn[0]);
        assert!(queue.workflows.is_empty() && queue.namespaces.is_empty());
    }
}
