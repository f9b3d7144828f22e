"""What a method made up by a test says of itself."""

from expunge.records import MethodInfo, Paper


def info(**changes):
    """A `MethodInfo` that promises nothing in particular, but for `changes`."""
    base = {
        "name": "a-test",
        "title": "t",
        "summary": "s",
        "paper": Paper(title="t", authors="a", venue="v"),
        "needs": frozenset({"forget"}),
        "aims": frozenset({"absent", "unseen"}),
        "scopes": frozenset({"classes", "records"}),
        "claims": ("outputs",),
    }
    return MethodInfo(**(base | changes))
