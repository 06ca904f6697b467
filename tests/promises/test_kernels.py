"""Layers in bfloat16 are what they are in float32, and where they are not, or are slower, float32 is taken."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from emotion.checkpoints.load import LoadedCheckpoint
from emotion.config.compose import compose
from emotion.config.instantiate import instantiate
from emotion.evaluate import evaluate
from emotion.explain import explain
from emotion.io.digests import write_json
from emotion.models.fast_cnn import FastCNN
from emotion.models.timm_backbone import TimmBackbone
from emotion.records.run_record import read_record
from emotion.runtime import precision
from emotion.runtime.precision import PrecisionReport, compare_layer, trace_layers
from emotion.train import train
from emotion.training import setup
from emotion.training.distillation import Teacher
from tests.conftest import options
from tests.counted import Tally

Config = Callable[..., DictConfig]

CACHE = Path("cache")
FACES = (4, 1, 16, 16)
GOOD = PrecisionReport("conv2d", 0.003, "linear", 0.2, 0.1)


def network(model: str) -> tuple[nn.Module, Tensor]:
    """As its config has it but for the side of its faces, which is 64 at most, and four such faces."""
    cfg = compose("train", f"model={model}", "run_dir=x")
    settings: dict[str, object] = OmegaConf.to_container(cfg.model, resolve=True)  # type: ignore[assignment]
    settings.pop("weights")
    channels, size = cfg.input.channels, min(cfg.input.size, 64)
    torch.manual_seed(0)
    net: nn.Module = instantiate(settings, num_classes=7, in_channels=channels, input_size=size)
    faces = torch.randn(4, channels, size, size).contiguous(memory_format=torch.channels_last)
    return net.to(memory_format=torch.channels_last).train(), faces


@pytest.mark.hard
@pytest.mark.promise("kernels")
@pytest.mark.parametrize("model", options("model"))
def test_every_layer_in_bfloat16_is_what_it_is_in_float32(model: str, tally: Tally) -> None:
    net, faces = network(model)
    called: Counter[str] = Counter()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d | nn.LayerNorm):
            module.register_forward_hook(lambda module, *_: called.update([_kind(module)]))
    with tally(model):
        watched = trace_layers(net, faces)
        seen: Counter[str] = Counter()
        for layer in watched:
            seen[layer.name.split()[0]] += layer.calls
        assert called <= seen  # what no module calls, as attention's products, comes on top
        errors = {layer.name: compare_layer(layer).error for layer in watched}
        assert not {name: error for name, error in errors.items() if not error <= 2e-2}


def _kind(module: nn.Module) -> str:
    kinds = {nn.Conv2d: "conv2d", nn.Linear: "linear", nn.BatchNorm2d: "batch_norm", nn.LayerNorm: "layer_norm"}
    return next(name for kind, name in kinds.items() if isinstance(module, kind))


def test_layers_are_normalised_in_float32_on_a_processor_as_on_an_accelerator() -> None:
    """Whose gradients of scale and shift are 3 % off else, in bfloat16 added up over 4 x 16 x 16 places."""
    net = TimmBackbone(7, input_size=64, backbone="convnext_atto")
    found = {layer.name: compare_layer(layer).error for layer in trace_layers(net, torch.randn(4, 3, 64, 64))}
    assert max(error for name, error in found.items() if name.startswith("layer_norm")) < 1e-5


def small() -> nn.Module:
    torch.manual_seed(0)
    return FastCNN(7, input_size=16, widths=[4, 8, 8])


def found(net: nn.Module | None = None, faces: Sequence[int] = FACES) -> PrecisionReport:
    return precision.precision_report(net or small(), faces, torch.channels_last, "cpu", CACHE)


def kept() -> Path:
    """The one verdict in the cache."""
    (path,) = CACHE.glob("kernels/*.json")
    return path


class _WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, made: Tensor) -> Tensor:
        return made.clone()

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return 1.05 * gradient


WRONG: dict[str, Callable[[Tensor], Tensor]] = {
    "a factor": lambda made: 1.05 * made,
    "one number": lambda made: made.flatten().index_fill(0, torch.tensor(0), torch.inf).view_as(made),
    "not a number": lambda made: made * torch.nan,
    "nothing": lambda made: 0 * made,
    "the gradient alone": _WrongGradient.apply,
}


class Wrong(nn.Module):
    """A linear layer that is wrong in bfloat16 alone."""

    def __init__(self, wrong: Callable[[Tensor], Tensor], width: int = 256) -> None:
        super().__init__()
        self.weight, self.wrong = nn.Parameter(torch.ones(7, width)), wrong

    def forward(self, values: Tensor) -> Tensor:
        return self.linear(values, self.weight)

    def linear(self, values: Tensor, weight: Tensor) -> Tensor:
        if has_torch_function((values, weight)):
            return handle_torch_function(self.linear, (values, weight), values, weight)
        made = nn.functional.linear(values, weight)
        return self.wrong(made) if made.dtype is torch.bfloat16 else made


@pytest.mark.parametrize("wrong", WRONG)
def test_a_layer_that_is_wrong_in_bfloat16_is_named_once_and_float32_is_taken(
    wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    net = nn.Sequential(nn.Flatten(), Wrong(WRONG[wrong]), nn.Linear(7, 7))
    assert precision.choose_precision([found(net)], "trainer.precision") == "32-true"
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("warning: in bfloat16 linear 1 (16x256 and 7x256) is ")
    assert said[0].endswith("float32 is taken instead. trainer.precision=bf16-mixed insists.")


def test_layers_that_are_right_and_no_slower_are_computed_in_bfloat16(capsys: pytest.CaptureFixture[str]) -> None:
    net, state = small(), torch.get_rng_state()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert precision.compare_network(net, FACES, torch.channels_last, torch.device("cpu")).error < 1e-2
    assert torch.get_rng_state().equal(state)
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())
    assert precision.choose_precision([GOOD, GOOD], "precision") == "bf16-mixed"
    assert GOOD._replace(bfloat16=0.21).objection() is None  # a tenth is a machine's noise
    assert GOOD._replace(float32=1e-4, bfloat16=1e-3).objection() is None  # too short to matter
    assert capsys.readouterr() == ("", "")


def test_layers_that_are_slower_in_bfloat16_are_computed_in_float32(capsys: pytest.CaptureFixture[str]) -> None:
    slow = GOOD._replace(slowest="conv2d features.0", float32=0.1, bfloat16=0.4)
    assert precision.choose_precision([GOOD, slow, slow], "precision") == "32-true"
    assert capsys.readouterr().err == (
        "warning: the layers of a step take 400.0 ms in bfloat16, 100.0 ms in float32, and conv2d features.0 loses the "
        "most; float32 is taken instead. precision=bf16-mixed insists.\n"
    )


DAMAGE: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "empty": lambda path: path.write_text(""),
    "cut": lambda path: path.write_text(path.read_text()[:-20]),
    "no JSON": lambda path: path.write_bytes(b"\xff\x00"),
    "a digit": lambda path: path.write_text(path.read_text().replace('"error": 0.0', '"error": 9.0')),
    "another version's": lambda path: write_json(path, {"error": 0.5}),
    "not ours": lambda path: path.write_text(json.dumps(GOOD._replace(error=0.5)._asdict())),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_kept_verdict_that_is_damaged_is_found_anew(damage: str) -> None:
    found()
    DAMAGE[damage](kept())
    anew = found()
    assert anew.error < 1e-2
    assert found() == anew


def test_where_nothing_can_be_kept_it_is_looked_for_all_the_same() -> None:
    CACHE.write_text("a file in the folder's place")
    assert found().error < 1e-2


def test_another_network_and_other_faces_have_verdicts_of_their_own() -> None:
    found()
    found(faces=(4, 1, 24, 24))
    found(FastCNN(7, input_size=16, widths=[4, 8, 12]))
    precision.precision_report(small(), FACES, torch.contiguous_format, "cpu", CACHE)
    assert len(list(CACHE.glob("kernels/*.json"))) == 4


def test_who_asks_at_once_gets_one_answer() -> None:
    nets = [small() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        answers = set(pool.map(found, nets))
    assert len(answers) == 1  # to the last digit of its times


@pytest.fixture
def in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that takes bfloat16 for itself, as any can, if slowly: what is decided of it is another matter."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)


@pytest.mark.usefixtures("in_bf16")
def test_whoever_asks_a_trained_network_takes_what_its_layers_allow(
    small_config: Config, small_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def asked(verb: str, *overrides: str) -> str:
        """The precision in which a verb's scores are, if it tells them; it warns once where that is float32."""
        capsys.readouterr()
        cfg = compose(verb, f"checkpoint={run}", "accelerator=cpu", f"cache_dir={CACHE}", *overrides)
        found = evaluate(cfg) if verb == "evaluate" else next(iter(explain(cfg, Path(verb))["networks"].values()))
        warned = capsys.readouterr().err.count("float32 is taken instead. precision=bf16-mixed insists.")
        assert warned == (found["precision"] == "32-true" and "precision=32-true" not in overrides)
        return str(found["precision"])

    run = small_run(Path("run"), "trainer.max_epochs=1")
    for verb, few in (("evaluate", []), ("explain", ["faces=7", "faithfulness=null"])):
        asked(verb, *few)
        for verdict, expected in ((GOOD, "bf16-mixed"), (GOOD._replace(error=0.5), "32-true")):
            for path in CACHE.glob("kernels/*.json"):
                write_json(path, verdict._asdict())
            assert asked(verb, *few) == expected
            assert asked(verb, *few, "precision=bf16-mixed") == "bf16-mixed"
            assert asked(verb, *few, "precision=32-true") == "32-true"


@pytest.mark.usefixtures("in_bf16")
def test_a_teacher_that_is_wrong_in_bfloat16_teaches_in_float32(small_config: Config) -> None:
    settings = setup.resolve(small_config(f"cache_dir={CACHE}", "trainer.precision=auto"), Path("x"))
    student, elder = (setup.make_classifier(settings, setup.make_data(settings)[0]) for _ in range(2))
    elder.net = nn.Sequential(nn.Flatten(), Wrong(WRONG["a factor"], 48 * 48))
    student.set_teacher(Teacher([LoadedCheckpoint(Path(), elder, {}, "", 0)]))
    setup.decide_precision(student, settings)
    assert settings["trainer"]["precision"] == "32-true"


@pytest.mark.hard
@pytest.mark.promise("kernels")
@pytest.mark.usefixtures("in_bf16")
def test_a_run_takes_what_its_layers_allow_and_goes_on_in_it(
    small_config: Config, tally: Tally, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, *overrides: str) -> tuple[str, int]:
        """The precision of a run, and how often it was warned."""
        capsys.readouterr()
        train(small_config("trainer.max_epochs=1", *overrides), Path(name))
        record = read_record(Path(name)) or {}
        assert record["machine"]["precision"] == record["config"]["trainer"]["precision"]
        return record["machine"]["precision"], capsys.readouterr().err.count("warning: ")

    on = "trainer.max_epochs=2"
    run("first")
    write_json(kept(), GOOD._asdict())
    with tally("right"):
        assert run("right") == ("bf16-mixed", 0)
    write_json(kept(), GOOD._replace(bfloat16=0.3)._asdict())
    with tally("slower"):
        assert run("slower") == ("32-true", 1)
    write_json(kept(), GOOD._replace(error=0.5)._asdict())
    with tally("wrong"):
        assert run("wrong") == ("32-true", 1)
    with tally("insisted"):
        assert run("insisted", "trainer.precision=bf16-mixed") == ("bf16-mixed", 0)
    with tally("right, resumed where it is wrong"):
        assert run("right", "resume=right", on) == ("bf16-mixed", 0)
    write_json(kept(), GOOD._asdict())
    with tally("wrong, resumed where it is right"):
        assert run("wrong", "resume=wrong", on) == ("32-true", 0)
