"""API keys: who may ask, known by a file of hashes that can be read by anybody."""
