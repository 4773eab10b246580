"""Execute one notebook in a process of its own and report on standard output, one JSON object a line.

Called by :mod:`crossexplain_book.execute` as ``python -m crossexplain_book.worker NOTEBOOK OUTPUT PARAMETERS``.
Standard input is a pipe held open by the caller: when it closes the caller is gone, and so is the reason to go on.
"""

import json
import os
import sys
import threading
from pathlib import Path

from papermill import execute_notebook
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError


def say(event: str, **details) -> None:
    """Write one line of the protocol."""
    print(json.dumps({"event": event, **details}), flush=True)


class Reporting(NBClientEngine):
    """papermill's engine, which also reports the cell that it runs."""

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, **kwargs):
        """Run the notebook as papermill does, reporting each cell before it starts."""
        start, total = nb_man.cell_start, len(nb_man.nb.cells)

        def cell_start(cell, cell_index=None, **words):
            say("cell", index=cell_index + 1, total=total, id=cell.get("id", ""))
            return start(cell, cell_index=cell_index, **words)

        nb_man.cell_start = cell_start
        return super().execute_managed_notebook(nb_man, kernel_name, **kwargs)


def stop_with_the_caller() -> None:
    """End this process, and with it the kernel, as soon as the caller's end of standard input closes."""
    def wait() -> None:
        while os.read(0, 1):  # not through sys.stdin, whose lock this thread would hold when Python ends
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def complaint(notebook: str) -> str | None:
    """Return why a file is no notebook, in words that say what to do, or None."""
    try:
        content = json.loads(Path(notebook).read_text("utf-8"))
    except (OSError, ValueError) as error:
        reason = str(error)
    else:
        if isinstance(content, dict) and content.get("nbformat") == 4 and isinstance(content.get("cells"), list):
            return None
        reason = "it is JSON without a list of cells in format 4"
    return f"{Path(notebook).name} is no notebook ({reason}); take the file again from git, or from a copy."


def main(notebook: str, output: str, parameters: str) -> int:
    """Execute ``notebook`` into ``output``; return 0, or 1 after saying which cell failed."""
    stop_with_the_caller()
    if reason := complaint(notebook):
        say("failed", cell=None, source="", error=reason, traceback="")
        return 1
    papermill_engines.register("reporting", Reporting)
    try:
        execute_notebook(notebook, output, parameters=json.loads(parameters), engine_name="reporting",
                         progress_bar=False, kernel_name="python3", language="python", start_timeout=180,
                         extra_arguments=["--ext=crossexplain_book.freshness"])  # notes what the notebook opens
    except PapermillExecutionError as error:
        say("failed", cell=error.cell_index, source=error.source, error=f"{error.ename}: {error.evalue}",
            traceback="\n".join(error.traceback))
        return 1
    except Exception as error:  # noqa: BLE001 - a notebook that is no notebook, a kernel that died: said, not raised
        say("failed", cell=None, source="", error=f"{type(error).__name__}: {error}", traceback="")
        return 1
    say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
