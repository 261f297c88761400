//! The programs of one attempt, to be paused and resumed together. A runtime need not know of it:
//! whatever it starts in the attempt's own task belongs to the attempt's group.

use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedSender, WeakUnboundedSender};
use tokio::sync::watch;

use super::link::End;
use super::orders::Order;

tokio::task_local! {
    static CURRENT: Group;
}

/// The programs of one attempt.
#[derive(Clone, Default)]
pub struct Group(Arc<Mutex<Members>>);

#[derive(Default)]
struct Members {
    paused: bool,
    // Weak: the group must not keep a program alive that its runtime has dropped.
    orders: Vec<WeakUnboundedSender<Order>>,
    ends: Vec<watch::Receiver<Option<End>>>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("paused", &self.0.lock().paused).finish_non_exhaustive()
    }
}

impl Group {
    /// Runs a future whose programs belong to this group.
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(self.clone(), future)
    }

    /// Freezes or thaws every process of every program, also of those that start later.
    pub fn set_paused(&self, paused: bool) {
        let mut members = self.0.lock();
        if members.paused == paused {
            return;
        }
        members.paused = paused;
        members.orders.retain(|member| match member.upgrade() {
            Some(member) => member.send(if paused { Order::Pause } else { Order::Resume }).is_ok(),
            None => false,
        });
    }

    /// Waits until nothing of any program is left, also of those whose runtime has dropped them.
    pub async fn ended(&self) {
        let ends = std::mem::take(&mut self.0.lock().ends);
        for mut end in ends {
            // An error means that the whole worker ends, and its supervisors with it.
            let _ = end.wait_for(Option::is_some).await;
        }
    }

    /// Adds a program to the group of the task that runs now, if it has one.
    pub(super) fn join_current(orders: &UnboundedSender<Order>, end: &watch::Receiver<Option<End>>) {
        let _ = CURRENT.try_with(|group| {
            let mut members = group.0.lock();
            members.orders.retain(|member| member.strong_count() > 0);
            members.orders.push(orders.downgrade());
            members.ends.retain(|end| end.borrow().is_none());
            members.ends.push(end.clone());
            if members.paused {
                let _ = orders.send(Order::Pause);
            }
        });
    }
}
