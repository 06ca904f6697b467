"""From a trained classifier to files that others run: ONNX, whole numbers, a page for any static host."""
