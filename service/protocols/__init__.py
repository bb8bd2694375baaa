"""One wire contract a file, all over the same predictor."""
