"""A module run as `python -m MODULE ARGUMENT ...` is, what it starts, opens and writes being noted:
python watched.py NOTES MODULE ARGUMENT ...; "import MODULE" imports it and no more.
"""

import json
import os
import runpy
import sys

PROCESSES = ("subprocess.Popen", "os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn", "os.system")
SOCKETS = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
FILES = ("open", "os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def watch(notes: int) -> None:
    """Have every such event of this process written to a file, as a line of JSON: its kind and what it is about."""

    def note(event: str, about: tuple[object, ...]) -> None:
        if event in PROCESSES:
            line = ["process", str(about[1] if event == "subprocess.Popen" else about)]
        elif event in SOCKETS:
            line = ["socket", f"{event} {about[1] if 'socket.get' not in event else about[0]}"]
        elif event in FILES and not isinstance(about[0], int):
            if event == "open" and not (isinstance(about[2], int) and about[2] & WRITING):
                return
            if event == "os.mkdir" and os.path.isdir(str(about[0])):
                return  # it is there
            places = about[:2] if event in ("os.rename", "os.link", "os.symlink") else about[:1]
            line = ["file", *(os.path.abspath(os.fsdecode(place)) for place in places)]  # type: ignore[arg-type]
        else:
            return
        os.write(notes, (json.dumps(line) + "\n").encode())

    sys.addaudithook(note)


if __name__ == "__main__":
    watch(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    module, *arguments = sys.argv[2:]
    sys.argv = [module, *arguments]
    sys.path[0] = ""  # as -m has it
    if module.startswith("import "):
        __import__(module.removeprefix("import "))
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
