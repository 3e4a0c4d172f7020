"""Layers: each wraps a `FileSystem` and is one itself, so that they can be stacked.

From outside to inside this order makes sense; any part may be left out:

    Observed      sees what the client asked for and what it was answered
    ReadOnly      refuses before anything below has begun
    NameFilter    judges the names that the client gave
    Atomic        writes beside the final name and renames at the end
    Quota         counts what is really there, staged uploads included
    the files

Names are imported from their modules, so that a process loads only the layers that it uses.
"""
