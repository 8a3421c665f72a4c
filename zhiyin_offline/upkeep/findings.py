"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Finding:
    """Something that is not as it must be.

    Attributes:
        where: Store, catalogue or file.
        what: What is wrong, with figures.
        derived: Whether it follows from the store and can be made anew; otherwise only a backup helps.
        repaired: Whether that was done.
    """

    where: str
    what: str
    derived: bool
    repaired: bool = False


@dataclass
class Report:
    """What was looked at, and what was found.

    Attributes:
        proved: What holds, a line each, with the number of things compared.
        findings: What does not.
        not_compared: What could not be looked at, and why.
    """

    proved: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    not_compared: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong any more."""
        return all(finding.repaired for finding in self.findings)

    def found(self, where: str, what: str, *, derived: bool, repaired: bool = False) -> None:
        """Notes a finding."""
        self.findings.append(Finding(where, what, derived, repaired))
