"""Export to formats that other programs run: ONNX, int8 ONNX, and a static web page."""
