-- Groups of a workflow whose own record cannot be decoded.
CREATE INDEX group_members_workflow ON group_members (workflow);
