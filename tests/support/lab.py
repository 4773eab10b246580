"""A real JupyterLab on this machine alone, with nothing of the reader's in it."""

import json
import os
import re
import secrets
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from crossexplain_book import find_root

ROOT = find_root(Path(__file__))
QUIET = {  # what JupyterLab would otherwise ask of its reader, or of the network
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
}


def options() -> list[str]:
    """Return the options with which ``make lab`` starts it."""
    return shlex.split(re.search(r"^LAB = (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)[1])


@contextmanager
def jupyterlab(folder: Path, root: Path, log: Path) -> Iterator[str]:
    """Serve ``root`` until the block ends; yields the address of the lab with its token, to put ``/tree/NAME`` between.

    Parameters
    ----------
    folder : Path
        For settings and run-time files, in place of the home folder's.
    root : Path
        Of the notebooks.
    log : Path
        What the server says.
    """
    for name, settings in QUIET.items():
        path = folder / "settings" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings), "utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port, token = probe.getsockname()[1], secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}",
               "--ServerApp.port_retries=0", *options(), f"--ServerApp.root_dir={root}", f"--IdentityProvider.token={token}",
               *(["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else [])]
    places = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "run",
              "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "IPYTHONDIR": "ipython"}
    environment = {**os.environ, **{key: str(folder / name) for key, name in places.items()}, "JUPYTER_PREFER_ENV_PATH": "1",
                   "OMP_NUM_THREADS": "1"}  # beside other tests two threads wait for each other
    with log.open("w", encoding="utf-8") as out:
        server = subprocess.Popen(command, cwd=root, env=environment, stdout=out, stderr=subprocess.STDOUT)
        try:
            _wait(server, f"http://127.0.0.1:{port}/api?token={token}", log)
            yield f"http://127.0.0.1:{port}/lab{{}}?token={token}"
        finally:
            _end(server)


def _wait(server: subprocess.Popen, address: str, log: Path, seconds: float = 180) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not answer within {seconds:.0f} s:\n{log.read_text('utf-8')[-3000:]}")


def _end(server: subprocess.Popen) -> None:
    """End the server and its kernels, by their process ids."""
    family = [server, *psutil.Process(server.pid).children(recursive=True)] if server.poll() is None else [server]
    server.terminate()
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    for kernel in family[1:]:
        try:
            kernel.kill()
        except psutil.NoSuchProcess:
            pass
