//! Confinement of an attempt's programs with Landlock and seccomp, entered by a thread of the supervisor before it starts
//! the program. Knows paths, and nothing of tasks or workspaces.
//!
//! Landlock domains and seccomp filters belong to a thread and are inherited by its children: the supervisor itself stays
//! outside and can signal what is inside. See <https://docs.kernel.org/userspace-api/landlock.html>; signal scoping needs
//! ABI 6 (Linux 6.12).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc;
use nix::sys::stat::{SFlag, fstat};
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use serde::{Deserialize, Serialize};

/// Access rights that are handled; later ones of the kernel stay as they are without a jail.
const HANDLED_ABI: ABI = ABI::V6;

/// Devices that programs use, readable and writable. `/dev/shm` is shared by the attempts of one user. Terminals of the user
/// are not among them: what is typed there can be read. `openpty` of glibc opens the other end through `/dev/ptmx`.
const DEVICES: [&str; 8] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/ptmx",
    "/dev/shm",
    "/dev/fd",
];

/// What the programs of an attempt may open. Everything else is refused, and so are signals and abstract sockets to
/// processes outside, kernel interfaces that programs hardly need, and new privileges.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jail {
    /// Files and directories to read and execute, without links.
    pub read: Vec<PathBuf>,
    /// Directories to read, execute and write, without links. A link in the place of one is an error: a program of an
    /// earlier jail may have made it.
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
        let failed =
            |error: RulesetError| io::Error::other(format!("failed to confine the program: {error}"));
        let mut ruleset = ruleset().map_err(failed)?;
        for path in &self.read {
            // One that is a link by now, as after an upgrade, is not opened.
            if let Ok(Some(rule)) = rule(path, read) {
                ruleset = ruleset.add_rule(rule).map_err(failed)?;
            }
        }
        for path in &self.write {
            if let Some(rule) = rule(path, all)? {
                ruleset = ruleset.add_rule(rule).map_err(failed)?;
            }
        }
        ruleset
            .add_rules(path_beneath_rules(DEVICES, devices))
            .and_then(|ruleset| ruleset.restrict_self())
            .map_err(failed)?;
        filter().map_err(|error| io::Error::other(format!("failed to filter system calls: {error}")))
    }
}

/// Returns the rule for a path, none if it does not exist or is closed to this user.
fn rule(path: &Path, access: BitFlags<AccessFs>) -> io::Result<Option<PathBeneath<OwnedFd>>> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = match openat2(AT_FDCWD, path, how) {
        Ok(file) => file,
        Err(Errno::ENOENT | Errno::EACCES | Errno::ENOTDIR) => return Ok(None),
        Err(errno) => {
            let text = format!("failed to confine the program: {}: {}", path.display(), errno.desc());
            return Err(io::Error::new(io::Error::from(errno).kind(), text));
        }
    };
    let is_directory = SFlag::from_bits_truncate(fstat(&file)?.st_mode & libc::S_IFMT) == SFlag::S_IFDIR;
    let access = if is_directory { access } else { access & AccessFs::from_file(HANDLED_ABI) };
    Ok(Some(PathBeneath::new(file, access)))
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
    // Limits and priorities of other processes: the worker's own could be set so that it is killed.
    let of_others = |argument: u8| -> Result<SeccompRule, seccompiler::BackendError> {
        let other = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0)?;
        SeccompRule::new(vec![other])
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = refused.map(|call| (call, Vec::new())).into();
    rules.insert(libc::SYS_unshare, vec![user_namespace()?]);
    rules.insert(libc::SYS_clone, vec![user_namespace()?]);
    rules.insert(libc::SYS_prlimit64, vec![of_others(0)?]);
    rules.insert(libc::SYS_setpriority, vec![of_others(1)?]);
    rules.insert(libc::SYS_ioprio_set, vec![of_others(1)?]);
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
