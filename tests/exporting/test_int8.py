"""Quantized ONNX files compared with the float32 files they come from."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from emotion.checkpoints.ensemble import Ensemble
from emotion.exporting.int8 import quantize
from emotion.exporting.onnx import export_onnx, synthetic_faces
from emotion.inference.onnx_backend import OnnxBackend
from tests.conftest import SYSTEMS, representative
from tests.exporting.test_onnx import make_member


@pytest.mark.parametrize("model", representative(SYSTEMS, "fast_cnn"))
def test_file_with_grad_cam_is_quantized_apart_from_it(model: str) -> None:
    faces = synthetic_faces(48, 1)
    export_onnx(Ensemble([make_member(model)]), Path("fp32.onnx"), cam=True)
    (path,) = quantize(Path("fp32.onnx"), Path(), faces, methods=["MinMax"]).values()
    assert path.stat().st_size < Path("fp32.onnx").stat().st_size / 2
    weights = [
        numpy_helper.to_array(one)
        for one in onnx.load(path).graph.initializer
        if one.data_type == onnx.TensorProto.INT8
    ]
    assert max(abs(one.astype(int)).max() for one in weights) == 64  # 7 bits, see emotion.exporting.int8
    fp32, int8 = (OnnxBackend(file) for file in (Path("fp32.onnx"), path))
    difference = np.abs(fp32.probabilities(faces) - int8.probabilities(faces)).max(1)
    assert 0 < difference.max() < 0.5
    for expected, actual in zip(fp32.maps(faces)[difference < 0.05], int8.maps(faces)[difference < 0.05], strict=True):
        assert np.corrcoef(expected.ravel(), actual.ravel())[0, 1] > 0.9
