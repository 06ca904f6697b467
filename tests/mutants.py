"""Mutation test: plant one fault at a time in a module, and see whether the module's tests notice it.

`make test-mutants` samples faults of every module of `TESTS` and prints those that survive. mutmut and cosmic-ray are
not used: they start Python anew for each fault or rewrite the package, mutate messages as well, and cannot sample.
"""

import argparse
import ast
import importlib.util
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType

import pytest

Fault = tuple[int, str, Callable[[], None]]  # line, description, what plants it in the tree

TESTS = {
    "metrics.calibration": "metrics/test_calibration.py",
    "metrics.classification": "metrics/test_classification.py",
    "metrics.selective": "metrics/test_selective.py evaluation/test_score.py",
    "metrics.statistics": "metrics/test_statistics.py",
    "optim.losses": "optim/test_losses.py",
    "optim.parameter_groups": "optim/test_parameter_groups.py",
    "optim.schedules": "optim/test_schedules.py",
    "data.splits": "data/test_splits.py promises/test_properties.py",
    "data.transforms.augment": "data/transforms/test_augment.py",
    "data.transforms.corruptions": "data/transforms/test_corruptions.py",
    "data.transforms.preprocess": "data/transforms/test_preprocess.py",
    "data.transforms.tta": "data/transforms/test_tta.py",
    "models.blocks": "models/test_blocks.py models/test_models.py::test_the_smallest_supported_input_is_named",
    "models.v4_attention": "models/test_models.py::test_the_class_alone_is_the_published_network",
    "inference.blazeface": "inference/test_blazeface.py",
    "inference.detectors": "inference/test_detectors.py",
    "inference.tracking": "inference/test_tracking.py",
    "evaluation.robustness": "evaluation/test_robustness.py",
    "evaluation.score": "evaluation/test_score.py",
    "evaluation.slices": "evaluation/test_slices.py",
    "data.readers.fer2013": "data/readers/test_fer2013.py data/test_prepare.py",
    "data.readers.image_folder": "data/readers/test_image_folder.py data/test_prepare.py",
    "data.readers.images": "data/readers/test_images.py data/readers/test_image_folder.py",
    "data.readers.path_list": "data/readers/test_path_list.py",
    "data.readers.concat": "data/readers/test_concat.py",
    "data.readers.ferplus": "data/readers/test_ferplus.py",
    "callbacks.ema": "callbacks/test_ema.py",
    "callbacks.staged_unfreezing": "callbacks/test_staged_unfreezing.py",
}
"""Modules of `emotion`, and the files of tests/ that should detect their faults."""

OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.And: ast.Or,
    ast.Or: ast.And, ast.USub: ast.UAdd,
}  # fmt: skip
MESSAGES = ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom
WITHOUT_EFFECT = ("device", "strict", "inplace", "persistent", "memory_format")
"""Keywords that change no result on a CPU."""
PAIRS = "min max, amin amax, argmin argmax, floor ceil, sin cos, any all, height width, top left, bottom right, x y"
NAMES = {a: b for pair in PAIRS.split(", ") for a, b in (pair.split(), pair.split()[::-1])}


def faults(node: ast.AST) -> Iterator[Fault]:
    """Yield every fault that can be planted below a node; messages, annotations and imports have none."""
    for field, child in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for index, part in enumerate(child if isinstance(child, list) else [child]):
            if not isinstance(part, ast.AST) or isinstance(part, MESSAGES):
                continue
            if isinstance(part, ast.keyword) and part.arg in WITHOUT_EFFECT:
                continue
            if isinstance(child, list) and _can_go(node, field, part):
                yield part.lineno, "drop", lambda c=child, i=index, f=field: _drop(c, i, f)  # type: ignore[misc]
            yield from _faults_of(part)
            yield from faults(part)


def _can_go(node: ast.AST, field: str, part: ast.AST) -> bool:
    if isinstance(part, ast.Expr):
        return not isinstance(part.value, ast.Constant)  # a docstring
    if isinstance(part, ast.Assign):
        return not isinstance(part.targets[0], ast.Name | ast.Tuple)
    return isinstance(part, ast.AugAssign) or (field == "keywords" and isinstance(node, ast.Call)) or field == "ifs"


def _drop(parts: list[ast.AST], index: int, field: str) -> None:
    parts[index : index + 1] = [] if field in ("keywords", "ifs") else [ast.Pass()]


def _faults_of(node: ast.AST) -> Iterator[Fault]:
    line = getattr(node, "lineno", 0)
    if isinstance(node, ast.Compare):
        yield line, "other comparison", lambda: node.ops.__setitem__(0, OPERATORS[type(node.ops[0])]())
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign | ast.UnaryOp):
        if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant):
            return  # an axis counted from the end
        if new := OPERATORS.get(type(node.op)):
            yield line, "other operator", lambda: setattr(node, "op", new())
        elif isinstance(node, ast.UnaryOp):
            yield line, "no negation", lambda: setattr(node, "operand", ast.UnaryOp(node.op, node.operand))
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        value = node.value
        other = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else value * 1.2 or 0.2
        yield line, f"{other} for {value}", lambda: setattr(node, "value", other)
    elif isinstance(node, ast.If | ast.IfExp) and "TYPE_CHECKING" not in ast.dump(node.test):
        yield line, "opposite condition", lambda: setattr(node, "test", ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Name | ast.Attribute):
        key = "id" if isinstance(node, ast.Name) else "attr"
        if isinstance(node.ctx, ast.Load) and (name := NAMES.get(getattr(node, key))):
            yield line, f"{name} for {getattr(node, key)}", lambda: setattr(node, key, name)
    elif isinstance(node, ast.Call) and len(node.args) > 1 and getattr(node.func, "id", "") not in NAMES:
        yield line, "first arguments swapped", lambda: node.args.insert(0, node.args.pop(1))


IMPORTED = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"


class Planted(SourceFileLoader):
    """Finds and loads one module from other code than its file's."""

    def __init__(self, module: str, path: Path, code: CodeType) -> None:
        super().__init__(module, str(path))
        self.code = code

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, fullname: str) -> CodeType:
        return self.code


def run_tests(module: str, path: Path, code: CodeType, tests: list[str], limit: float) -> str:
    """Run tests with other code for a module, in a child process: return "survived", "noticed" or "time"."""
    process = multiprocessing.get_context("fork").Process(target=_run_tests, args=(module, path, code, tests))
    process.start()
    process.join(limit)
    if process.exitcode is None:
        process.kill()
        process.join()
        return "time"
    return "survived" if process.exitcode == 0 else "noticed"


def _run_tests(module: str, path: Path, code: CodeType, tests: list[str]) -> None:
    null = os.open(os.environ.get("MUTANTS_LOG", os.devnull), os.O_WRONLY | os.O_CREAT)
    os.dup2(null, 1), os.dup2(null, 2)
    sys.meta_path.insert(0, Planted(module, path, code))  # type: ignore[arg-type]
    os._exit(pytest.main(["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-W", IMPORTED, *tests]))


def preload() -> None:
    """Import what the tests import, then forget the package, so that each child only imports the package anew."""
    for name in ("emotion.train", "emotion.evaluate", "scipy.stats", "timm", "onnx", "tests.conftest"):
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.split(".")[0] == "emotion" or name.startswith("tests.c")]:
        del sys.modules[name]


def main() -> None:
    """Print a line for each module and each surviving fault, and the fraction of faults that were noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", help="modules of TESTS; all by default")
    parser.add_argument("--sample", type=int, default=8, help="faults of each module; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.environ.pop("EMOTION_DATA", None)
    preload()
    noticed = total = 0
    for module in arguments.modules or TESTS:
        path = Path("emotion", *module.split(".")).with_suffix(".py")
        path = path if path.is_file() else path.with_suffix("") / "__init__.py"
        text, tests = path.read_text(), [f"tests/{file}" for file in TESTS[module].split()]
        name, start = f"emotion.{module}", time.monotonic()
        assert run_tests(name, path, compile(text, path, "exec"), tests, 600) == "survived", f"{tests} fail as they are"
        limit, count = 20 + 5 * (time.monotonic() - start), len(list(faults(ast.parse(text))))
        chosen = sorted(random.Random(arguments.seed).sample(range(count), min(arguments.sample or count, count)))
        survived = []
        for index in chosen:
            tree = ast.parse(text)
            line, description, plant = list(faults(tree))[index]
            plant()
            code = compile(ast.fix_missing_locations(tree), path, "exec")
            if run_tests(name, path, code, tests, limit) == "survived":
                survived.append(f"{path}:{line}: {description}: {text.splitlines()[line - 1].strip()}")
        noticed, total = noticed + len(chosen) - len(survived), total + len(chosen)
        seconds = time.monotonic() - start
        print(f"{module}: {len(chosen) - len(survived)} of {len(chosen)} noticed, {count} possible, {seconds:.0f} s")
        print("".join(f"  {line}\n" for line in survived), end="", flush=True)
    print(f"{noticed} of {total} faults noticed: {noticed / total:.1%}")


if __name__ == "__main__":
    main()
