"""What the service costs, measured beside a floor and a peer in one run; never a test, for a test must not be timed."""
