"""Why the slowest requests were slow: the N slowest predictions since the start, each with what held it up."""
