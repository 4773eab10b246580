"""How large the house is: lines of code, floors, files, the wheel, how long imports take, and the code that readers see."""

import ast
import io
import json
import subprocess
import sys
import tokenize
from pathlib import Path
from tempfile import TemporaryDirectory

from crossexplain.files import embedded_folder
from crossexplain_book.bench import row_of

ROOT = embedded_folder().parent
HELPER = ROOT / "src" / "crossexplain"
FOLDED = {"hide-input", "hide-cell", "remove-input", "publish"}  # tags of cells whose code a page does not show at once
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
DOCUMENTED = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef


def code_lines(path: Path) -> int:
    """Return how many lines of a Python file hold code: no blank lines, no comments, no docstrings."""
    text = path.read_text("utf-8")
    lines = {line for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type not in LAYOUT
             for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


def room_of(path: Path) -> str:
    """Return the room that a module stands in: a package of the helper, a file at its top, or the workshop."""
    package, part = path.relative_to(ROOT / "src").with_suffix("").parts[:2]
    return part if package == "crossexplain" else package


def imported_rooms(path: Path, rooms: set[str]) -> set[str]:
    """Return the other rooms that a module imports from."""
    names = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    parts = [name.split(".") for name in names]
    found = {part[1] if part[0] == "crossexplain" and len(part) > 1 else part[0] for part in parts}
    return found & rooms - {room_of(path)}


def floors() -> dict[str, int]:
    """Return the floor of each room: 1 where it imports from no other room, else one above the highest that it imports from."""
    files = [path for path in sorted((ROOT / "src").rglob("*.py")) if not path.name.startswith("__")]
    rooms = {room_of(path) for path in files}
    below = {room: set().union(*(imported_rooms(path, rooms) for path in files if room_of(path) == room)) for room in rooms}

    def floor(room: str) -> int:
        return 1 + max(map(floor, below[room]), default=0)

    return {room: floor(room) for room in sorted(rooms)}


def seconds_of(statement: str) -> float:
    """Return how long a statement takes in a new process, by its own clock."""
    timed = f"import time; begin = time.perf_counter(); {statement}; print(time.perf_counter() - begin)"
    return float(subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True).stdout)


def wheel_bytes() -> int:
    """Return the size of the wheel that the project builds."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
        subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        return next(Path(folder).glob("*.whl")).stat().st_size


def visible_lines() -> list[int]:
    """Return the length of every line of code that a page shows without a click."""
    notebooks = [json.loads(path.read_text("utf-8")) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    visible = [cell for notebook in notebooks for cell in notebook["cells"]
               if cell["cell_type"] == "code" and not FOLDED & set(cell["metadata"].get("tags", []))]
    return [len(line) for cell in visible for line in "".join(cell["source"]).splitlines()]


def rows(repeats: int = 5) -> list[dict]:
    """Measure the sizes of the helper, the imports, and the widest line that a reader sees."""
    files = sorted(HELPER.rglob("*.py"))
    largest = max(len(path.read_text("utf-8").splitlines()) for path in files)
    seconds_of("from crossexplain import rounds")  # from now on the files are in the system's memory
    door = [seconds_of("import crossexplain") for _ in range(repeats)]
    ratio = [seconds_of("from crossexplain import rounds") / seconds_of("import torch") for _ in range(repeats)]
    return [
        row_of("house.helper.code_lines", [sum(map(code_lines, files))], "lines without docstrings, comments and blank ones"),
        row_of("house.floors", [max(floors().values())], "floors, the workshop on top"),
        row_of("house.largest_file", [largest], "lines of the helper's longest file"),
        row_of("house.wheel_bytes", [wheel_bytes()], "bytes of the wheel, with the checkpoints that travel"),
        row_of("house.import_seconds", door, "s for import crossexplain"),
        row_of("house.rounds_import_over_torch", ratio, "time of `from crossexplain import rounds` over `import torch`"),
        row_of("house.visible_cells.longest_line", [max(visible_lines())], "columns"),
    ]


if __name__ == "__main__":
    for room, floor in sorted(floors().items(), key=lambda pair: -pair[1]):
        print(floor, room)
