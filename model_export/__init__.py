"""Makes bundles: trains a network with Batch Normalization, freezes, exports, folds and verifies it."""
