"""What checking an environment found."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Result = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """One row of a report.

    Attributes:
        check: what was looked at, such as "observations".
        result: "ok", "warning" or "failed".
        seen: what was seen, in words.
        mend: what to do about it; "" if nothing.
        measured: numbers by name, where the check measures.
    """

    check: str
    result: Result
    seen: str
    mend: str = ""
    measured: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """All findings about one environment.

    Attributes:
        name: the environment's name.
        kind: "gymnasium", "parallel" or "aec" (PettingZoo), "compiled", or "unknown" if it could not
            be built.
        findings: in the order of the checks.
        seconds: how long checking took.
    """

    name: str
    kind: str
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether no check failed; warnings are allowed."""
        return not self.failures

    @property
    def failures(self) -> list[Finding]:
        """The findings of checks that failed."""
        return [finding for finding in self.findings if finding.result == "failed"]

    @property
    def warnings(self) -> list[Finding]:
        """The findings that are warnings."""
        return [finding for finding in self.findings if finding.result == "warning"]

    def of(self, check: str) -> list[Finding]:
        """The findings of one check, such as "observations"."""
        return [finding for finding in self.findings if finding.check == check]

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return {
            "env": self.name,
            "kind": self.kind,
            "ok": self.ok,
            "failed": len(self.failures),
            "warnings": len(self.warnings),
            "seconds": self.seconds,
            "findings": [asdict(finding) for finding in self.findings],
        }

    def __str__(self) -> str:
        lines = [f"{self.name} ({self.kind}):"]
        for finding in self.findings:
            lines.append(f"  {finding.result:<8} {finding.check}: {finding.seen}")
            if finding.mend:
                lines.append(f"           {finding.mend}")
        return "\n".join(lines)
