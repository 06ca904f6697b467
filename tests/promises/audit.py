"""Run `python -m MODULE ARGUMENT ...` and log the processes, sockets and files that it opens.

Usage: python audit.py LOG MODULE ARGUMENT ...; with "import MODULE" the module is only imported.
"""

import json
import os
import runpy
import sys

PROCESSES = ("subprocess.Popen", "os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn", "os.system")
SOCKETS = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
FILES = ("open", "os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def audit(log: int) -> None:
    """Write each such event of this process to a file as a line of JSON: its kind and its subject."""

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in PROCESSES:
            line = ["process", str(arguments[1] if event == "subprocess.Popen" else arguments)]
        elif event in SOCKETS:
            line = ["socket", f"{event} {arguments[1] if 'socket.get' not in event else arguments[0]}"]
        elif event in FILES and not isinstance(arguments[0], int):
            if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITING):
                return
            if event == "os.mkdir" and os.path.isdir(str(arguments[0])):
                return  # exists
            places = arguments[:2] if event in ("os.rename", "os.link", "os.symlink") else arguments[:1]
            line = ["file", *(os.path.abspath(os.fsdecode(place)) for place in places)]  # type: ignore[arg-type]
        else:
            return
        os.write(log, (json.dumps(line) + "\n").encode())

    sys.addaudithook(hook)


if __name__ == "__main__":
    audit(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    module, *arguments = sys.argv[2:]
    sys.argv = [module, *arguments]
    sys.path[0] = ""  # like python -m
    if module.startswith("import "):
        __import__(module.removeprefix("import "))
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
