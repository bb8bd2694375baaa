"""What the server says of single requests: log lines and traces, made beside the answers and never before them."""
