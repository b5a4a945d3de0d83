"""Figures of a code base's form: sizes of functions, types, docstrings, words, and how much of the tests is tests.

    python tools/figures.py PACKAGE_FOLDER TESTS_FOLDER

Needs the standard library only and reads source text only, so that any project's checkout can be compared.
"""

from __future__ import annotations

import argparse
import ast
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

VAGUE_WORDS = frozenset({"each", "found", "known", "place", "said", "wanted"})
WEAK_OPENINGS = ("What ", "Of the ")
# Every package may have these: they are entry points, not words.
ENTRY_POINTS = frozenset({"__init__.py", "__main__.py"})
SUPPORT_FOLDERS = frozenset({"fixtures", "helpers", "support"})
NESTING_STATEMENTS = (
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.If,
    ast.With,
    ast.AsyncWith,
    ast.Try,
    ast.TryStar,
    ast.Match,
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One source file, read and parsed."""

    path: Path
    source: str
    tree: ast.Module

    @property
    def lines(self) -> list[str]:
        """Lines of the source."""
        return self.source.splitlines()


@dataclass(frozen=True, slots=True, kw_only=True)
class LineCount:
    """Number of lines in test files, and of those that stand in test functions."""

    inside: int
    total: int

    @property
    def share(self) -> float:
        """Share of the lines that stand in test functions."""
        return self.inside / self.total if self.total else 0.0


def read_modules(folder: Path) -> list[Module]:
    """Return the Python files below a folder; those that do not parse are left out."""
    modules = []
    for path in sorted(folder.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        try:
            tree = ast.parse(source)
        except SyntaxError:
            continue
        modules.append(Module(path=path, source=source, tree=tree))
    return modules


def functions_of(module: Module) -> list[Function]:
    """Return all functions and methods of a module, nested ones too."""
    return [node for node in ast.walk(module.tree) if isinstance(node, Function)]


def lines_of_function(function: Function) -> int:
    """Return the length of a function, without its decorators."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def nesting_of_function(function: Function) -> int:
    """Return how many blocks the deepest statement of a function stands in; nested functions count for themselves."""

    def deepest(node: ast.AST, depth: int) -> int:
        depths = [depth]
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function | ast.ClassDef | ast.Lambda):
                continue
            is_elif = isinstance(node, ast.If) and child in node.orelse and isinstance(child, ast.If)
            deeper = isinstance(child, NESTING_STATEMENTS) and not is_elif
            depths.append(deepest(child, depth + deeper))
        return max(depths)

    return deepest(function, 0)


def is_typed(function: Function) -> bool:
    """Tell whether a function's result and each of its arguments are annotated; self and cls need no type."""
    arguments = function.args
    listed = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    named = [argument for argument in listed if argument is not None]
    if named and named[0].arg in {"self", "cls", "mcs"}:
        named = named[1:]
    result = function.returns is not None or function.name == "__init__"
    return result and all(argument.annotation is not None for argument in named)


def public_definitions(module: Module) -> Iterator[ast.ClassDef | Function]:
    """Yield the classes, functions and methods that a reader may use: neither they nor their class begin with `_`."""

    def walk(body: Iterable[ast.stmt]) -> Iterator[ast.ClassDef | Function]:
        for node in body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith(
                "_"
            ):
                yield node
                if isinstance(node, ast.ClassDef):
                    yield from walk(node.body)

    yield from walk(module.tree.body)


def docstrings_of(module: Module) -> Iterator[tuple[int, str]]:
    """Yield line and text of each docstring: of modules, classes, functions, and attributes (after an assignment)."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Module | ast.ClassDef | Function):
            for index, statement in enumerate(node.body):
                follows_attribute = index > 0 and isinstance(node.body[index - 1], (ast.Assign, ast.AnnAssign))
                if (index == 0 or follows_attribute) and isinstance(statement, ast.Expr):
                    value = statement.value
                    if isinstance(value, ast.Constant) and isinstance(value.value, str):
                        yield statement.lineno, value.value.strip()


def vague_names_of(module: Module) -> Iterator[tuple[int, str]]:
    """Yield line and name of each variable that is assigned, and each argument, with one of the six vague words."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in VAGUE_WORDS:
            yield node.lineno, node.id
        elif isinstance(node, ast.arg) and node.arg in VAGUE_WORDS:
            yield node.lineno, node.arg


def same_names(modules: Sequence[Module]) -> dict[str, list[Path]]:
    """Return the file names that several modules have, with these modules."""
    paths = defaultdict(list)
    for module in modules:
        if module.path.name not in ENTRY_POINTS:
            paths[module.path.name].append(module.path)
    return {name: shared for name, shared in paths.items() if len(shared) > 1}


def is_private(name: str) -> bool:
    """Tell whether a name begins with one underscore."""
    return name.startswith("_") and not name.startswith("__") and name != "_"


def own_names(module: Module) -> set[str]:
    """Return the names that a module defines: functions, classes, variables, attributes of self and cls."""
    names = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            names.add(node.attr)
    return names


def imported_names(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Return the names that an import statement brings, with those of the modules that it names."""
    if isinstance(node, ast.ImportFrom):
        return [*(node.module or "").split("."), *(alias.name for alias in node.names)]
    return [part for alias in node.names for part in alias.name.split(".")]


def foreign_private_names(module: Module) -> list[tuple[int, str]]:
    """
    Return line and name of each private name that a module takes from another one.

    That is an attribute that the module itself never defines, be it of another object or inherited, one that is reached
    through another object (`self.meter._step`), and a private name in an import.
    """
    own = own_names(module)
    names = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if node.attr not in own or not isinstance(node.value, ast.Name):
                names.append((node.lineno, node.attr))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names += [(node.lineno, name) for name in imported_names(node) if is_private(name)]
    return names


def libraries_of(module: Module) -> set[str]:
    """Return the top-level packages that a module imports."""
    names: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


def is_test(function: Function) -> bool:
    """Tell whether pytest would run a function."""
    return function.name.startswith("test")


def count_test_lines(modules: Iterable[Module], *, code_only: bool) -> LineCount:
    """Count the lines that stand in test functions, decorators included; code is neither empty nor a comment."""
    inside = total = 0
    for module in modules:
        counted = {
            number
            for number, line in enumerate(module.lines, start=1)
            if not code_only or (line.strip() and not line.strip().startswith("#"))
        }
        in_tests: set[int] = set()
        for function in filter(is_test, functions_of(module)):
            first = min([function.lineno, *(decorator.lineno for decorator in function.decorator_list)])
            in_tests.update(range(first, (function.end_lineno or first) + 1))
        inside += len(counted & in_tests)
        total += len(counted)
    return LineCount(inside=inside, total=total)


def names_of_tests(modules: Iterable[Module]) -> list[str]:
    """Return the names of the test functions."""
    return [function.name for module in modules for function in filter(is_test, functions_of(module))]


def words_of(test_name: str) -> int:
    """Return the number of words of a test's name, `test` aside."""
    return len(test_name.removeprefix("test").strip("_").split("_"))


def figures_of_package(modules: Sequence[Module]) -> Iterator[tuple[str, str]]:
    """Yield label and value of each figure of a package."""
    functions = [function for module in modules for function in functions_of(module)]
    lengths = [lines_of_function(function) for function in functions]
    nesting = [nesting_of_function(function) for function in functions]
    public = [node for module in modules for node in public_definitions(module)]
    docstrings = [text for module in modules for _, text in docstrings_of(module)]
    vague = Counter(name for module in modules for _, name in vague_names_of(module))
    shared = same_names(modules)
    named = sum(module.path.name not in ENTRY_POINTS for module in modules)
    long_modules = [module for module in modules if len(module.lines) > 400]
    yield "modules", str(len(modules))
    yield "module's lines, median", f"{statistics.median(len(module.lines) for module in modules):g}"
    yield "modules over 400 lines", str(len(long_modules))
    yield "functions", str(len(functions))
    yield "function's lines, median", f"{statistics.median(lengths):g}"
    yield "function's lines, 90th percentile", f"{statistics.quantiles(lengths, n=10)[-1]:g}"
    yield "function's nesting, mean", f"{statistics.mean(nesting):.2f}"
    yield "functions nested deeper than 2", share(sum(depth > 2 for depth in nesting), len(nesting))
    yield "functions wholly typed", share(sum(map(is_typed, functions)), len(functions))
    yield "public names with a docstring", share(sum(bool(ast.get_docstring(node)) for node in public), len(public))
    yield "files that share their name", share(sum(map(len, shared.values())), named)
    yield "private names of other modules", str(sum(len(foreign_private_names(module)) for module in modules))
    yield "vague names assigned", f"{vague.total()} {dict(vague.most_common())}"
    for opening in WEAK_OPENINGS:
        weak = sum(text.startswith(opening) for text in docstrings)
        yield f"docstrings that begin with {opening.strip()!r}", share(weak, len(docstrings))


def figures_of_tests(modules: Sequence[Module], folder: Path) -> Iterator[tuple[str, str]]:
    """Yield label and value of each figure of a folder of tests."""
    tests = [module for module in modules if not SUPPORT_FOLDERS & set(module.path.relative_to(folder).parts)]
    for files, chosen in (("all test files", modules), ("test files without support folders", tests)):
        for lines, code_only in (("lines", False), ("code lines", True)):
            counted = count_test_lines(chosen, code_only=code_only)
            yield f"{lines} in test functions, {files}", share(counted.inside, counted.total)
    names = names_of_tests(modules)
    yield "tests", str(len(names))
    if names:
        words = sorted(map(words_of, names))
        yield "words of a test's name, median", f"{statistics.median(words):g}"
        yield "test names of more than 7 words", share(sum(count > 7 for count in words), len(words))
        for name in sorted(names, key=words_of, reverse=True)[:5]:
            yield f"a long name, {words_of(name)} words", name


def share(part: int, whole: int) -> str:
    """Return a share as a percentage, with both numbers."""
    return f"{part / whole if whole else 0:.1%} ({part} of {whole})"


def main() -> None:
    """Print the figures of a package and of its tests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="folder of the package")
    parser.add_argument("tests", type=Path, nargs="?", help="folder of its tests")
    arguments = parser.parse_args()
    figures = list(figures_of_package(read_modules(arguments.package)))
    if arguments.tests:
        figures += figures_of_tests(read_modules(arguments.tests), arguments.tests)
    for label, value in figures:
        print(f"{label:55} {value}")


if __name__ == "__main__":
    main()
