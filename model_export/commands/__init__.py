"""The commands of `python -m model_export`: each turns flags into values, calls a room, and shows what came of it."""
