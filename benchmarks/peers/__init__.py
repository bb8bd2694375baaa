"""The servers beside which the service is measured, each started as `python -m benchmarks.peers.<name>`."""
