"""What a method made up by a test says of itself, and cases made up for the judges."""

from expunge.judging.outputs import Judged
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


def case(before, after, labels, judge_labels, gone, limits):
    """What a judgement looks at, in the order in which it is read."""
    return Judged(
        before=before,
        after=after,
        labels=labels,
        judge_labels=judge_labels,
        gone=gone,
        limits=limits,
    )
