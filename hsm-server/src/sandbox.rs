//! The sandbox that each child enters once, before it has a second thread or has read a key.
//!
//! 1. No core dump, and no debugger of the same user (`RLIMIT_CORE`, `PR_SET_DUMPABLE`).
//! 2. The vault's memory is never swapped out (`mlockall`).
//! 3. Landlock: the vault reaches its state folder, the root key and the TLS files, the front only these; nothing
//!    else of the file system. The front cannot open a TCP connection to anybody but to the ports of other nodes.
//! 4. seccomp. Several filters, and the strictest verdict counts: what an intruder wants and no child ever needs
//!    (running a program, tracing a process, for the vault any new socket, for the front any but TCP) ends the
//!    process; a new process, and whatever is not on the vault's list, fails with `EPERM`.
//!
//! A kernel without Landlock is said so in the log, and serves without it; but no front calls other nodes then.

use std::{
    collections::BTreeMap,
    env::consts::ARCH,
    fmt, fs,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, NetPort, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus,
};
use libc::{c_int, c_long};
use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
    thread::{CapabilitySet, capabilities},
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};
use tracing::{info, warn};

use crate::config::Config;

/// Who enters the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Keys, no network.
    Vault,
    /// Network, no keys.
    Front,
    /// Both in one process (`isolation = "thread"`).
    Both,
}

/// The least room under `RLIMIT_MEMLOCK`, in bytes, with which later allocations do not fail.
const LOCK_ROOM: u64 = 1 << 30;
/// The Landlock version whose rights are asked for; an older kernel grants what it knows.
const LANDLOCK: ABI = ABI::V5;

/// Enters the sandbox. There is no way back.
///
/// # Errors
/// `SandboxError` if a wall cannot be put up that every supported kernel has, or one that the configuration
/// requires.
pub fn enter(role: Role, config: &Config) -> Result<(), SandboxError> {
    forbid_dumps()?;
    if role != Role::Front {
        lock_memory(config)?;
    }
    restrict_files(role, config)?;
    restrict_calls(role, config)
}

fn forbid_dumps() -> Result<(), SandboxError> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(|error| SandboxError::new("RLIMIT_CORE", error))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| SandboxError::new("PR_SET_DUMPABLE", error))
}

fn lock_memory(config: &Config) -> Result<(), SandboxError> {
    let limit = getrlimit(Resource::Memlock).current;
    let privileged = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    // Under a small limit locking may succeed now and make every later allocation fail.
    let problem = if privileged || limit.is_none_or(|limit| limit >= LOCK_ROOM) {
        // On fault: locks what is used, not every reserved stack.
        let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
        mlockall(flags).err().map(|error| error.to_string())
    } else {
        Some(format!("RLIMIT_MEMLOCK is {} KiB", limit.unwrap_or_default() / 1024))
    };
    let Some(problem) = problem else { return Ok(()) };
    let advice = "set LimitMEMLOCK=infinity in the unit, `ulimit -l unlimited`, or grant CAP_IPC_LOCK";
    if config.require_locked_memory {
        return Err(SandboxError::new("require_locked_memory", format!("{problem}: {advice}")));
    }
    warn!(problem, advice, "the vault's memory may be swapped to disk");
    Ok(())
}

fn restrict_files(role: Role, config: &Config) -> Result<(), SandboxError> {
    let tls = [&config.tls.certificate, &config.tls.key, &config.tls.authority];
    let mut readable: Vec<PathBuf> = Vec::new();
    let mut writable: Vec<PathBuf> = Vec::new();
    // Folders, not files: a new certificate is a new file. The vault looks at when the server's own ends.
    readable.extend(tls.iter().filter_map(|path| path.parent()).map(Path::to_path_buf));
    if role != Role::Front {
        fs::create_dir_all(&config.state).map_err(|error| SandboxError::new("state", error))?;
        writable.push(config.state.clone());
        readable.push(config.root_key.file.clone());
        // Whether the machine was started again since the audit log was written.
        readable.push("/proc/sys/kernel/random/boot_id".into());
        // Where a caller's seed is mixed in.
        writable.push("/dev/urandom".into());
    }
    let ports = if role == Role::Vault { &[] } else { config.cluster.ports.as_slice() };
    let rules = wall_off_ports(ports)?;
    let status =
        landlock(rules, &readable, &writable).map_err(|error| SandboxError::new("landlock", error))?;
    match status {
        RulesetStatus::FullyEnforced => {}
        RulesetStatus::PartiallyEnforced => {
            info!("this kernel's Landlock is older than 6.10: some of its walls are missing");
        }
        RulesetStatus::NotEnforced => {
            warn!(
                "this kernel has no Landlock (5.13 or later, CONFIG_SECURITY_LANDLOCK): files are not walled off"
            );
        }
    }
    Ok(())
}

/// Confines TCP connections to these ports. Without ports a kernel that cannot do it will do, because seccomp forbids
/// every connection then.
fn wall_off_ports(ports: &[u16]) -> Result<RulesetCreated, SandboxError> {
    let level = if ports.is_empty() { CompatLevel::BestEffort } else { CompatLevel::HardRequirement };
    let walled = Ruleset::default().set_compatibility(level).handle_access(AccessNet::ConnectTcp);
    let missing = |error| {
        SandboxError::new(
            "cluster.ports",
            format!(
                "this kernel cannot confine the front's connections to them, which takes Landlock of Linux 6.7 or \
                 later: use such a kernel, or leave `ports` empty and this server out of the cluster ({error})"
            ),
        )
    };
    let created = walled.and_then(|rules| {
        let rules = rules.set_compatibility(CompatLevel::BestEffort);
        rules.handle_access(AccessFs::from_all(LANDLOCK))?.create()
    });
    let allowed = created.and_then(|rules| {
        let mut ports = ports.iter();
        ports.try_fold(rules, |rules, port| rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp)))
    });
    allowed.map_err(missing)
}

fn landlock(
    rules: RulesetCreated,
    readable: &[PathBuf],
    writable: &[PathBuf],
) -> Result<RulesetStatus, Box<dyn std::error::Error>> {
    let mut rules = rules;
    let folder_rights = AccessFs::from_read(LANDLOCK) & !AccessFs::Execute;
    for path in readable {
        // What is not there yet cannot be read later either; whoever needs it will say so.
        let Ok(opened) = PathFd::new(path) else { continue };
        let rights = if path.is_dir() { folder_rights } else { AccessFs::ReadFile.into() };
        rules = rules.add_rule(PathBeneath::new(opened, rights))?;
    }
    for path in writable {
        let rights = if path.is_dir() { AccessFs::from_all(LANDLOCK) } else { AccessFs::from_file(LANDLOCK) };
        let rights = rights & !AccessFs::Execute;
        rules = rules.add_rule(PathBeneath::new(PathFd::new(path)?, rights))?;
    }
    Ok(rules.restrict_self()?.ruleset)
}

fn restrict_calls(role: Role, config: &Config) -> Result<(), SandboxError> {
    let deadly = match role {
        Role::Vault => [NEVER, NEVER_LEGACY, NO_SOCKETS].concat(),
        Role::Front | Role::Both if config.cluster.ports.is_empty() => {
            [NEVER, NEVER_LEGACY, NO_CONNECTIONS].concat()
        }
        // To which ports, Landlock says.
        Role::Front | Role::Both => [NEVER, NEVER_LEGACY].concat(),
    };
    let mut deadly = always(&deadly);
    if role != Role::Vault {
        deadly.extend(no_sockets_but_tcp()?);
    }
    install(deadly, SeccompAction::Allow, SeccompAction::KillProcess)?;
    // Threads, but no processes. Of `clone3` a filter cannot tell which; without it the C library uses `clone`.
    install(always(&[libc::SYS_clone3]), SeccompAction::Allow, fails_with(libc::ENOSYS))?;
    let process = BTreeMap::from([(libc::SYS_clone, vec![no_thread()?])]);
    install(process, SeccompAction::Allow, fails_with(libc::EPERM))?;
    if role == Role::Vault {
        let allowed = [VAULT, VAULT_LEGACY].concat();
        install(always(&allowed), fails_with(libc::EPERM), SeccompAction::Allow)?;
    }
    Ok(())
}

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

fn always(calls: &[c_long]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

fn no_thread() -> Result<SeccompRule, SandboxError> {
    let thread = number(libc::CLONE_THREAD);
    rule(&[(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(thread), 0)])
}

/// What the front does with sockets of other kinds than TCP over IP: nothing. Nor does it send with `MSG_FASTOPEN`,
/// which connects where neither Landlock nor the filter of `connect` sees it.
fn no_sockets_but_tcp() -> Result<Rules, SandboxError> {
    use SeccompCmpArgLen::Dword;
    use SeccompCmpOp::{MaskedEq, Ne};
    let neither = |argument, one: c_int, other: c_int| {
        rule(&[(argument, Dword, Ne, number(one)), (argument, Dword, Ne, number(other))])
    };
    let mut sockets = vec![neither(0, libc::AF_INET, libc::AF_INET6)?, neither(2, 0, libc::IPPROTO_TCP)?];
    for kind in (0..=SOCKET_KIND).filter(|kind| *kind != number(libc::SOCK_STREAM)) {
        sockets.push(rule(&[(1, Dword, MaskedEq(SOCKET_KIND), kind)])?);
    }
    let fast = number(libc::MSG_FASTOPEN);
    let sends = [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)];
    let sends = sends.map(|(call, flags)| Ok((call, vec![rule(&[(flags, Dword, MaskedEq(fast), fast)])?])));
    std::iter::once(Ok((libc::SYS_socket, sockets))).chain(sends).collect()
}

/// The bits of a socket's type that say of which kind it is.
const SOCKET_KIND: u64 = 0xf;

/// A rule that holds where all of these hold: which argument, its width, the comparison and with what.
fn rule(conditions: &[(u8, SeccompCmpArgLen, SeccompCmpOp, u64)]) -> Result<SeccompRule, SandboxError> {
    let conditions = conditions.iter().cloned();
    let conditions =
        conditions.map(|(argument, width, op, to)| SeccompCondition::new(argument, width, op, to));
    conditions
        .collect::<Result<_, _>>()
        .and_then(SeccompRule::new)
        .map_err(|error| SandboxError::new("seccomp", error))
}

fn number(constant: c_int) -> u64 {
    u64::from(constant.unsigned_abs())
}

fn fails_with(code: c_int) -> SeccompAction {
    SeccompAction::Errno(code.unsigned_abs())
}

fn install(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<(), SandboxError> {
    let fail = |error: &dyn fmt::Display| SandboxError::new("seccomp", error);
    let target = TargetArch::try_from(ARCH).map_err(|error| fail(&error))?;
    let filter = SeccompFilter::new(rules, otherwise, matched, target).map_err(|error| fail(&error))?;
    let program = BpfProgram::try_from(filter).map_err(|error| fail(&error))?;
    apply_filter_all_threads(&program).map_err(|error| fail(&error))
}

/// What no child ever does, and every intruder wants to.
const NEVER: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_io_uring_setup,
];

/// The same, in forms that only x86-64 has.
#[cfg(target_arch = "x86_64")]
const NEVER_LEGACY: &[c_long] = &[libc::SYS_fork, libc::SYS_vfork];
#[cfg(not(target_arch = "x86_64"))]
const NEVER_LEGACY: &[c_long] = &[];

/// The front accepts; unless it is a node's it never calls anybody.
const NO_CONNECTIONS: &[c_long] = &[libc::SYS_connect];

/// The vault has no socket but those that it is handed.
const NO_SOCKETS: &[c_long] = &[
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
];

/// What the vault does: threads, memory, time, randomness, its lanes, and the files of SQLite and the log.
const VAULT: &[c_long] = &[
    // Threads and memory.
    libc::SYS_brk,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_get_robust_list,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_msync,
    libc::SYS_munlock,
    libc::SYS_munmap,
    libc::SYS_prctl,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_restart_syscall,
    // Time, randomness, who am I.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getuid,
    libc::SYS_getrlimit,
    libc::SYS_getrusage,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_prlimit64,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    // The filters are installed one after the other.
    libc::SYS_seccomp,
    // Lanes and the control socket.
    libc::SYS_getsockopt,
    libc::SYS_ppoll,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    // Files.
    libc::SYS_chdir,
    libc::SYS_close,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_ioctl,
    libc::SYS_linkat,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_sync_file_range,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_write,
    libc::SYS_writev,
];

/// The older forms of the same calls, which only x86-64 has.
#[cfg(target_arch = "x86_64")]
const VAULT_LEGACY: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_arch_prctl,
    libc::SYS_chmod,
    libc::SYS_dup2,
    libc::SYS_getdents,
    libc::SYS_link,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_pause,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
    libc::SYS_utimes,
];
#[cfg(not(target_arch = "x86_64"))]
const VAULT_LEGACY: &[c_long] = &[];

/// A wall that cannot be put up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxError {
    wall: &'static str,
    reason: String,
}

impl SandboxError {
    fn new(wall: &'static str, reason: impl fmt::Display) -> Self {
        Self { wall, reason: reason.to_string() }
    }
}

impl fmt::Display for SandboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sandbox: {}: {}", self.wall, self.reason)
    }
}

impl std::error::Error for SandboxError {}
