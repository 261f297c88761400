//! What is to be done about an agent's pods. Pure, so that what must never happen, like ending a
//! worker that has something to do, is shown without a cluster.

use std::collections::BTreeSet;
use std::time::Duration;

use rota_core::scaling::{self, WorkerView};
use rota_crds::AgentSpec;
use rota_proto::{names, v1};

use super::demand::Heard;
use super::dereference::{Life, Member};

/// How long an idle worker beyond the floor stays when its agent does not say.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Shared workers to start.
    pub start: u32,
    /// Tasks for which a worker of their own is to be started.
    pub start_for: Vec<String>,
    /// Workers that shall take nothing new, if they are still idle.
    pub drain_idle: Vec<String>,
    /// Workers that shall finish what they have and take nothing new.
    pub drain: Vec<String>,
    /// Pods that have ended.
    pub delete: Vec<String>,
    /// Pods of an older spec that cannot start: it may be for that spec that they cannot. One that runs is none,
    /// even if nobody has heard of its worker: the control plane may just be back.
    pub abandon: Vec<String>,
}

/// What is to be done. `may_start` is false while new pods would only fail as the last ones did.
pub(crate) fn plan(spec: &AgentSpec, hash: &str, members: &[Member], heard: &Heard, may_start: bool) -> Plan {
    let delete = members
        .iter()
        .filter(|member| matches!(member.state, Life::Succeeded | Life::Failed))
        .map(|member| member.name.clone())
        .collect();
    let shared: Vec<_> = members.iter().filter(|member| member.task.is_none()).cloned().collect();
    let floor = count(spec.replicas);
    let scaling = scaling::plan(&scaling::Pool {
        floor,
        ceiling: scaling::ceiling(floor, count(spec.max_replicas.unwrap_or_default())),
        spare: count(spec.spare_workers.unwrap_or_default()),
        slots: count(spec.slots.unwrap_or(1)).max(1),
        queued: u64::try_from(heard.demand.queued).unwrap_or_default(),
        workers: views(&shared, heard),
        idle_timeout: spec.idle_timeout.map_or(IDLE_TIMEOUT, |span| span.0),
    });
    let (outdated_idle, outdated) = replace(hash, &shared, &scaling.drain);
    let start_for = match may_start {
        true => wanted_alone(members, heard),
        false => Vec::new(),
    };
    Plan {
        start: if may_start { scaling.start } else { 0 },
        start_for,
        drain_idle: scaling.drain.into_iter().chain(outdated_idle).collect(),
        drain: outdated,
        delete,
        abandon: shared
            .iter()
            .filter(|one| one.state == Life::Starting && one.trouble.is_some() && one.hash != hash)
            .map(|member| member.name.clone())
            .collect(),
    }
}

/// Tasks that wait for a worker of their own, and for which there is no pod.
fn wanted_alone(members: &[Member], heard: &Heard) -> Vec<String> {
    let there: BTreeSet<_> = members
        .iter()
        .filter(|member| !matches!(member.state, Life::Succeeded | Life::Failed))
        .filter_map(|member| member.task.as_deref())
        .collect();
    heard
        .isolated
        .iter()
        .filter(|one| one.queued && one.worker.is_empty())
        .map(|one| names::last(&one.task))
        .filter(|task| !there.contains(task))
        .map(str::to_owned)
        .collect()
}

/// Workers whose pods were made from an older spec: those that are idle, and those that are not. A
/// few at a time, so that those that are left can take what comes; what they run they finish.
fn replace(hash: &str, shared: &[Member], going: &[String]) -> (Vec<String>, Vec<String>) {
    let live: Vec<_> = shared.iter().filter(|member| is_live(member)).collect();
    let on_the_way = live.iter().filter(|member| member.state == Life::Starting).count() + going.len();
    let at_a_time = live.len().div_ceil(4);
    let outdated = live.iter().filter(|member| {
        member.state == Life::Serving && member.hash != hash && !going.contains(&member.name)
    });
    // The idle first: they go at once.
    let mut outdated: Vec<_> = outdated.collect();
    outdated.sort_by_key(|member| running(member) > 0);
    outdated.truncate(at_a_time.saturating_sub(on_the_way));
    let (busy, idle): (Vec<_>, Vec<_>) = outdated.into_iter().partition(|member| running(member) > 0);
    let names = |members: Vec<&&Member>| members.into_iter().map(|member| member.name.clone()).collect();
    (names(idle), names(busy))
}

/// It takes, or will take, tasks.
fn is_live(member: &Member) -> bool {
    let draining = member.worker.as_ref().is_some_and(|worker| worker.draining);
    matches!(member.state, Life::Starting | Life::Serving) && !draining
}

fn running(member: &Member) -> u32 {
    member.worker.as_ref().map_or(0, |worker| count(worker.running))
}

fn views(shared: &[Member], heard: &Heard) -> Vec<WorkerView> {
    let ours = shared.iter().filter(|member| !matches!(member.state, Life::Succeeded | Life::Failed)).map(
        |member| {
            let worker = member.worker.as_ref();
            WorkerView {
                name: member.name.clone(),
                running: running(member),
                draining: member.state == Life::Leaving || worker.is_some_and(|worker| worker.draining),
                connected: worker.is_some_and(|worker| worker.connected),
                starting: member.state == Life::Starting,
                idle_for: member.idle_for,
            }
        },
    );
    // Workers that others started are capacity too, but not ours to drain. One that is cut off and
    // not ours may well be gone.
    let others = heard.demand.workers.iter().filter(|worker| {
        worker.connected && !shared.iter().any(|member| member.name == names::last(&worker.worker))
    });
    ours.chain(others.map(other)).collect()
}

fn other(worker: &v1::WorkerDemand) -> WorkerView {
    WorkerView {
        name: worker.worker.clone(),
        running: count(worker.running),
        draining: worker.draining,
        connected: true,
        starting: false,
        idle_for: None,
    }
}

fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> AgentSpec {
        serde_saphyr::from_str(&format!("{{runtime: {{scripted: {{}}}}, {text}}}")).unwrap()
    }

    fn member(name: &str, state: Life, running: Option<i32>) -> Member {
        let worker = running.map(|running| v1::WorkerDemand {
            worker: format!("namespaces/a/workers/{name}"),
            running,
            connected: true,
            ..Default::default()
        });
        let idle_for = (running == Some(0)).then_some(Duration::from_secs(999));
        Member { name: name.into(), hash: "h".into(), state, worker, idle_for, ..Default::default() }
    }

    fn heard(queued: i64) -> Heard {
        Heard { demand: v1::Demand { queued, ..Default::default() }, ..Default::default() }
    }

    #[test]
    fn demand_starts_and_idleness_drains() {
        let agent = spec("replicas: 0, maxReplicas: 4");
        assert_eq!(plan(&agent, "h", &[], &heard(30), true).start, 4);
        assert_eq!(plan(&agent, "h", &[], &heard(30), false).start, 0);
        let members = [member("a", Life::Serving, Some(0)), member("b", Life::Serving, Some(1))];
        assert_eq!(plan(&agent, "h", &members, &heard(0), true).drain_idle, ["a"]);
    }

    #[test]
    fn what_has_ended_is_removed_and_made_up_for() {
        let agent = spec("replicas: 2, maxReplicas: 2");
        let members = [member("a", Life::Succeeded, None), member("b", Life::Failed, None)];
        let plan = plan(&agent, "h", &members, &heard(0), true);
        assert_eq!(plan.delete, ["a", "b"]);
        assert_eq!(plan.start, 2);
    }

    #[test]
    fn one_of_an_older_spec_that_cannot_start_is_not_waited_for() {
        let agent = spec("replicas: 0, maxReplicas: 1");
        let quiet = member("a", Life::Starting, None);
        assert_eq!(plan(&agent, "new", std::slice::from_ref(&quiet), &heard(1), true), Plan::default());
        let stuck = Member { trouble: Some(("ErrImagePull".into(), "no".into())), ..quiet };
        let plan = plan(&agent, "new", &[stuck], &heard(1), true);
        assert_eq!(plan, Plan { abandon: vec!["a".into()], ..Plan::default() });
    }

    #[test]
    fn one_that_leaves_still_counts_for_the_ceiling() {
        let agent = spec("replicas: 1, maxReplicas: 1");
        let plan = plan(&agent, "h", &[member("a", Life::Leaving, Some(1))], &heard(5), true);
        assert_eq!(plan, Plan::default());
    }

    #[test]
    fn a_rollout_takes_the_idle_first_and_ends_nothing() {
        let agent = spec("replicas: 4, maxReplicas: 4");
        let members = [
            member("a", Life::Serving, Some(1)),
            member("b", Life::Serving, Some(0)),
            member("c", Life::Serving, Some(0)),
            member("d", Life::Serving, Some(0)),
        ];
        let first = plan(&agent, "new", &members, &heard(0), true);
        assert_eq!((first.drain_idle.len(), first.drain.len()), (1, 0));
        assert_eq!(first.delete, [""; 0]);
        // All are busy: they finish, and take nothing new, one after the other.
        let busy: Vec<_> = ["a", "b", "c", "d"].map(|name| member(name, Life::Serving, Some(1))).into();
        let busy_plan = plan(&agent, "new", &busy, &heard(9), true);
        assert_eq!((busy_plan.drain_idle.len(), busy_plan.drain), (0, vec!["a".to_owned()]));
        // While a new one is on its way, no other goes.
        let mut with_new = members[1..].to_vec();
        with_new.push(member("e", Life::Starting, None));
        assert_eq!(plan(&agent, "new", &with_new, &heard(0), true).drain_idle, [""; 0]);
    }

    #[test]
    fn an_isolated_task_gets_one_pod() {
        let agent = spec("replicas: 0, maxReplicas: 1");
        let mut heard = heard(0);
        let one =
            v1::IsolatedDemand { task: "namespaces/a/tasks/t1".into(), queued: true, ..Default::default() };
        heard.isolated.push(one);
        assert_eq!(plan(&agent, "h", &[], &heard, true).start_for, ["t1"]);
        let mut its_own = member("p", Life::Starting, None);
        its_own.task = Some("t1".into());
        let plan = plan(&agent, "h", &[its_own], &heard, true);
        assert_eq!(plan, Plan::default(), "and the shared pool does not count it");
    }

    #[test]
    fn no_worker_with_something_to_do_is_ever_told_to_go_as_if_it_were_idle() {
        // Every small pool, whatever its spec and demand.
        for floor in 0..3 {
            for ceiling in 0..4 {
                for queued in [0, 1, 9] {
                    for states in 0..27_u32 {
                        let members: Vec<_> = (0..3_u32)
                            .map(|at| {
                                let running = i32::try_from(states / 3_u32.pow(at) % 3).unwrap();
                                member(&format!("m{at}"), Life::Serving, Some(running))
                            })
                            .collect();
                        let agent = spec(&format!("replicas: {floor}, maxReplicas: {ceiling}"));
                        for hash in ["h", "new"] {
                            let plan = plan(&agent, hash, &members, &heard(queued), true);
                            for name in &plan.drain_idle {
                                let one = members.iter().find(|one| one.name == *name).unwrap();
                                assert_eq!(running(one), 0, "{plan:?}");
                            }
                            assert_eq!(plan.delete, [""; 0]);
                            assert!(hash == "new" || plan.drain.is_empty());
                        }
                    }
                }
            }
        }
    }
}
