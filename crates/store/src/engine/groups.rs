//! Concurrency groups: who holds them, and who is next. A batch reads a group once: its holders, and the first of those that wait,
//! whatever their number. Members are admitted in the order of the creation of their workflows.

use std::collections::BTreeMap;

use rota_core::workflow::{self, Group, State, StepCommand, Workflow};
use rota_core::{Timestamp, WorkflowKey};

use super::Engine;
use crate::{
    Backend, Error, FollowUp, GROUP_WINDOW, GroupKey, GroupMember, Load, StepKey, WORKFLOW_MEMBER,
    WorkflowLoad,
};

/// Places in groups that one visit removes.
const MAX_LEAVING: usize = 64;

/// A group in a batch.
#[derive(Debug, Default)]
pub(super) struct GroupEntry {
    holders: BTreeMap<StepKey, GroupMember>,
    waiting: BTreeMap<StepKey, GroupMember>,
    /// The last one that was read of those that wait, if there may be more.
    until: Option<StepKey>,
}

impl GroupEntry {
    /// Takes in the members that were read, and what the batch has changed of them.
    pub(super) fn new(
        members: &[GroupMember],
        changed: impl Iterator<Item = (StepKey, Option<GroupMember>)>,
    ) -> Self {
        let mut entry = Self::default();
        for member in members {
            let of = if member.holds { &mut entry.holders } else { &mut entry.waiting };
            of.insert(member.member, *member);
        }
        let is_whole = entry.waiting.len() < GROUP_WINDOW;
        entry.until = entry.waiting.keys().last().copied().filter(|_| !is_whole);
        changed.for_each(|(key, member)| entry.change(key, member));
        entry
    }

    fn change(&mut self, key: StepKey, member: Option<GroupMember>) {
        match member {
            Some(member) => self.put(member),
            None => self.remove(key),
        }
    }

    fn put(&mut self, member: GroupMember) {
        self.remove(member.member);
        if member.holds {
            self.holders.insert(member.member, member);
        } else if self.until.is_none_or(|until| member.member < until) {
            self.waiting.insert(member.member, member);
        }
    }

    fn remove(&mut self, member: StepKey) {
        self.holders.remove(&member);
        self.waiting.remove(&member);
    }
}

/// Whether a member is older than another one: by the creation of their workflows, or in one workflow by when they have joined.
fn is_older(one: &GroupMember, other: &GroupMember) -> bool {
    (one.member.0, one.joined) < (other.member.0, other.joined)
}

impl<B: Backend> Engine<B> {
    /// Returns the group of a workflow or a step that the batch has.
    fn group_of(&self, (key, step): StepKey) -> Option<(GroupKey, &Group)> {
        let set = &self.write_set.workflows;
        let workflow = set.workflow(key)?;
        let of_steps = step != WORKFLOW_MEMBER;
        let group =
            if of_steps { set.step((key, step))?.group.as_deref()? } else { workflow.group.as_deref()? };
        Some((GroupKey { namespace: workflow.namespace.clone(), of_steps, name: group.name.clone() }, group))
    }

    /// Returns the first members that wait for a group which the batch has, as many as it has room for.
    pub(super) fn next_members(&self, group: &GroupKey, limit: usize) -> Vec<StepKey> {
        let Some(entry) = self.write_set.workflows.groups.get(group) else { return Vec::new() };
        let most = entry.waiting.values().next().map_or(0, |first| first.limit as usize);
        let room = most.saturating_sub(entry.holders.len()).min(limit);
        entry.waiting.keys().take(room).copied().collect()
    }

    /// Returns the members of a group which the batch has, besides one.
    pub(super) fn other_members(&self, group: &GroupKey, than: StepKey) -> Vec<GroupMember> {
        let entry = self.write_set.workflows.groups.get(group);
        let members =
            entry.into_iter().flat_map(|entry| entry.holders.values().chain(entry.waiting.values()));
        members.filter(|other| other.member != than).copied().collect()
    }

    /// Returns the member of a group in whose favor others are cancelled, by when it has joined if nothing else is known of it.
    pub(super) fn replacing(&self, group: &GroupKey, by: Option<StepKey>, joined: u64) -> Option<StepKey> {
        let entry = self.write_set.workflows.groups.get(group)?;
        let mut members = entry.holders.values().chain(entry.waiting.values());
        by.or_else(|| members.find(|one| one.joined == joined).map(|one| one.member))
    }

    fn put_member(&mut self, group: &GroupKey, key: StepKey, member: Option<GroupMember>) {
        let set = &mut self.write_set.workflows;
        if let Some(entry) = set.groups.get_mut(group) {
            entry.change(key, member);
        }
        set.members.insert((group.clone(), key), member);
    }

    fn admit_later(&mut self, group: GroupKey) {
        if self.write_set.workflows.admitting.insert(group.clone()) {
            self.write_set.pending.push(FollowUp::AdmitMembers { group });
        }
    }

    pub(super) fn join_group(&mut self, workflow: WorkflowKey, step: Option<u32>) {
        let key = (workflow, step.unwrap_or(WORKFLOW_MEMBER));
        let Some((group, given)) = self.group_of(key) else { return };
        let (limit, replaces) = (given.limit, given.replaces);
        let joined = self.write_set.next_revision();
        self.put_member(&group, key, Some(GroupMember { member: key, holds: false, limit, joined }));
        if replaces {
            let follow_up = FollowUp::ReplaceMembers { group: group.clone(), joined, by: Some(key) };
            self.write_set.pending.push(follow_up);
        }
        self.admit_later(group);
    }

    pub(super) fn leave_group(&mut self, workflow: WorkflowKey, step: Option<u32>) {
        let key = (workflow, step.unwrap_or(WORKFLOW_MEMBER));
        let Some((group, _)) = self.group_of(key) else { return };
        self.put_member(&group, key, None);
        self.admit_later(group);
    }

    /// Lets a workflow and its steps leave their groups. Needed if a record of it cannot be decoded, which leaves none by itself.
    /// Returns whether there may be more.
    pub(super) fn leave_all(&mut self, workflow: WorkflowKey) -> Result<bool, Error> {
        let memberships = Some((workflow, MAX_LEAVING));
        let workflows = WorkflowLoad { memberships, ..WorkflowLoad::default() };
        self.fetch(&Load { workflows, ..Load::default() })?;
        let found = std::mem::take(&mut self.write_set.workflows.memberships);
        let is_whole = found.len() < MAX_LEAVING;
        for (group, member) in found {
            self.put_member(&group, member, None);
            self.admit_later(group);
        }
        Ok(!is_whole)
    }

    /// Admits those that wait, as many as may hold the group.
    pub(super) fn visit_group(
        &mut self,
        number: Option<u64>,
        group: GroupKey,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.write_set.workflows.admitting.remove(&group);
        let rest = loop {
            self.write_set.pending.spend(1);
            let Some(entry) = self.write_set.workflows.groups.get(&group) else { break false };
            let Some(first) = entry.waiting.values().next().copied() else { break entry.until.is_some() };
            if entry.holders.len() >= first.limit as usize {
                break false;
            }
            if self.write_set.pending.budget() == 0 {
                break true;
            }
            self.put_member(&group, first.member, Some(GroupMember { holds: true, ..first }));
            if !self.command_member(first.member, workflow::Command::Admit, StepCommand::Admit, now)? {
                // It does not wait any more, or its record cannot be decoded.
                self.put_member(&group, first.member, None);
            }
        };
        self.write_set.pending.finish(number, rest.then_some(FollowUp::AdmitMembers { group }));
        Ok(())
    }

    /// Cancels the members that are older than another one. That may be an older one itself, which has waited outside during a pause.
    fn replace(
        &mut self,
        group: &GroupKey,
        by: GroupMember,
        others: Vec<GroupMember>,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let newer = |set: &Self, other: &GroupMember| {
            let is_wanted =
                set.write_set.workflows.workflow(other.member.0).is_some_and(|one| !one.cancelled);
            let replaces = set.group_of(other.member).is_some_and(|(_, group)| group.replaces);
            is_older(&by, other) && is_wanted && replaces
        };
        let older = match others.iter().any(|other| newer(self, other)) {
            true => vec![by],
            false => others.into_iter().filter(|other| is_older(other, &by)).collect(),
        };
        let reason = format!("another workflow of concurrency group {} has taken its place", group.name);
        let mut is_shorter = false;
        for other in older {
            // Its outcome is decided, or it is cancelled already.
            let is_spared = |one: &Workflow| one.cancelled || one.state >= State::Compensating;
            let is_spared = self.write_set.workflows.workflow(other.member.0).is_none_or(is_spared);
            if other.member.1 != WORKFLOW_MEMBER || !is_spared {
                let cancel = workflow::Command::Cancel { reason: reason.clone() };
                let applies = self.command_member(other.member, cancel, StepCommand::Replace, now)?;
                is_shorter |= applies && !other.holds;
            }
        }
        Ok(is_shorter)
    }

    /// Cancels members in favor of one that has joined. The round has loaded their records.
    pub(super) fn visit_replaced(
        &mut self,
        number: Option<u64>,
        group: GroupKey,
        (member, joined): (Option<StepKey>, u64),
        now: Timestamp,
    ) -> Result<(), Error> {
        let Some(entry) = self.write_set.workflows.groups.get(&group) else { return Ok(()) };
        let has_more = entry.until.is_some();
        let Some(member) = self.replacing(&group, member, joined) else {
            // It has left the group.
            self.write_set.pending.spend(1);
            self.write_set.pending.finish(number, None);
            return Ok(());
        };
        let others = self.other_members(&group, member);
        self.write_set.pending.spend(others.len().max(1));
        let by = GroupMember { member, holds: false, limit: 1, joined };
        let is_shorter = self.replace(&group, by, others, now)?;
        // Those that wait leave immediately, so that a later read finds others.
        let rest = FollowUp::ReplaceMembers { group, joined, by: Some(member) };
        self.write_set.pending.finish(number, (has_more && is_shorter).then_some(rest));
        Ok(())
    }

    /// Executes a command on a member: a workflow or a step. Returns whether it applies.
    fn command_member(
        &mut self,
        member: StepKey,
        of_workflow: workflow::Command,
        of_step: StepCommand,
        now: Timestamp,
    ) -> Result<bool, Error> {
        if member.1 != WORKFLOW_MEMBER {
            return Ok(self.apply_step(member, of_step, now)?.is_ok());
        }
        self.load_workflow(member.0)?;
        Ok(self.apply_workflow(member.0, of_workflow, now).is_ok())
    }
}
