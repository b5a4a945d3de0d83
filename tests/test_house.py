"""The form of the code: names of files and tests, lengths of modules, private names, words."""

from __future__ import annotations

import statistics
from collections import Counter
from pathlib import Path

import otel_train
from tools.environments import QUICK_TESTS, TWIN_TESTS
from tools.figures import (
    WEAK_OPENINGS,
    docstrings_of,
    foreign_private_names,
    libraries_of,
    names_of_tests,
    read_modules,
    same_names,
    vague_names_of,
    words_of,
)

ROOT = Path(__file__).parents[1]
PACKAGE = Path(otel_train.__file__).parent
MODULES = read_modules(PACKAGE)


def test_modules_stay_short() -> None:
    """A module of more than 400 lines has a second job."""
    assert {str(module.path): len(module.lines) for module in MODULES if len(module.lines) > 400} == {}


def test_c_has_form_of_python() -> None:
    """C has at most 120 columns too, no tabs, and nothing at a line's end."""
    lines = {
        f"{path.name}:{number}": line
        for path in (PACKAGE / "native").glob("*.[ch]")
        for number, line in enumerate(path.read_text().split("\n"), start=1)
    }
    assert [where for where, line in lines.items() if len(line) > 120 or "\t" in line or line != line.rstrip()] == []


def test_file_names_are_unique() -> None:
    """No two modules share a file's name: with one word for two things a reader opens the wrong one."""
    assert same_names(MODULES) == {}


def test_private_names_stay_inside() -> None:
    """A module uses the private names of no other; those of libraries are listed, with what they are needed for."""
    libraries = {
        "os": {"_exit": "ends a process whose threads hang"},
        "typing": {
            "_asdict": "public: the fields of a named tuple by name",
            "_replace": "public: the copy of a named tuple with other fields",
        },
        "torch": {
            "_utils": "holds the map that torch documents for collating a type of one's own",
            "_C": "modes, and Dynamo's callbacks",
            "_FrameAction": "has Dynamo skip a frame",
            "_FrameExecStrategy": "has Dynamo skip a frame",
            "_disable_current_modes": "runs our tensors' arithmetic outside of a user's modes",
            "_dynamo": "has Dynamo skip a frame",
            "_functorch": "tells whether vmap or grad is on",
            "_get_default_group": "the group of a job whose backend is lazy",
            "_get_default_store": "the store where ranks meet",
            "_get_process_group_name": "a key for the store that ranks share",
            "_len_torch_dispatch_stack": "tells whether a mode is on",
            "_len_torch_function_stack": "tells whether a mode is on",
            "_python_dispatch": "has _disable_current_modes",
            "_torchdynamo_disable": "marks a function as one that Dynamo skips",
            "_torchdynamo_disable_msg": "marks a function as one that Dynamo skips",
            "_world": "the groups that a process belongs to",
        },
        "transformers": {
            "_signature_columns": "the columns of a dataset that a Trainer keeps, where it removes the others",
        },
        "sys": {"_current_frames": "what other threads do; there is no public name"},
        "lightning": {
            "_computed": "a value of an epoch, which Lightning has computed over its batches",
            "_forked_name": "the key of a value that is logged for steps and epochs both",
            "_forward_cache": "a value of a step, as self.log has reduced it",
            "_logged_metrics": "values as loggers get them; the public property computes more of them",
            "_logger_connector": "has the values that loggers get",
            "_results": "the values that self.log was given",
        },
        "litdata": {
            "_batching_method": "the unit of a draw",
            "_datasets": "the sources of a mix",
            "_weights": "the weights of a mix",
        },
        "opentelemetry": {
            "_channel": "the exporter's connection, which we open with options of our own",
            "_client": "the exporter's connection",
            "_compress": "sends a request as the exporter would",
            "_headers": "sends a request as the exporter would",
            "_initialize_channel_and_stub": "opens the exporter's connection again",
            "_session": "the exporter's connection",
            "_transport": "the exporter's connection",
        },
        "wandb_workspaces": {"_to_model": "what is sent to the server, which it gives nobody without one"},
    }
    used = set()
    for module in MODULES:
        imported = libraries_of(module) | {"typing"}  # a named tuple comes from any module
        allowed = {name for library in imported & set(libraries) for name in libraries[library]}
        names = foreign_private_names(module)
        assert [(line, name) for line, name in names if name not in allowed] == [], module.path
        used |= {name for _, name in names}
    assert {name for names in libraries.values() for name in names} == used


def test_names_are_not_vague() -> None:
    """Variables and arguments have the field's words: index, key, value, count, missing, expected."""
    counts = Counter(name for module in MODULES for _, name in vague_names_of(module))
    assert counts.total() <= 20, counts


def test_docstrings_begin_with_verb() -> None:
    """A docstring begins with a verb or a noun, not with "What" or "Of the"."""
    docstrings = [(module.path.name, line, text) for module in MODULES for line, text in docstrings_of(module)]
    assert [(name, line) for name, line, text in docstrings if text.startswith(WEAK_OPENINGS)] == []


def test_test_names_are_short() -> None:
    """A test's name has about five words and at most seven: its docstring states the behaviour."""
    names = names_of_tests(read_modules(ROOT / "tests"))
    assert [name for name in names if words_of(name) > 7] == []
    assert statistics.median(map(words_of, names)) <= 5


def test_quick_tests_exist() -> None:
    """Each path that other environments run exists: pytest would refuse the whole list for one missing path."""
    assert [path for path in {*QUICK_TESTS, *TWIN_TESTS} if not (ROOT / path).exists()] == []
