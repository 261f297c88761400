//! Budgets of tasks that demand isolation: which other agents such tasks are left to.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rota_core::AgentName;
use rota_core::spending::Budget;
use rota_core::target::{ISOLATED, Target};

use super::budget_waits::other_agent;
use super::budgets::{agent, daily, learn, start};
use super::harness::{Harness, namespace};
use crate::{Claim, Command};

pub async fn agents_that_isolate_nothing_hide_no_budget(t: &mut Harness) {
    let worker = start(t, daily(100), Budget::default()).await;
    other_agent(t, Budget::default()).await;
    learn(t, &worker, 100).await;
    let target = Target::Capabilities(["code", ISOLATED].map(str::to_owned).into());
    let mut create = t.task();
    create.task.target = target.clone();
    let id = t.create(create).await.id;
    let route = t.route(target).await;
    let b = AgentName::new("b").unwrap();
    for (not_isolating, waits_for) in [(BTreeSet::new(), None), (BTreeSet::from([b]), Some(agent()))] {
        let claim = Claim {
            namespace: namespace("n"),
            worker: worker.clone(),
            routes: vec![route],
            shared: Vec::new(),
            slots: 1,
            probes: None,
            not_isolating: Arc::new(not_isolating),
        };
        t.one(Command::Claim(claim)).await.unwrap();
        let wait = t.read(id).await.budget_wait;
        // Agent b has money, and may isolate a minute later.
        assert!(wait.as_ref().is_none_or(|wait| wait.until <= t.now() + Duration::from_mins(1)), "{wait:?}");
        assert_eq!(wait.map(|wait| wait.scope), waits_for);
    }
}
