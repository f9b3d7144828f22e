"""The paper that PRUNE comes from, as published and as repaired."""

from __future__ import annotations

from expunge.records import Paper

__all__ = ["PAPER"]

PAPER = Paper(
    title="PRUNE: A Patching Based Repair Framework for Certifiable Unlearning of Neural Networks",
    authors="X. Li, J. Wang, X. Yuan, P. Zhang",
    venue="arXiv 2505.06520",
    link="https://arxiv.org/abs/2505.06520",
)
