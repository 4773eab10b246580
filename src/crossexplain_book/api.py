"""Pages that document both packages from their docstrings: an index, and one for each part."""

import ast
from pathlib import Path

from crossexplain_book.page import table


def api_pages(root: Path) -> dict[str, str]:
    """Return the pages by name, as Markdown.

    What stands at the top of a package (:class:`crossexplain.intervals.Interval`, :class:`crossexplain.checks.InputError`) is
    a part of its own.

    Parameters
    ----------
    root : Path
        Of the project.
    """
    pages, rows = {}, []
    source = root / "src"
    for package in sorted(folder for folder in source.iterdir() if (folder / "__init__.py").is_file()):
        inner = sorted(code.parent for code in package.glob("*/**/__init__.py"))
        for folder in [package, *inner]:
            name, purpose = folder.relative_to(source).as_posix().replace("/", "."), _first_line(_parsed(folder))
            pages[f"api/{name}.md"] = f"# `{name}`\n\n{purpose}\n{_door(source, name)}{_modules(folder, name)}"
            rows.append((f"[{name}]({name}.md)", purpose))
    pages["api/index.md"] = (f"# The package\n{_door(source, 'crossexplain')}\n## All parts\n\n"
                             f"{table(('part', 'what it is for'), rows)}\n")
    return pages


def _parsed(path: Path) -> ast.Module:
    """Return the code of a module, or of a package's ``__init__``."""
    return ast.parse((path / "__init__.py" if path.is_dir() else path).read_text("utf-8"))


def _first_line(code: ast.AST) -> str:
    return (ast.get_docstring(code) or "").partition("\n")[0]


def _assigned(code: ast.Module, name: str):
    """Return the constant that a module assigns to a name, or None."""
    values = [node.value for node in code.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name]
    try:
        return ast.literal_eval(values[0]) if values else None
    except ValueError:  # computed
        return None


def _imported(code: ast.Module) -> dict[str, tuple[str, str]]:
    """Return the module and the name there of everything that a module imports by name."""
    return {alias.asname or alias.name: (node.module, alias.name) for node in code.body
            if isinstance(node, ast.ImportFrom) and node.module for alias in node.names}


def _modules(folder: Path, name: str) -> str:
    """Return a section for each module of a package.

    What a module hands on from another one (in its ``__all__``) is documented where it is handed on, and there alone.
    """
    paths = {f"{name}.{path.stem}": path for path in sorted(folder.glob("[!_]*.py"))}
    if any(isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") for node in _parsed(folder).body):
        paths = {name: folder} | paths
    handed_on: dict[str, set[str]] = {}
    for path in paths.values():
        code = _parsed(path)
        imported = _imported(code)
        for public in set(_assigned(code, "__all__") or ()) & set(imported):
            home, original = imported[public]
            handed_on.setdefault(home, set()).add(original)
    text = ""
    for module in paths:
        elsewhere = ", ".join(sorted(handed_on.get(module, ())))
        text += (f"\n## `{module.rpartition('.')[2]}`\n\n```{{eval-rst}}\n.. automodule:: {module}\n"
                 "   :members:\n   :member-order: bysource\n"
                 + (f"   :exclude-members: {elsewhere}\n" if elsewhere else "") + "```\n")
    return text


def _door(source: Path, name: str) -> str:
    """Return the names that a package hands on from its modules, with what they are, as Markdown; empty where it has none."""
    homes = _assigned(_parsed(source / name.replace(".", "/")), "_HOME") or {}
    rows = [(f"{{py:obj}}`{public} <{home}.{public}>`", _first_line(_definition(source, home, public)))
            for public, home in homes.items()]
    return f"\n`from {name} import ...` gives what most people need:\n\n{table(('name', 'what it is'), rows)}\n" if rows else ""


def _definition(source: Path, module: str, name: str) -> ast.AST:
    """Return the class or function that a module has under a name, wherever it is defined."""
    folder = source / module.replace(".", "/")
    code = _parsed(folder if folder.is_dir() else folder.with_suffix(".py"))
    for node in reversed(code.body):  # overloads come before what they are of
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node
    return _definition(source, *_imported(code)[name])
