"""What a chapter or a benchmark is made from, so that only what changed is run again.

Two halves. Which modules of the project some code can reach is read from its import statements, without running
anything: :meth:`Imports.reached`. Which files it opens is only known while it runs: this module is an IPython extension that
notes them (:func:`load_ipython_extension`), and :func:`file_states` says how they are.
"""

import ast
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from importlib.util import resolve_name
from pathlib import Path

from crossexplain.files import digest

PACKAGES = ("crossexplain", "crossexplain_book", "benchmarks")  # whose modules count one by one; others count by the lock
DATA = ("data", "src", "benchmarks")  # folders of the checkout whose files, modules apart, count where a run opens them
OPENED = "CROSSEXPLAIN_OPENED"  # environment variable: the file in which a run notes what it opens
MAGIC = re.compile(r"^(\s*)[%!].*$", re.MULTILINE)  # a line for IPython and not for Python


class Imports:
    """The import statements of a checkout, each file read once.

    Parameters
    ----------
    root : Path
        The checkout.
    """

    def __init__(self, root: Path):
        self.root = root
        self._direct: dict[str, set[str]] = {}
        self._tables: dict[str, dict[str, str]] = {}

    def file(self, module: str) -> Path | None:
        """Return the file of a module of the project, None for a name that is no such module."""
        if module.partition(".")[0] not in PACKAGES:
            return None
        for above in (self.root / "src", self.root):
            path = above.joinpath(*module.split("."))
            for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
                if file.is_file():
                    return file
        return None

    def reached(self, code: Iterable[str]) -> list[str]:
        """Return every module that pieces of code import, directly or through others, also inside functions.

        A package counts with its ``__init__``, and with those of its modules that are imported. Where a package hands
        out names lazily (it has a ``__getattr__`` and a table from name to module), only the names asked for count.
        """
        waiting = {name for text in code for name in self._imported(_parsed(text), package="")}
        visited: set[str] = set()
        while waiting:
            module = waiting.pop()
            visited.add(module)
            if module not in self._direct:
                self._direct[module] = self._of_module(module)
            waiting |= self._direct[module] - visited
        return sorted(visited)

    def files(self, code: Iterable[str]) -> list[Path]:
        """Return the files of the modules that pieces of code reach."""
        return [self.file(module) for module in self.reached(code)]

    def _of_module(self, module: str) -> set[str]:
        path = self.file(module)
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        return self._imported(_parsed(path.read_text("utf-8")), package)

    def _imported(self, code: ast.AST, package: str) -> set[str]:
        """Return the modules that the import statements of one file name, and the packages above them."""
        modules = [module for name in _names(code, package) if (module := self._module(name))]
        return {".".join(parts[:i]) for parts in (module.split(".") for module in modules) for i in range(1, len(parts) + 1)}

    def _module(self, name: str) -> str | None:
        """Return the module that a dotted name is, or is lazily taken from; None for anything else."""
        if self.file(name):
            return name
        above, _, last = name.rpartition(".")
        return self._table(above).get(last) if self.file(above) else None

    def _table(self, module: str) -> dict[str, str]:
        """Return which names a module hands out lazily, and the module that each is taken from."""
        if module not in self._tables:
            body = _parsed(self.file(module).read_text("utf-8")).body
            lazy = any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in body)
            pairs = [pair for node in body if lazy and isinstance(node, ast.Assign | ast.AnnAssign)
                     and isinstance(node.value, ast.Dict) for pair in zip(node.value.keys, node.value.values)]
            self._tables[module] = {key.value: home for key, value in pairs if isinstance(key, ast.Constant)
                                    and (home := self._first_module(value))}
        return self._tables[module]

    def _first_module(self, value: ast.AST) -> str | None:
        """Return the module that an entry of a lazy table names: ``"module"``, ``"module:name"``, or a tuple with it."""
        words = [node.value.partition(":")[0] for node in ast.walk(value) if isinstance(node, ast.Constant)
                 and isinstance(node.value, str)]
        return next((word for word in words if self.file(word)), None)


def _parsed(code: str) -> ast.Module:
    try:
        return ast.parse(MAGIC.sub(r"\1pass", code))
    except SyntaxError:  # the run will say so; what cannot run imports nothing
        return ast.Module(body=[], type_ignores=[])


def _names(code: ast.AST, package: str) -> Iterator[str]:
    """Yield every dotted name that may be a module: of imports, and of attributes of an imported package."""
    local: dict[str, str] = {}  # name in this file -> module it stands for
    for node in _run_time(code):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            local |= {alias.asname or alias.name.partition(".")[0]: alias.name if alias.asname else alias.name.partition(".")[0]
                      for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module
            yield from (above, *(f"{above}.{alias.name}" for alias in node.names))
            local |= {alias.asname or alias.name: f"{above}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            if getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module":
                yield str(node.args[0].value)
    for node in _run_time(code):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in local:
            yield f"{local[node.value.id]}.{node.attr}"


def _run_time(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes except those that only a type checker reads."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield from _run_time(child)


def code_cells(notebook: Path) -> list[dict]:
    """Return the code cells of a notebook, their sources as one string; none where it is no notebook."""
    try:
        cells = json.loads(notebook.read_text("utf-8"))["cells"]
        return [{**cell, "source": "".join(cell["source"])} for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, TypeError, KeyError, AttributeError):  # its run will say so
        return []


def chapter_key(imports: Imports, notebook: Path, parameters: dict) -> str:
    """Return the hash of what is known of a chapter before it runs.

    Its code cells (prose may change), which of them takes the parameters, the parameters, the modules that it reaches,
    the lock, and the versions of Python and torch.
    """
    cells = code_cells(notebook)
    code = [cell["source"] for cell in cells]
    takes = ["parameters" in cell.get("metadata", {}).get("tags", []) for cell in cells]
    return digest(json.dumps([code, takes]) if cells else notebook, json.dumps(parameters, sort_keys=True),
                  _of_all(imports, imports.files(code)))


def code_key(imports: Imports, path: Path, data: Iterable[Path] = ()) -> str:
    """Return the hash of a benchmark: its file, the modules that it reaches, the lock, and files of data."""
    text = path.read_text("utf-8")
    return digest(text, _of_all(imports, [*imports.files([text]), *data]))


def _of_all(imports: Imports, files: list[Path]) -> str:
    lock = imports.root / "requirements.lock"
    files = [*files, lock] if lock.is_file() else files
    named = [part for file in files for part in (file.relative_to(imports.root).as_posix(), file)]
    return digest(platform.python_version(), version("torch"), *named)


def load_ipython_extension(shell) -> None:
    """Note every file of the checkout's data that is opened from now on, one path a line, in the file that ``OPENED`` names.

    Parameters
    ----------
    shell : IPython.core.interactiveshell.InteractiveShell
        Not used.
    """
    if note := os.environ.get(OPENED):
        sys.addaudithook(_Noting(Path.cwd(), Path(note)))


class _Noting:
    """An audit hook: Python tells it of each file before it is opened, and of each folder before it is listed."""

    def __init__(self, root: Path, note: Path):
        self.folders = tuple(f"{root / name}{os.sep}" for name in DATA)
        self.stream = note.open("a", encoding="utf-8", buffering=1)
        self.seen: set[str] = set()

    def __call__(self, event: str, arguments: tuple) -> None:
        if event not in ("open", "os.listdir", "os.scandir") or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if path in self.seen or not path.startswith(self.folders):
            return
        if event == "open":
            counts = not path.endswith((".py", ".pyc")) and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        else:
            counts = path.startswith(self.folders[0])  # Python itself lists the folders that it imports from
        if counts:
            self.seen.add(path)
            self.stream.write(f"{path}\n")


def file_states(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """Return a hash of each file (its content) and folder (the names in it), or ``"missing"``, by path below the root."""
    return {name: _state(root / name) for name in sorted({os.path.relpath(path, root) for path in paths})}


def _state(path: Path) -> str:
    if path.is_dir():
        return digest(*sorted(entry.name for entry in path.iterdir() if entry.name != "__pycache__"))
    return digest(path) if path.is_file() else "missing"
