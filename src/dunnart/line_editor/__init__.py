"""Editing of lines for applications that have no kernel's terminal: `LineEditor`, which does no I/O of its own."""

from dunnart.line_editor.buffer import width
from dunnart.line_editor.editor import Complete, EndOfInput, Event, Interrupted, Line, LineEditor
from dunnart.line_editor.history import History

__all__ = ["Complete", "EndOfInput", "Event", "History", "Interrupted", "Line", "LineEditor", "width"]
