"""What is spoken over HTTP, one wire contract a file, all over the same predictor."""
