"""Serves bundles: one instance in, one prediction out, computed by ONNX Runtime. No torch lives here."""
