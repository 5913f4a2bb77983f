"""The commands that shut a program in: bubblewrap, or `unshare` with a script of mounts where that is missing.

Inside there is a file system that can only be read, with the interpreter and the system's libraries and nothing else,
one small scratch folder, no network, no other processes, no privileges. The walls stop a program as root too: the
command first becomes nobody, because the kernel does not count the processes of the real root against a limit.
"""

import os
import shlex
import shutil
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from posttrain.errors import UserError

NOBODY = "65534"
SYSTEM = ("/usr",)
LINKED = ("/bin", "/sbin", "/lib", "/lib32", "/lib64")
"""Links into /usr on merged systems, folders of their own on others."""
ALSO_READ = ("/etc/ld.so.cache",)
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
PACKAGES = "/packages"
"""Where packages of this process's environment are inside, if a program is given any; for its `sys.path`."""
SCRATCH = "/tmp"
"""The only folder a program can write to; also its home and where it starts."""
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": SCRATCH, "TMPDIR": SCRATCH, "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
}  # fmt: skip
"""All that a program is told of this machine."""


@dataclass(frozen=True)
class Interpreter:
    """A Python that the sandbox's user may read, and the folder it needs beside SYSTEM (empty for none)."""

    path: str
    prefix: str


def interpreter() -> Interpreter | None:
    """This process's own Python where nobody may read it, else the system's, else None."""
    own, prefix = os.path.realpath(sys.executable), os.path.realpath(sys.base_prefix)
    if _public(own) and _public(prefix):
        return Interpreter(own, "" if _below(prefix, SYSTEM) and _below(own, SYSTEM) else prefix)
    system = "/usr/bin/python3"
    return Interpreter(system, "") if os.path.exists(system) else None


def _below(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


def _public(path: str) -> bool:
    """Whether the user that the program runs as can reach and read a path."""
    if os.geteuid() != 0:
        return os.access(path, os.R_OK | os.X_OK)
    needed = stat.S_IROTH | stat.S_IXOTH
    reachable = all(os.stat(parent).st_mode & stat.S_IXOTH for parent in Path(path).parents)
    return reachable and os.stat(path).st_mode & needed == needed


def installed(names: Sequence[str]) -> list[str]:
    """The folders and files of packages and modules of this process's environment, as they stand in its folders.

    Raises UserError for one that is not there."""
    found = []
    for name in names:
        options = (Path(folder) / own for folder in sys.path for own in (name, f"{name}.py"))
        path = next((option for option in options if option.exists()), None)
        if path is None:
            raise UserError(f"the package {name}, which programs in the sandbox are given, is not installed")
        found.append(os.path.abspath(path))
    return found


def rlimits(memory: int, processes: int, seconds: float, scratch: int) -> list[str]:
    """The command prefix that limits each process; memory and scratch in bytes, CPU seconds rounded up."""
    return [
        "prlimit", f"--as={memory}", f"--nproc={processes}", f"--cpu={int(seconds) + 1}", f"--fsize={scratch}",
        "--core=0", "--nofile=256", "--",
    ]  # fmt: skip


def _unprivileged() -> list[str]:
    """Die with the parent, gain nothing by setuid, and stop being root."""
    command = ["setpriv", "--pdeathsig", "KILL", "--no-new-privs"]
    if os.geteuid() == 0:
        command += ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]
    return [*command, "--"]


def bubblewrap(python: Interpreter, scratch: int, packages: Sequence[str] = ()) -> list[str]:
    """The command prefix of bubblewrap (0.8 or later, for the scratch folder's size); `packages` are paths."""
    command = [*_unprivileged(), "bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    for folder in [*SYSTEM, *filter(None, [python.prefix])]:
        command += ["--ro-bind", folder, folder]
    for folder in LINKED:
        if os.path.islink(folder):
            command += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            command += ["--ro-bind", folder, folder]
    for path in packages:
        command += ["--ro-bind", path, f"{PACKAGES}/{os.path.basename(path)}"]
    for file in ALSO_READ:
        command += ["--ro-bind-try", file, file]
    command += ["--dev", "/dev", "--remount-ro", "/dev"]
    command += ["--size", str(scratch), "--tmpfs", SCRATCH, "--remount-ro", "/", "--chdir", SCRATCH]
    return [*command, "--uid", NOBODY, "--gid", NOBODY, "--"]


MOUNTS = """\
set -e
root=/mnt
mount -t tmpfs -o size=1m,mode=755 box "$root"
shut() { mount --bind -o ro,nosuid,nodev "$1" "$root$1"; }
for folder in {folders}; do mkdir -p "$root$folder"; shut "$folder"; done
for link in {links}; do
    if [ -L "$link" ]; then cp -P "$link" "$root$link"
    elif [ -d "$link" ]; then mkdir "$root$link"; shut "$link"; fi
done
for file in {files}; do
    if [ -e "$file" ]; then mkdir -p "$root${file%/*}"; : > "$root$file"; mount --bind "$file" "$root$file"; fi
done
for path in {packages}; do
    inside="$root{inside}/${path##*/}"
    if [ -d "$path" ]; then mkdir -p "$inside"; else mkdir -p "${inside%/*}"; : > "$inside"; fi
    mount --bind -o ro,nosuid,nodev "$path" "$inside"
done
mkdir -p "$root{scratch}"
mount -t tmpfs -o size={size},mode=1777,nosuid,nodev scratch "$root{scratch}"
mount -o remount,ro -t tmpfs box "$root"
exec chroot "$root" setpriv --no-new-privs --bounding-set=-all --inh-caps=-all --ambient-caps=-all -- \
    sh -c 'cd {scratch} && exec "$@"' - "$@"
"""


def unshare(python: Interpreter, scratch: int, packages: Sequence[str] = ()) -> list[str]:
    """The command prefix of util-linux's `unshare`: the same walls, built by a shell in namespaces of its own."""
    values = {
        "folders": " ".join([*SYSTEM, *filter(None, [python.prefix])]), "links": " ".join(LINKED),
        "files": " ".join([*ALSO_READ, *DEVICES]), "scratch": SCRATCH, "size": str(scratch), "inside": PACKAGES,
        "packages": shlex.join(packages),
    }  # fmt: skip
    script = MOUNTS
    for name, value in values.items():
        script = script.replace(f"{{{name}}}", value)
    names = ["--user", "--map-root-user", "--mount", "--pid", "--net", "--ipc", "--uts"]
    return [*_unprivileged(), "unshare", *names, "--fork", "--kill-child=KILL", "--", "sh", "-c", script, "sh"]


WALLS = {"bubblewrap": ("bwrap", bubblewrap), "unshare": ("unshare", unshare)}
"""Name → the program it needs and what builds its command prefix, the better one first."""
NEEDED = ("setpriv", "prlimit")


def missing(program: str) -> list[str]:
    """Which of the programs a wall needs are not on the path."""
    return [name for name in (program, *NEEDED) if shutil.which(name) is None]
