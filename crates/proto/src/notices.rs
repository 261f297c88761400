//! Codes of notices that change what the control plane does. All others are for who reads the log.

/// An attempt waits for a workspace that another one uses: its time does not count until it works.
pub const WORKSPACE_BUSY: &str = "workspace_busy";
/// An attempt has got the workspace that it waited for: its time counts again.
pub const WORKSPACE_FREE: &str = "workspace_free";
