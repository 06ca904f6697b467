"""What the package's source does not contain, by its syntax tree; each exception is named, with its reason."""

import ast
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

RUNS_WHAT_IT_READS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
EVALUATES = {"eval", "exec", "compile", "__import__"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
OF_PICKLE = {"UnpicklingError"}  # what torch.load raises of a file that it will not load
STARTS_PROCESSES = {
    "benchmarks/demo.py": "measures the demo as people start it",
    "benchmarks/images.py": "measures reading in a process that has done nothing else",
    "benchmarks/preparing.py": "measures preparing in a process that has done nothing else",
    "benchmarks/sweeps.py": "measures trainings from their start",
    "callbacks/graceful_stop.py": "has Slurm queue the job again",
    "exporting/web_runtime.py": "has npm fetch ONNX Runtime, which is held against its digest",
    "records/run_record.py": "asks git which commit a run is of",
    "sweeps/launchers.py": "asks Slurm what is queued",
}
SOURCES = {path.relative_to(ROOT / "emotion").as_posix(): path for path in sorted((ROOT / "emotion").rglob("*.py"))}


def named(node: ast.expr) -> str:
    """torch.load of the node that it is; empty of what is no name."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{named(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def says(call: ast.Call, name: str, value: bool) -> bool:
    """Whether a call has `name=value`, in so many words."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    return isinstance(given.get(name), ast.Constant) and ast.literal_eval(given[name]) is value


def imported(node: ast.AST) -> list[str]:
    """Modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def broken(tree: ast.AST) -> Iterator[str]:
    """Rules that a source breaks."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in RUNS_WHAT_IT_READS | {"torch.serialization"}:
            yield f"from {node.module} import"
        if RUNS_WHAT_IT_READS - {"pickle"} & set(imported(node)):
            yield f"import {imported(node)}"
        if isinstance(node, ast.Attribute) and named(node.value) == "pickle" and node.attr not in OF_PICKLE:
            yield named(node)
        if isinstance(node, ast.Attribute) and named(node) in SHELLS:
            yield named(node)
        if isinstance(node, ast.Name) and node.id in EVALUATES:
            yield node.id
        if isinstance(node, ast.Call):
            yield from broken_by(node)


def broken_by(call: ast.Call) -> Iterator[str]:
    """Rules that a call breaks."""
    name = named(call.func)
    if name.endswith("torch.load") and not says(call, "weights_only", True):
        yield "torch.load without weights_only=True"
    if name in ("np.load", "numpy.load", "np.lib.format.read_array") and not says(call, "allow_pickle", False):
        yield f"{name} without allow_pickle=False"
    if name.startswith("yaml.") and "load" in name and name != "yaml.safe_load":
        yield name
    if any(keyword.arg == "shell" for keyword in call.keywords) and not says(call, "shell", False):
        yield f"{name} with a shell"


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.AST]:
    return {source: ast.parse(path.read_text()) for source, path in SOURCES.items()}


def test_no_source_runs_what_it_reads(trees: dict[str, ast.AST]) -> None:
    assert len(trees) > 100
    assert [f"{source}: {rule}" for source, tree in trees.items() for rule in broken(tree)] == []


def test_processes_are_started_where_there_is_a_reason(trees: dict[str, ast.AST]) -> None:
    starting = ("subprocess", "multiprocessing", "pty")
    found = [
        source
        for source, tree in trees.items()
        if any(name.partition(".")[0] in starting for node in ast.walk(tree) for name in imported(node))
    ]
    assert found == sorted(STARTS_PROCESSES)


BREAKING = {
    "import pickle\npickle.loads(b'')": "pickle.loads",
    "from pickle import loads": "from pickle import",
    "import dill": "import ['dill']",
    "torch.load(path)": "torch.load without weights_only=True",
    "torch.load(path, weights_only=False)": "torch.load without weights_only=True",
    "np.load(path, allow_pickle=True)": "np.load without allow_pickle=False",
    "eval(text)": "eval",
    "os.system(command)": "os.system",
    "subprocess.run(command, shell=True)": "subprocess.run with a shell",
    "yaml.unsafe_load(text)": "yaml.unsafe_load",
}


@pytest.mark.parametrize("source", BREAKING)
def test_what_breaks_a_rule_is_found(source: str) -> None:
    assert list(broken(ast.parse(source))) == [BREAKING[source]]
