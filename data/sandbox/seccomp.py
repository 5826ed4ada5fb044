"""The system calls that a program in the sandbox can make: a seccomp filter, for bubblewrap or a thread.

It lists what Python and its standard library use. Everything else, including additions of later kernels, fails as if
the kernel did not have it (ENOSYS), so libraries fall back to older calls. Deliberately left out is what a program
could attack the kernel or others with: keys, io_uring, bpf, ptrace, userfaultfd, mounts, namespaces, sockets of any
kind but IPv4, IPv6 and Unix; and memory that no process limit counts, from System V or memfd_create. A call in the
convention of another architecture, such as x32, kills the process.
"""

import ctypes
import platform
from functools import cache
from tempfile import TemporaryFile

MACHINES = ("x86_64", "aarch64")  # where the arguments are in the order used below
_NAMESPACES = 0x7E020000  # the flags of clone that make new ones
_SOCKETS = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6
# FIONBIO, FIONREAD, FIOCLEX, FIONCLEX; TCGETS, TIOCGWINSZ, TIOCGPGRP, with which a program checks for a terminal.
_IOCTLS = (0x5421, 0x541B, 0x5451, 0x5450, 0x5401, 0x5413, 0x540F)
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, _PR_SET_NO_NEW_PRIVS = 22, 2, 38
_CALLS = """
    access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
    fallocate fchdir fchmod fchmodat fchown fchownat fcntl fdatasync flock fstat fstatfs fsync ftruncate futimesat
    getcwd getdents getdents64 lchown link linkat lseek lstat mkdir mkdirat mknod mknodat newfstatat open
    openat pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readlink readlinkat readv rename renameat
    renameat2 rmdir sendfile splice stat statfs statx symlink symlinkat sync truncate umask unlink unlinkat utime
    utimensat utimes write writev
    fgetxattr flistxattr fremovexattr fsetxattr getxattr lgetxattr listxattr llistxattr lremovexattr lsetxattr
    removexattr setxattr
    brk madvise membarrier mincore mmap mprotect mremap msync munmap
    arch_prctl capget capset execve execveat exit exit_group fork futex get_robust_list getcpu getegid geteuid getgid
    getgroups getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid
    gettid getuid kill pidfd_open pidfd_send_signal prctl prlimit64 rseq sched_get_priority_max sched_get_priority_min
    sched_getaffinity sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setparam
    sched_setscheduler sched_yield set_robust_list set_tid_address setgid setgroups setpgid setpriority setregid
    setresgid setresuid setreuid setrlimit setsid setuid sysinfo tgkill times tkill uname vfork wait4 waitid
    alarm clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep setitimer time
    pause restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
    rt_sigtimedwait rt_tgsigqueueinfo sigaltstack
    epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 poll ppoll pselect6
    select
    accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg sendmsg
    sendto setsockopt shutdown
"""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


@cache
def program() -> bytes:
    """The filter in the kernel's format.

    Raises:
        OSError: no filter can be created on this machine.
    """
    if platform.machine() not in MACHINES:
        raise OSError(f"there is no system call filter for {platform.machine()}")
    try:
        import pyseccomp as seccomp
    except (ImportError, RuntimeError) as error:  # the latter if libseccomp is missing
        raise OSError(f"{error}; install it, as with `apt-get install libseccomp2`") from None
    filter_ = seccomp.SyscallFilter(seccomp.ERRNO(38))  # ENOSYS
    filter_.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)
    filter_.set_attr(seccomp.Attr.CTL_OPTIMIZE, 2)  # a tree of comparisons instead of a list
    for name in _CALLS.split():
        number = seccomp.resolve_syscall(seccomp.Arch.NATIVE, name)
        if number >= 0:  # no number: this architecture never had it
            filter_.add_rule(seccomp.ALLOW, number)

    def allow(name: str, argument: int, mask: int, value: int) -> None:
        filter_.add_rule(seccomp.ALLOW, name, seccomp.Arg(argument, seccomp.MASKED_EQ, mask, value))

    allow("clone", 0, _NAMESPACES, 0)
    for family in _SOCKETS:
        allow("socket", 0, 0xFFFFFFFF, family)  # the kernel reads the lower half only
    allow("socketpair", 0, 0xFFFFFFFF, _SOCKETS[0])
    for request in _IOCTLS:
        allow("ioctl", 1, 0xFFFFFFFF, request)
    with TemporaryFile() as file:
        filter_.export_bpf(file)
        file.seek(0)
        return file.read()


def restrict_thread() -> None:
    """Apply the filter to this thread and to all processes that it starts, irrevocably.

    Raises:
        OSError: the kernel rejects it.
    """
    held = program()
    libc = ctypes.CDLL(None, use_errno=True)
    told = ctypes.byref(_Program(len(held) // 8, held))
    one, zero = ctypes.c_ulong(1), ctypes.c_ulong(0)
    if (
        libc.prctl(_PR_SET_NO_NEW_PRIVS, one, zero, zero, zero)
        or libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), told, zero, zero)
    ):  # fmt: skip
        raise OSError(ctypes.get_errno(), "the kernel rejects the system call filter")
