"""The source contains nothing that runs code it reads; processes are started only for the reasons given here."""

import ast
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

CODE_LOADERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
EVALUATORS = {"eval", "exec", "compile", "__import__"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
OF_PICKLE = {"UnpicklingError"}  # raised by torch.load
STARTS_PROCESSES = {
    "benchmarks/demo.py": "measures the demo from its start",
    "benchmarks/images.py": "measures reading in a fresh process",
    "benchmarks/inference.py": "measures loading and predict from their start",
    "benchmarks/reading.py": "measures reading a source in a fresh process",
    "benchmarks/startup.py": "measures verbs from their start",
    "benchmarks/time_to_accuracy.py": "measures training from its start",
    "callbacks/graceful_stop.py": "makes Slurm requeue the job",
    "exporting/web_runtime.py": "downloads ONNX Runtime with npm and checks its digest",
    "records/run_record.py": "asks git for the commit",
    "sweeps/launchers.py": "asks Slurm for the queue",
}
SOURCES = {path.relative_to(ROOT / "emotion").as_posix(): path for path in sorted((ROOT / "emotion").rglob("*.py"))}


def dotted_name(node: ast.expr) -> str:
    """Return the dotted name of a node; empty if it has none."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted_name(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def has_argument(call: ast.Call, name: str, value: bool) -> bool:
    """Return whether a call has the literal argument `name=value`."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    return isinstance(given.get(name), ast.Constant) and ast.literal_eval(given[name]) is value


def imported(node: ast.AST) -> list[str]:
    """Return the modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def violations(tree: ast.AST) -> Iterator[str]:
    """Yield the forbidden constructs of a source."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in CODE_LOADERS | {"torch.serialization"}:
            yield f"from {node.module} import"
        if CODE_LOADERS - {"pickle"} & set(imported(node)):
            yield f"import {imported(node)}"
        if isinstance(node, ast.Attribute) and dotted_name(node.value) == "pickle" and node.attr not in OF_PICKLE:
            yield dotted_name(node)
        if isinstance(node, ast.Attribute) and dotted_name(node) in SHELLS:
            yield dotted_name(node)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in EVALUATORS:
            yield node.id
        if isinstance(node, ast.Call):
            yield from call_violations(node)


def call_violations(call: ast.Call) -> Iterator[str]:
    """Yield what is forbidden about a call."""
    name = dotted_name(call.func)
    if name.endswith("torch.load") and not has_argument(call, "weights_only", True):
        yield "torch.load without weights_only=True"
    if name in ("np.load", "numpy.load", "np.lib.format.read_array") and not has_argument(call, "allow_pickle", False):
        yield f"{name} without allow_pickle=False"
    if name.startswith("yaml.") and "load" in name and name != "yaml.safe_load":
        yield name
    if any(keyword.arg == "shell" for keyword in call.keywords) and not has_argument(call, "shell", False):
        yield f"{name} with a shell"


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.AST]:
    return {source: ast.parse(path.read_text()) for source, path in SOURCES.items()}


def test_no_source_runs_code_that_it_reads(trees: dict[str, ast.AST]) -> None:
    assert len(trees) > 100
    assert [f"{source}: {rule}" for source, tree in trees.items() for rule in violations(tree)] == []


def test_processes_are_started_only_for_known_reasons(trees: dict[str, ast.AST]) -> None:
    starting = ("subprocess", "multiprocessing", "pty")
    modules = [
        source
        for source, tree in trees.items()
        if any(name.partition(".")[0] in starting for node in ast.walk(tree) for name in imported(node))
    ]
    assert modules == sorted(STARTS_PROCESSES)


VIOLATIONS = {
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


@pytest.mark.parametrize("source", VIOLATIONS)
def test_violations_are_detected(source: str) -> None:
    assert list(violations(ast.parse(source))) == [VIOLATIONS[source]]
