"""Layers in bfloat16 match float32; float32 is used for networks where they do not, or are slower."""

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
from emotion.io.atomic import write_json
from emotion.models.fast_cnn import FastCNN
from emotion.models.timm_backbone import TimmBackbone
from emotion.runtime import precision
from emotion.runtime.precision import PrecisionReport, compare_layer, trace_layers
from emotion.train import train
from emotion.training import setup
from emotion.training.distillation import Teacher
from tests.conftest import options, record_of
from tests.counted import Tally

Config = Callable[..., DictConfig]

CACHE = Path("cache")
FACES = (4, 1, 16, 16)
GOOD = PrecisionReport("conv2d", 0.003, "linear", 0.2, 0.1)


def network(model: str) -> tuple[nn.Module, Tensor]:
    """Return the network of a config for faces of at most 64 pixels, and four such faces."""
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
def test_every_layer_in_bfloat16_matches_float32(model: str, tally: Tally) -> None:
    net, faces = network(model)
    called: Counter[str] = Counter()
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d | nn.LayerNorm):
            module.register_forward_hook(lambda module, *_: called.update([_kind(module)]))
    with tally(model):
        layers = trace_layers(net, faces)
        traced: Counter[str] = Counter()
        for layer in layers:
            traced[layer.name.split()[0]] += layer.calls
        assert called <= traced  # products in attention are functions, not modules
        errors = {layer.name: compare_layer(layer).error for layer in layers}
        assert not {name: error for name, error in errors.items() if not error <= 2e-2}


def _kind(module: nn.Module) -> str:
    kinds = {nn.Conv2d: "conv2d", nn.Linear: "linear", nn.BatchNorm2d: "batch_norm", nn.LayerNorm: "layer_norm"}
    return next(name for kind, name in kinds.items() if isinstance(module, kind))


def test_layer_norm_is_computed_in_float32_on_a_processor() -> None:
    """In bfloat16 the gradients of scale and shift, sums over 4 x 16 x 16 positions, would be 3 % off."""
    net = TimmBackbone(7, input_size=64, backbone="convnext_atto")
    errors = {layer.name: compare_layer(layer).error for layer in trace_layers(net, torch.randn(4, 3, 64, 64))}
    assert max(error for name, error in errors.items() if name.startswith("layer_norm")) < 1e-5


def small() -> nn.Module:
    torch.manual_seed(0)
    return FastCNN(7, input_size=16, widths=[4, 8, 8])


def report(net: nn.Module | None = None, faces: Sequence[int] = FACES) -> PrecisionReport:
    return precision.precision_report(net or small(), faces, torch.channels_last, "cpu", CACHE)


def cached() -> Path:
    """Return the only report in the cache."""
    (path,) = CACHE.glob("precision/*.json")
    return path


class _WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: torch.autograd.function.FunctionCtx, output: Tensor) -> Tensor:
        return output.clone()

    @staticmethod
    def backward(context: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return 1.05 * gradient


WRONG: dict[str, Callable[[Tensor], Tensor]] = {
    "a factor": lambda output: 1.05 * output,
    "one infinite value": lambda output: output.flatten().index_fill(0, torch.tensor(0), torch.inf).view_as(output),
    "NaN": lambda output: output * torch.nan,
    "zeros": lambda output: 0 * output,
    "only the gradient": _WrongGradient.apply,
}


class Wrong(nn.Module):
    """A linear layer that is wrong only in bfloat16."""

    def __init__(self, wrong: Callable[[Tensor], Tensor], width: int = 256) -> None:
        super().__init__()
        self.weight, self.wrong = nn.Parameter(torch.ones(7, width)), wrong

    def forward(self, values: Tensor) -> Tensor:
        return self.linear(values, self.weight)

    def linear(self, values: Tensor, weight: Tensor) -> Tensor:
        if has_torch_function((values, weight)):
            return handle_torch_function(self.linear, (values, weight), values, weight)
        output = nn.functional.linear(values, weight)
        return self.wrong(output) if output.dtype is torch.bfloat16 else output


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_layer_is_named_once_and_float32_is_used(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    net = nn.Sequential(nn.Flatten(), Wrong(WRONG[wrong]), nn.Linear(7, 7))
    assert precision.choose_precision([report(net)], "trainer.precision") == "32-true"
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: the error of linear 1 (16x256 and 7x256) in bfloat16 is ")
    assert warning.endswith("using float32. trainer.precision=bf16-mixed overrides this.")


def test_correct_layers_that_are_not_slower_use_bfloat16(capsys: pytest.CaptureFixture[str]) -> None:
    net, state = small(), torch.get_rng_state()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert precision.compare_network(net, FACES, torch.channels_last, torch.device("cpu")).error < 1e-2
    assert torch.get_rng_state().equal(state)
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())
    assert precision.choose_precision([GOOD, GOOD], "precision") == "bf16-mixed"
    assert GOOD._replace(bfloat16=0.21).objection() is None  # noise of the measurement
    assert GOOD._replace(float32=1e-4, bfloat16=1e-3).objection() is None  # too short to matter
    assert capsys.readouterr() == ("", "")


def test_slower_layers_use_float32(capsys: pytest.CaptureFixture[str]) -> None:
    slow = GOOD._replace(slowest="conv2d features.0", float32=0.1, bfloat16=0.4)
    assert precision.choose_precision([GOOD, slow, slow], "precision") == "32-true"
    assert capsys.readouterr().err == (
        "warning: the layers of a step take 400.0 ms in bfloat16, 100.0 ms in float32; conv2d features.0 loses "
        "the most time; using float32. precision=bf16-mixed overrides this.\n"
    )


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_text(""),
    "truncated": lambda path: path.write_text(path.read_text()[:-20]),
    "not JSON": lambda path: path.write_bytes(b"\xff\x00"),
    "of another version": lambda path: write_json(path, {"error": 0.5}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_report_is_measured_again(damage: str) -> None:
    report()
    DAMAGE[damage](cached())
    second = report()
    assert second.error < 1e-2
    assert report() == second


def test_a_network_is_measured_even_if_nothing_can_be_cached() -> None:
    CACHE.write_text("a file in the folder's place")
    assert report().error < 1e-2


def test_reports_are_cached_by_network_shape_and_memory_format() -> None:
    report()
    report(faces=(4, 1, 24, 24))
    report(FastCNN(7, input_size=16, widths=[4, 8, 12]))
    precision.precision_report(small(), FACES, torch.contiguous_format, "cpu", CACHE)
    assert len(list(CACHE.glob("precision/*.json"))) == 4


def test_concurrent_calls_share_one_report() -> None:
    nets = [small() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        reports = set(pool.map(report, nets))
    assert len(reports) == 1  # including its times


@pytest.fixture
def in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the processor claim native bfloat16; any can compute in it, though slowly."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("in_bf16")
def test_evaluation_uses_the_precision_that_the_layers_allow(
    small_config: Config, small_run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def chosen(verb: str, *overrides: str) -> str:
        """Return the precision that a verb used, which it must warn of once if that is float32."""
        capsys.readouterr()
        cfg = compose(verb, f"checkpoint={run}", "accelerator=cpu", f"cache_dir={CACHE}", *overrides)
        result = evaluate(cfg) if verb == "evaluate" else next(iter(explain(cfg, Path(verb))["networks"].values()))
        warned = capsys.readouterr().err.count("using float32. precision=bf16-mixed overrides this.")
        assert warned == (result["precision"] == "32-true" and "precision=32-true" not in overrides)
        return str(result["precision"])

    run = small_run(Path("run"), "trainer.max_epochs=1")
    for verb, few in (("evaluate", []), ("explain", ["faces=7", "faithfulness=null"])):
        chosen(verb, *few)
        for expected_report, expected in ((GOOD, "bf16-mixed"), (GOOD._replace(error=0.5), "32-true")):
            for path in CACHE.glob("precision/*.json"):
                write_json(path, expected_report._asdict())
            assert chosen(verb, *few) == expected
            assert chosen(verb, *few, "precision=bf16-mixed") == "bf16-mixed"
            assert chosen(verb, *few, "precision=32-true") == "32-true"


@pytest.mark.usefixtures("in_bf16")
def test_a_teacher_that_is_wrong_in_bfloat16_uses_float32(small_config: Config) -> None:
    settings = setup.resolve(small_config(f"cache_dir={CACHE}", "trainer.precision=auto"), Path("x"))
    student, teacher = (setup.make_classifier(settings, setup.make_data(settings)[0]) for _ in range(2))
    teacher.net = nn.Sequential(nn.Flatten(), Wrong(WRONG["a factor"], 48 * 48))
    student.teacher = Teacher([LoadedCheckpoint(Path(), teacher, {}, {}, 0)])
    assert setup.resolve_precision(settings, student).trainer["precision"] == "32-true"


@pytest.mark.hard
@pytest.mark.promise("kernels")
@pytest.mark.usefixtures("in_bf16")
def test_a_run_chooses_its_precision_once_and_keeps_it(
    small_config: Config, tally: Tally, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, *overrides: str) -> tuple[str, int]:
        """Return the precision of a run and the number of warnings."""
        capsys.readouterr()
        train(small_config("trainer.max_epochs=1", *overrides), Path(name))
        record = record_of(Path(name))
        assert record.machine["precision"] == record.config["trainer"]["precision"]
        return record.machine["precision"], capsys.readouterr().err.count("warning: ")

    longer = "trainer.max_epochs=2"
    run("first")
    write_json(cached(), GOOD._asdict())
    with tally("correct"):
        assert run("correct") == ("bf16-mixed", 0)
    write_json(cached(), GOOD._replace(bfloat16=0.3)._asdict())
    with tally("slower"):
        assert run("slower") == ("32-true", 1)
    write_json(cached(), GOOD._replace(error=0.5)._asdict())
    with tally("wrong"):
        assert run("wrong") == ("32-true", 1)
    with tally("overridden"):
        assert run("overridden", "trainer.precision=bf16-mixed") == ("bf16-mixed", 0)
    with tally("correct, resumed where it is wrong"):
        assert run("correct", "resume=correct", longer) == ("bf16-mixed", 0)
    write_json(cached(), GOOD._asdict())
    with tally("wrong, resumed where it is correct"):
        assert run("wrong", "resume=wrong", longer) == ("32-true", 0)
