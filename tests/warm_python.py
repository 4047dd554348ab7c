"""A Python interpreter that has imported the library already.

Importing Lightning takes seconds, and many tests start processes: they are killed, or run as
a reader runs them. A server imports everything once, and each start is a fork of it, a process of
its own with the arguments, the folder, the environment and the streams that the caller gives.
"""

import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

PRELOADED = ("hepattn.training.cli", "hepattn.deploy.command", "matplotlib.pyplot", "pytest")
CLIENT = """#!{python} -IS
import json, os, signal, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    call = dict(arguments=sys.argv[1:], folder=os.getcwd(), environment=dict(os.environ))
    message = json.dumps(call).encode()
    socket.send_fds(server, [len(message).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(message)
    process = int(server.recv(16))
    passed_on = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    for number in passed_on:
        signal.signal(number, lambda number, _: os.kill(process, number))
    code = int(server.recv(16))
for number in passed_on:
    signal.signal(number, signal.SIG_DFL)
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@contextmanager
def warm_python(folder: Path) -> Iterator[Path]:
    """Start the server and give the path of a ``python`` that lives as long as it.

    Args:
        folder: Where to put it.
    """
    address = folder / "server"
    command = [sys.executable, __file__, str(address)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            python = folder / "python"
            python.write_text(CLIENT.format(python=sys.executable, address=str(address)))
            python.chmod(0o755)
            yield python
        finally:
            server.kill()


def serve(address: str) -> None:
    """Run one command after the other, each as a fork."""
    for module in PRELOADED:
        importlib.import_module(module)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        print("ready", flush=True)
        while True:
            client, _ = server.accept()
            with client:
                head, files, _, _ = socket.recv_fds(client, 8, 3)
                message = client.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)
                process = os.fork()
                if not process:
                    client.close()
                    server.close()
                    _exit(_run(files, **json.loads(message)))
                for file in files:
                    os.close(file)
                client.sendall(str(process).encode())
                _watch(process, client)


def _watch(process: int, client: socket.socket) -> None:
    """Tell the caller how the command ends; if the caller was killed, kill it, too."""
    client.setblocking(False)
    done = status = 0
    while not done:
        done, status = os.waitpid(process, os.WNOHANG)
        try:
            gone = not client.recv(1)
        except BlockingIOError:
            gone = False
        if gone and not done:
            os.kill(process, signal.SIGKILL)
            _, status = os.waitpid(process, 0)
            return
        time.sleep(0.005)
    client.setblocking(True)
    client.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def _run(
    files: Sequence[int], arguments: list[str], folder: str, environment: dict[str, str]
) -> int:
    """Be the interpreter of a command, and return its exit code."""
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    added = [part for part in environment.get("PYTHONPATH", "").split(os.pathsep) if part]
    first, *rest = arguments
    is_file = first not in ("-c", "-m")
    sys.argv = arguments if is_file else ["-c", *rest[1:]] if first == "-c" else rest
    sys.path[:1] = [str(Path(first).resolve().parent) if is_file else folder, *added]
    try:
        if first == "-c":
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        elif first == "-m":
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(first, run_name="__main__")
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.__stderr__)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _exit(code: int) -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with suppress(ValueError):  # a progress bar may have closed what it put there
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
