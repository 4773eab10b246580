"""The promises that the project makes about its own files."""

import ast
import csv
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TEXT = {".py", ".ipynb", ".md", ".toml", ".yml", ".yaml", ".cff", ".bib", ".css", ".svg", ".csv", ".json", ".lock", ".txt", ""}
# Written in pieces, since this file is searched too.
INDEXES = ["pypi" + ".org", "python" + "hosted.org", "npm" + "js.org", "npm" + "js.com", "anaconda" + ".org"]
PLACES = re.compile(r"(?<![\w.:/])/(?:home|root|Users|work|mnt|tmp)/\w")
UPWARD = {"evaluation", "recipes", "runs", "crossexplain_book", "benchmarks"}
LAYERS = {  # part of the helper, or whole package -> what it must not import
    "checks": {"data", "models", "gradients", "coalitions"} | UPWARD,
    "intervals": {"data", "models", "gradients", "coalitions"} | UPWARD,
    "files": {"data", "models", "gradients", "coalitions"} | UPWARD,
    "data": {"models", "gradients", "coalitions"} | UPWARD,
    "models": {"data", "gradients", "coalitions"} | UPWARD,
    "recipes": {"gradients", "coalitions"} | UPWARD - {"recipes"},
    "gradients": {"data", "models", "coalitions", "adapters"} | UPWARD,
    "adapters": {"data", "models", "coalitions"} | UPWARD,
    "coalitions": {"data", "models"} | UPWARD,
    "evaluation": {"data", "models"} | UPWARD - {"evaluation"},
    "runs": {"crossexplain_book", "benchmarks"},
    "crossexplain_book": {"benchmarks"},
}
def tracked() -> list[Path]:
    """Return the text files of the project: those in git, or all where there is no git."""
    process = subprocess.run(["git", "ls-files", "-z", "--cached"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = process.stdout.split("\0") if process.returncode == 0 else []
    paths = [ROOT / name for name in names if name] or list((ROOT / "src").rglob("*"))
    return [path for path in paths if path.is_file() and path.suffix in TEXT]


def cells(notebook: Path, kind: str | None = None) -> list[dict]:
    """Return the cells of a notebook, their sources as one string."""
    found = json.loads(notebook.read_text("utf-8"))["cells"]
    return [{**cell, "source": "".join(cell["source"])} for cell in found if kind in (None, cell["cell_type"])]


def prose() -> dict[str, str]:
    """Return everything that a person reads, by file."""
    pages = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in sorted((ROOT / "book").rglob("*.md"))}
    return pages | {path.name: "\n".join(cell["source"] for cell in cells(path, "markdown")) for path in NOTEBOOKS}


def code() -> dict[str, str]:
    """Return all Python that the project runs, by file, without this one."""
    files = SOURCES + sorted((ROOT / "benchmarks").rglob("*.py")) + sorted((ROOT / "tests").rglob("*.py"))
    found = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in files if path != Path(__file__).resolve()}
    return found | {path.name: "\n".join(cell["source"] for cell in cells(path, "code")) for path in NOTEBOOKS}


def test_the_examples_in_the_readme_run_and_say_what_they_found(tmp_path):
    readme = (ROOT / "README.md").read_text("utf-8")
    examples = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert all(len(example.strip().splitlines()) <= 15 for example in examples)
    command = [sys.executable, "-W", "error::DeprecationWarning", "-c", "\n".join(examples)]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == 0, process.stderr
    verdict, *outputs = process.stdout.split("nothing found")
    assert verdict.startswith("both only"), process.stdout
    assert outputs and "torch.Size([200, 32])" in outputs[0], process.stdout  # four cells and a word


def test_no_file_names_a_place_on_somebodys_machine_or_a_package_index():
    found = []
    for path in tracked():
        for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), start=1):
            if any(index in line for index in INDEXES) or PLACES.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert not found, "\n".join(found)


def test_licences_and_citation_are_there_and_agree():
    licence = (ROOT / "LICENSE").read_text("utf-8")
    assert "BSD 3-Clause" in licence and "creativecommons.org/licenses/by/4.0" in licence
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == project["version"]
    # A citation names licences of the SPDX list only.
    assert set(citation["license"]) == {name for name in project["license"].split(" AND ") if "LicenseRef" not in name}
    assert citation["references"][0]["title"].startswith("Towards More Explainable Multimodal")


def test_every_card_names_its_terms():
    for path in sorted((ROOT / "book" / "cards").glob("*.md")):
        cards = path.read_text("utf-8").split("\n### ")[1:]
        assert cards, f"{path.name} has no cards"
        lost = [card.splitlines()[0] for card in cards if "\n| **terms** |" not in card]
        assert not lost, f"{path.name}: {', '.join(lost)}"


def test_every_work_that_is_cited_is_in_the_bibliography():
    keys = set(re.findall(r"^@\w+\{([^,\s]+),", (ROOT / "book" / "references.bib").read_text("utf-8"), re.MULTILINE))
    cited = {(file, key.strip()) for file, text in prose().items()
             for found in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text) for key in found.split(",")}
    assert cited
    assert not (unknown := sorted(pair for pair in cited if pair[1] not in keys)), unknown


def test_every_picture_that_is_linked_by_hand_says_what_it_shows():
    for file, text in prose().items():
        assert not re.search(r"!\[\s*\]\(", text), f"{file}: a picture without a text alternative"
        for block in re.findall(r"[`:]{3,}\{(?:figure|image)\}.*?\n(.*?)[`:]{3,}", text, re.DOTALL):
            alt = re.search(r"^:alt:\s*(.+)$", block, re.MULTILINE)
            assert alt and len(alt[1].split()) >= 6, f"{file}: {block[:60]!r} needs an :alt: that states the finding"


def test_every_term_that_is_marked_stands_in_the_glossary():
    glossary = (ROOT / "book" / "glossary.md").read_text("utf-8").split("```{glossary}\n")[1]
    listed = re.findall(r"^(\S.*)$", glossary.split("```")[0], re.MULTILINE)
    assert listed == sorted(listed, key=str.lower), "the glossary is in the order of the alphabet"
    terms = {term.lower() for line in listed for term in line.split(", ")} | {line.lower() for line in listed}
    for file, text in prose().items():
        for written in re.findall(r"\{term\}`([^`]+)`", text):
            term = re.sub(r".*<(.+)>$", r"\1", written).lower()
            assert term in terms, f"{file}: {written!r} is not in book/glossary.md"


@pytest.mark.parametrize(("pattern", "instead"), [
    (r"\b(?:filterwarnings|simplefilter)\(\s*[\"']ignore(?!:\w).*", "mend what warns, or expect it with pytest.warns"),
    (r"\bsys\.path\.(?:append|insert|extend)|\bsys\.path\s*[+=]", "install the package"),
    (r"^\s*[!%]\s*(?:pip|conda)\b", "list it in pyproject.toml"),
    (r"\bplt\.show\(", "return the figure"),
    (r"cmap\s*=\s*[\"'](?:jet|rainbow|hsv)", "use the colour maps of crossexplain_book.figures"),
    (r"\bnp\.random\.(?:seed|rand|randn|randint|choice|shuffle|permutation)\(", "pass a seed to a generator"),
])
def test_house_style(pattern, instead):
    found = [f"{file}:{text.count(chr(10), 0, match.start()) + 1}: {match[0].strip()}" for file, text in code().items()
             for match in re.finditer(pattern, text, re.MULTILINE)]
    assert not found, f"{instead}: " + "; ".join(found)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT / "src").as_posix())
def test_imports_run_one_way_and_what_is_public_is_documented(path):
    tree = ast.parse(path.read_text("utf-8"))
    package, part = path.relative_to(ROOT / "src").with_suffix("").parts[:2]
    part = part if package == "crossexplain" else package
    imported = {name for node in ast.walk(tree) for name in _imports(node)}
    if path.name != "__main__.py":  # which hands over to the command line, where that is installed
        assert not (wrong := imported & LAYERS.get(part, set())), f"{part} imports {', '.join(sorted(wrong))}"
    assert ast.get_docstring(tree), "the module says nothing about itself"
    bare = [node.name for node in _public(tree) if not ast.get_docstring(node)]
    assert not bare, f"without a docstring: {', '.join(bare)}"


def _imports(node: ast.AST) -> list[str]:
    """Return the parts of the helper, and the other packages of the project, that a statement imports."""
    names = []
    if isinstance(node, ast.ImportFrom) and node.module:
        names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    elif isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    return [name.split(".")[1] if name.startswith("crossexplain.") else name.split(".")[0] for name in names
            if name.split(".")[0] in ("crossexplain_book", "benchmarks") or name.startswith("crossexplain.")]


def _public(tree: ast.Module) -> list[ast.AST]:
    """Return public classes and functions, and the public methods of public classes."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    setters = {node for node in ast.walk(tree) if any(getattr(name, "attr", "") == "setter" or ast.unparse(name) == "overload"
                                                      for name in getattr(node, "decorator_list", []))}
    top = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_") and node not in setters]
    inner = [node for owner in top if isinstance(owner, ast.ClassDef) for node in owner.body
             if isinstance(node, kinds) and not node.name.startswith("_") and node not in setters
             and node.name not in (ast.get_docstring(owner) or "")]  # listed among the attributes of its class
    return top + inner


RESULTS = sorted((ROOT / "data" / "results").glob("*.csv"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_kept_table_has_as_many_entries_in_each_row_as_it_has_columns(path):
    with path.open(encoding="utf-8", newline="") as stream:
        head, *lines = csv.reader(stream, strict=True)
    assert head and len(set(head)) == len(head) and lines
    split = [f"line {number}: {len(line)}" for number, line in enumerate(lines, 2) if len(line) != len(head)]
    assert not split, f"{path.name} has {len(head)} columns, but {'; '.join(split)}; quote what holds a comma"


def test_no_two_test_files_have_one_name():
    """Pytest would read one of them and leave the other out with an error."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) > 60 and sorted(set(names)) == sorted(names)


def test_the_list_of_kept_tables_is_that_of_the_folder():
    text = (ROOT / "data" / "README.md").read_text("utf-8").split("## Results")[1].split("\n## ")[0]
    listed = re.findall(r"^\| `(\w+\.csv)` \|", text, re.MULTILINE)
    assert sorted(listed) == [path.name for path in RESULTS]
    commands = set(re.findall(r"`python -m crossexplain bench ([a-z_]+)`", text))
    missing = commands - {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert commands and not missing, f"no such benchmark: {', '.join(sorted(missing))}"


@pytest.mark.parametrize("page", ["book/house.md", "CONTRIBUTING.md"])
def test_the_table_of_changes_names_files_that_exist(page):
    table = (ROOT / page).read_text("utf-8").split("| you want to change ... |")[1].split("\n\n")[0]
    paths = re.findall(r"`((?:crossexplain|crossexplain_book|benchmarks)/[^`]*)`", table)
    assert len(table.strip().splitlines()) == 15 and len(paths) >= 20  # rest of the head, rule, thirteen rows
    missing = [path for path in paths if not ((ROOT / "src" / path).exists() or (ROOT / path).exists())]
    assert not missing, f"{page} names {', '.join(missing)}, which does not exist"
