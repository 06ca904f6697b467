"""Type errors of settings: the message names the type of the field, and shows the value as in YAML."""

from pathlib import Path
from typing import Any

import pytest

from emotion.audit import AuditConfig
from emotion.config.compose import compose
from emotion.config.typed import typed
from emotion.demo import DemoConfig
from emotion.errors import UserError
from emotion.explain import ExplainConfig
from emotion.predict import PredictConfig
from emotion.runs import RunsConfig
from emotion.training.setup import resolve

KINDS: dict[str, Any] = {
    "audit": AuditConfig,
    "demo": DemoConfig,
    "explain": ExplainConfig,
    "predict": PredictConfig,
    "runs": RunsConfig,
}


@pytest.mark.parametrize(
    ("verb", "override", "message"),
    [
        ("audit", "near.mirrored=null", "near.mirrored=null: expected true or false."),
        ("audit", "near=3", "near=3: expected settings, near.KEY=VALUE."),
        ("demo", "allowed_hosts=[null]", "allowed_hosts[0]=null: expected text."),
        ("demo", "allowed_hosts=null", "allowed_hosts=null: expected a list."),
        ("demo", "limits.max_queue={a:1}", "limits.max_queue={a: 1}: expected an integer."),
        ("demo", "limits.megabytes=null", "limits.megabytes=null: expected a number."),
        ("demo", "limits.rate_limit=[1]", "limits.rate_limit=[1]: expected a number or null."),
        ("demo", "limits=null", "limits=null: expected settings, limits.KEY=VALUE."),
        ("demo", "open_browser=null", "open_browser=null: expected true or false."),
        ("explain", "faithfulness.faces=null", "faithfulness.faces=null: expected an integer."),
        ("explain", "rows=5", "rows=5: expected a list or null."),
        ("explain", "rows=[null]", "rows[0]=null: expected an integer."),
        ("predict", "format=null", "format=null: expected text."),
        ("predict", "max_seconds=soon", "max_seconds=soon: expected a number or null."),
        ("predict", "smoothing=null", "smoothing=null: expected a number."),
        ("runs", "csv=[a,null]", "csv=[a, null]: expected text or null."),
    ],
)
def test_the_type_of_the_field_is_expected(verb: str, override: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        typed(compose(verb, override), KINDS[verb])
    assert str(error.value) == message


def test_the_settings_of_training_have_types() -> None:
    with pytest.raises(UserError, match=r"^seed=null: expected an integer\.$"):
        resolve(compose("train", "seed=null"), Path("run"))
