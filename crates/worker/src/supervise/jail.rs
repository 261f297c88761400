//! Confinement of an attempt's programs with Landlock and seccomp, entered by a thread of the supervisor before it starts
//! the program. Knows paths, and nothing of tasks or workspaces.
//!
//! Landlock domains and seccomp filters belong to a thread and are inherited by its children: the supervisor itself stays
//! outside and can signal what is inside. See <https://docs.kernel.org/userspace-api/landlock.html>; signal scoping needs
//! ABI 6 (Linux 6.12).

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, Scope,
    path_beneath_rules,
};
use nix::libc;
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use serde::{Deserialize, Serialize};

/// Access rights that are handled; later ones of the kernel stay as they are without a jail.
const HANDLED_ABI: ABI = ABI::V6;

/// Devices that programs use, readable and writable. `/dev/shm` is shared by the attempts of one user.
const DEVICES: [&str; 10] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/shm",
    "/dev/fd",
];

/// What the programs of an attempt may open. Everything else is refused, and so are signals and abstract sockets to
/// processes outside, kernel interfaces that programs hardly need, and new privileges.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jail {
    /// Files and directories to read and execute.
    pub read: Vec<PathBuf>,
    /// Directories to read, execute and write.
    pub write: Vec<PathBuf>,
}

/// Returns why programs cannot be confined here: the user is root, or the kernel lacks Landlock's ABI 6 or seccomp.
///
/// Root is refused rather than confined: the images in which workers run as root are those in which agents install
/// packages, and a capability may open what Landlock closes.
pub fn unsupported() -> Option<String> {
    if nix::unistd::geteuid().is_root() {
        return Some("the worker runs as root".to_owned());
    }
    if TargetArch::try_from(std::env::consts::ARCH).is_err() {
        return Some(format!("no system call filter for {}", std::env::consts::ARCH));
    }
    match ruleset() {
        Ok(_) => None,
        Err(error) => Some(format!("the kernel has no Landlock with ABI 6 (Linux 6.12): {error}")),
    }
}

/// Returns a ruleset of the whole ABI, or an error if the kernel does not enforce all of it.
fn ruleset() -> Result<landlock::RulesetCreated, landlock::RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(HANDLED_ABI))?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()
}

impl Jail {
    /// Confines the calling thread, and all processes that it starts from now on. Irreversible.
    pub(super) fn enter(&self) -> io::Result<()> {
        let read = AccessFs::from_read(HANDLED_ABI);
        let all = AccessFs::from_all(HANDLED_ABI);
        let devices = all & !(AccessFs::Execute | AccessFs::MakeBlock | AccessFs::MakeChar);
        ruleset()
            .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(&self.read, read)))
            .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(&self.write, all)))
            .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(DEVICES, devices)))
            .and_then(|ruleset| ruleset.restrict_self())
            .map_err(|error| io::Error::other(format!("failed to confine the program: {error}")))?;
        filter().map_err(|error| io::Error::other(format!("failed to filter system calls: {error}")))
    }
}

/// Refuses system calls that widen what the program can reach. `clone3` is answered as if the kernel did not have it,
/// because its flags cannot be inspected; the C libraries then use `clone`.
fn filter() -> Result<(), seccompiler::Error> {
    let refused = [
        libc::SYS_add_key,
        libc::SYS_bpf,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_io_uring_setup,
        libc::SYS_keyctl,
        libc::SYS_open_by_handle_at,
        libc::SYS_perf_event_open,
        libc::SYS_request_key,
        libc::SYS_setns,
        libc::SYS_userfaultfd,
    ];
    let user_namespace = || -> Result<SeccompRule, seccompiler::BackendError> {
        let flag = u64::from(libc::CLONE_NEWUSER.unsigned_abs());
        let new = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(flag), flag)?;
        SeccompRule::new(vec![new])
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = refused.map(|call| (call, Vec::new())).into();
    rules.insert(libc::SYS_unshare, vec![user_namespace()?]);
    rules.insert(libc::SYS_clone, vec![user_namespace()?]);
    apply(rules, libc::EPERM)?;
    apply([(libc::SYS_clone3, Vec::new())].into(), libc::ENOSYS)
}

/// Adds a filter that answers matching calls with an error number.
fn apply(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> Result<(), seccompiler::Error> {
    let answer = SeccompAction::Errno(errno.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, arch)?;
    let program: seccompiler::BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)
}
