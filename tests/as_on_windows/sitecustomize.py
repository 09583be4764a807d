"""Python as on Windows, for naturelm's own modules: imported at start by every Python that has this folder on its path.

The libraries below have their own ways on each system, so they keep the real modules. What naturelm imports has no
`fcntl` or `resource`, and its `os`, `signal`, `select`, `sys` and `time` lack what Windows lacks and fail as there.
"""

from __future__ import annotations

import builtins
import os
import select
import signal
import sys
import time
import types
from typing import Any

ABSENT_MODULES = {
    *("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix", "crypt", "curses"),
    "readline",
}
ABSENT_NAMES = {
    os: {
        *("sysconf", "sysconf_names", "confstr", "sched_getaffinity", "sched_setaffinity", "sched_yield"),
        *(
            "getuid",
            "geteuid",
            "getgid",
            "getegid",
            "getgroups",
            "getpgid",
            "getpgrp",
            "getsid",
            "setsid",
            "setpgid",
        ),
        *(
            "setuid",
            "setgid",
            "fork",
            "forkpty",
            "killpg",
            "nice",
            "getpriority",
            "setpriority",
            "getloadavg",
        ),
        *(
            "wait",
            "wait3",
            "wait4",
            "waitid",
            "WNOHANG",
            "WIFSIGNALED",
            "WTERMSIG",
            "uname",
            "chown",
            "lchown",
        ),
        *(
            "fchmod",
            "fchown",
            "chroot",
            "mkfifo",
            "mknod",
            "statvfs",
            "fstatvfs",
            "fdatasync",
            "sync",
            "openpty",
        ),
        *(
            "posix_spawn",
            "posix_fadvise",
            "posix_fallocate",
            "pread",
            "pwrite",
            "preadv",
            "pwritev",
            "sendfile",
        ),
        *(
            "pipe2",
            "pidfd_open",
            "memfd_create",
            "eventfd",
            "copy_file_range",
            "getxattr",
            "setxattr",
            "ttyname",
        ),
        *(
            "ctermid",
            "tcgetpgrp",
            "tcsetpgrp",
            "O_NONBLOCK",
            "O_CLOEXEC",
            "O_DIRECTORY",
            "O_NOFOLLOW",
            "O_SYNC",
        ),
        *("EX_OK", "RTLD_NOW", "register_at_fork"),
    },
    signal: {
        *("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGPIPE", "SIGQUIT", "SIGALRM", "SIGCONT"),
        *(
            "SIGSTOP",
            "SIGTSTP",
            "SIGWINCH",
            "SIGTTIN",
            "SIGTTOU",
            "SIGXCPU",
            "pthread_kill",
            "pthread_sigmask",
        ),
        *("sigwait", "sigtimedwait", "sigpending", "alarm", "setitimer", "pause", "siginterrupt"),
    },
    select: {"poll", "epoll", "kqueue", "select", "PIPE_BUF", "POLLIN"},
    time: {"tzset", "clock_gettime", "clock_settime", "pthread_getcpuclockid"},
    sys: set(),
}


def _open(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
    if isinstance(path, (str, bytes, os.PathLike)) and os.path.isdir(path):
        raise PermissionError(13, "Permission denied", os.fspath(path))
    return os.open(path, flags, *arguments, **options)


def _kill(pid: int, number: int) -> None:
    raise AssertionError(f"os.kill({pid}, {number}) ends a process on Windows, whatever the signal")


def _signal(number: int, handler: Any) -> Any:
    allowed = (signal.SIGINT, signal.SIGTERM, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV)
    if number not in allowed:
        raise ValueError("invalid signal value")
    return signal.signal(number, handler)


REPLACED = {
    os: {"open": _open, "kill": _kill},
    signal: {"signal": _signal},
    sys: {"platform": "win32"},
}


class _AsOnWindows(types.ModuleType):
    def __init__(self, real: types.ModuleType) -> None:
        super().__init__(real.__name__)
        self.__dict__["_real"] = real
        self.__dict__.update(REPLACED.get(real, {}))

    def __getattr__(self, name: str) -> Any:
        if name in ABSENT_NAMES[self._real]:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}", name=name, obj=self)
        return getattr(self._real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._real, name, value)


_SEEN = {real.__name__: _AsOnWindows(real) for real in ABSENT_NAMES}
_real_import = builtins.__import__


def _import(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
    importer = (globals or {}).get("__spec__")
    importer_name = importer.name if importer is not None else str((globals or {}).get("__name__", ""))
    if level == 0 and importer_name.partition(".")[0] == "naturelm":
        if name.partition(".")[0] in ABSENT_MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name in _SEEN:
            return _SEEN[name]
    return _real_import(name, globals, locals, fromlist, level)


builtins.__import__ = _import
