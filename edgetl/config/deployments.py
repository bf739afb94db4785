"""The kinds of deployments: how each lays its heads out in graphs, what it needs, and how it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from edgetl.errors import EdgetlError, did_you_mean

COMBINED = "combined"
ONE_VS_REST = "one-vs-rest"

GraphsOf = Callable[[Sequence[str]], Sequence[Sequence[str]]]
"""Divides the roles of a deployment's heads between its graphs."""


def one_graph(roles: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """All heads in one graph, which holds shared layers once."""
    return (tuple(roles),)


def graph_each(roles: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """A graph for each head, with its own copy of the trunk."""
    return tuple((role,) for role in roles)


@dataclass(frozen=True)
class DeploymentKind:
    """A way to serve all groups of labels.

    Attributes:
        name: as a study file has it.
        tasks: the tasks that it can serve.
        answer: the verdict's answer to "One combined model or several specialised ones?".
        all_labels: the role of its head for all labels, if it has one: ``combined`` (softmax) or ``one-vs-rest``.
        per_group: whether it has a head for each group.
        graphs: divides the roles of its heads between graphs, of which each becomes an engine.
        tunable: whether heads may have cuts of their own, above which layers are tuned for them.
        needs_cut: whether it makes no sense without such a cut.
        gated: whether the head for all labels runs first, and a group's head only where that one finds the group.
        frozen_name: the kind that it is where no layer is tuned; the two differ in nothing but the cut.
    """

    name: str
    tasks: tuple[str, ...]
    answer: str
    all_labels: Literal["combined", "one-vs-rest"] | None = None
    per_group: bool = False
    graphs: GraphsOf = one_graph
    tunable: bool = False
    needs_cut: bool = False
    gated: bool = False
    frozen_name: str | None = None

    def roles(self, groups: Iterable[str]) -> tuple[str, ...]:
        """The roles of its heads: that for all labels first, then each group."""
        alone = () if self.all_labels is None else (self.all_labels,)
        return (*alone, *(groups if self.per_group else ()))

    def tunable_roles(self, groups: Iterable[str]) -> tuple[str, ...]:
        """The roles of heads that may have cuts of their own."""
        # A second level reads the frozen trunk's tensors from the first, so the first stays on the frozen trunk.
        own = tuple(groups) if self.gated else self.roles(groups)
        return own if self.tunable else ()

    @property
    def own_networks(self) -> bool:
        """Whether no two heads share layers, so that one can be tuned, and run, without the others."""
        parts = self.graphs(self.roles(("one group", "another")))
        return not self.gated and all(len(part) == 1 for part in parts)


# The first are the simplest to serve: of two that tie in speed and accuracy, the one that comes first is chosen.
DEPLOYMENTS: dict[str, DeploymentKind] = {
    kind.name: kind
    for kind in (
        DeploymentKind(COMBINED, ("classify", "detect"), "One combined model", all_labels="combined", tunable=True),
        DeploymentKind(
            "shared", ("classify", "detect"), "Neither, but one shared trunk with a head per group", per_group=True
        ),
        DeploymentKind(
            ONE_VS_REST,
            ("classify",),
            "Neither, but one trunk with a yes-or-no head per label",
            all_labels="one-vs-rest",
        ),
        DeploymentKind(
            "branched",
            ("classify",),
            "Neither, but one trunk with a branch per group",
            per_group=True,
            tunable=True,
            needs_cut=True,
            frozen_name="shared",
        ),
        DeploymentKind(
            "cascade",
            ("classify", "detect"),
            "Neither, but a cascade: combined first, a group's specialist only where it fired",
            all_labels="combined",
            per_group=True,
            tunable=True,
            gated=True,
        ),
        DeploymentKind(
            "specialised",
            ("classify", "detect"),
            "Several specialised ones",
            per_group=True,
            graphs=graph_each,
            tunable=True,
        ),
    )
}


def register_deployment(kind: DeploymentKind) -> None:
    """Add a kind of deployment, which study files can then name; in a tie it comes after all others.

    Raises:
        EdgetlError: there is one of that name, or its heads could not be told apart or trained.
    """
    if kind.name in DEPLOYMENTS:
        raise EdgetlError(f"there is a deployment {kind.name} already; choose another name")
    if not kind.roles(("a group",)):
        raise EdgetlError(f"deployment {kind.name} has no head; give it all_labels or per_group")
    if kind.gated and kind.roles(("a group",)) != (COMBINED, "a group"):
        raise EdgetlError(f"deployment {kind.name} is gated, which needs the head combined and a head per group")
    DEPLOYMENTS[kind.name] = kind


def known_deployment(name: str) -> str:
    """The name of a kind of deployment, unchanged.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in DEPLOYMENTS:
        *others, last = map(repr, DEPLOYMENTS)
        raise ValueError(f"is {name!r}, expected {', '.join(others)} or {last}{did_you_mean(name, DEPLOYMENTS)}")
    return name
