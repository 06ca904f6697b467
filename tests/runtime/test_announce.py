"""Lines about activities."""

import pytest

from emotion.runtime.announce import announce_if_slow


def test_only_a_slow_activity_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    with announce_if_slow("measuring", seconds=3600):
        pass
    assert not capsys.readouterr().out
    with announce_if_slow("measuring", seconds=0) as timer:
        timer.join()
    assert capsys.readouterr().out == "measuring ...\n"
