"""Logs: lines for a share of the requests, and for what the server's own modules say; nobody waits for them."""
