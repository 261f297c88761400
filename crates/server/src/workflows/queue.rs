//! Order in which the driver evaluates steps: namespaces take turns, and so do the workflows of each, so that expressions which need
//! much work delay their own workflow, and not those of others. Knows no store, and does not wait.

use std::collections::{HashMap, HashSet, VecDeque};

use rota_core::workflow::Workflow;
use rota_core::{Namespace, WorkflowKey};
use rota_store::StepKey;

/// Steps of one workflow that are evaluated at the same time.
const MAX_PER_WORKFLOW: usize = 2;
/// Steps of one namespace that are evaluated at the same time: fewer than those of all, so that others need not wait for it.
const MAX_PER_NAMESPACE: usize = super::driver::CONCURRENCY - 2;

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

    /// Takes the next one, which is then evaluated.
    pub(super) fn pop(&mut self) -> Option<Work> {
        let namespace = self.turns.pop_front()?;
        let of_namespace = self.namespaces.get_mut(&namespace)?;
        of_namespace.is_listed = false;
        let key = of_namespace.order.pop_front()?;
        of_namespace.evaluating += 1;
        let of = self.workflows.get_mut(&key)?;
        of.is_listed = false;
        of.evaluating += 1;
        let work = of.order.pop_front()?;
        self.known.remove(&work);
        self.under_way.insert(work, false);
        self.list(key);
        self.list_namespace(namespace);
        Some(work)
    }

    /// Ends an evaluation, whose commit may follow. Returns whether a worker must look at what may be next.
    pub(super) fn evaluated(&mut self, work: Work, spent: u64) -> bool {
        let key = work.workflow();
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

    /// Drops what is known of a workflow that has ended.
    fn forget(&mut self, key: WorkflowKey) {
        let of = self.workflows.get(&key);
        if of.is_some_and(|of| of.has_ended && of.order.is_empty() && of.evaluating == 0) {
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
        std::iter::from_fn(|| queue.pop()).map(|work| work.workflow().0).collect()
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
        assert!(queue.evaluated(step(1, 0), 5), "its next one may follow");
        assert_eq!((take(&mut queue), queue.spent(WorkflowKey(1))), (vec![1], 5));
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
        queue.evaluated(step(1, 0), 0);
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
        while let Some(work) = queue.pop() {
            order.push(work.workflow().0);
            queue.evaluated(work, 0);
            queue.committed(work);
        }
        assert_eq!(order, [1, 3, 2, 3, 1, 3, 2, 1, 2]);
    }

    #[test]
    fn nothing_is_kept_of_what_has_ended() {
        let mut queue = queue(&[(1, "a")]);
        let mut workflow =
            Workflow::new(rota_core::WorkflowId(uuid::Uuid::from_u128(1)), Namespace::new("a").unwrap());
        workflow.key = WorkflowKey(1);
        queue.push(step(1, 0));
        let work = queue.pop().unwrap();
        workflow.state = rota_core::workflow::State::Succeeded;
        queue.observe(&workflow);
        assert!(queue.knows(WorkflowKey(1)), "it is evaluated");
        queue.evaluated(work, 1);
        queue.committed(work);
        assert!(queue.workflows.is_empty() && queue.namespaces.is_empty() && queue.turns.is_empty());
        assert!(queue.known.is_empty() && queue.under_way.is_empty());
    }
}
