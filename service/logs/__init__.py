"""Logs: one line a request, or a share of them, and what the server's own modules say, without anybody waiting for it."""
