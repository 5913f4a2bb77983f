"""Runs a server for as long as whoever started this lives: `python supervisor.py command…`, its life line on stdin.

When stdin ends, by a close or because the other side died in whatever way, the server and all its processes are asked
to end and then killed. Only the standard library, and run by path, so that it starts at once.
"""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

GRACE_SECONDS = 10.0


def main() -> int:
    server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=2, start_new_session=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end(server))
    threading.Thread(target=watch, args=(server,), daemon=True).start()
    code = server.wait()
    # What the server started may outlive it.
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    return code if code >= 0 else 128 - code


def watch(server: "subprocess.Popen[bytes]") -> None:
    while os.read(0, 4096):
        pass
    end(server)


def end(server: "subprocess.Popen[bytes]") -> None:
    """SIGTERM to the server's group, SIGKILL after a while."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    timer = threading.Timer(GRACE_SECONDS, kill, (server,))
    timer.daemon = True
    timer.start()


def kill(server: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
