"""`hostctl doctor`: what works on this host, what does not, and how to mend it."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

from hostctl import doctor as examiner
from hostctl.doctor import Finding
from hostctl.state import Home

from . import opening, render
from .exits import Exit

_COLOURS: Final = {"ok": "32", "warn": "33", "fail": "31"}


def doctor(args: argparse.Namespace) -> int:
    """Examine the host; fail when the main job cannot run here."""
    return opening.run(_doctor(args))


async def _doctor(args: argparse.Namespace) -> int:
    findings = await examiner.examine(Home.default())
    if args.json:
        render.json_out([_as_json(finding) for finding in findings])
    else:
        _print(findings)
    return Exit.FAILED if any(map(_stops_the_job, findings)) else Exit.OK


def _stops_the_job(finding: Finding) -> bool:
    return finding.required and finding.status == "fail"


def _as_json(finding: Finding) -> dict[str, Any]:
    return {
        "part": finding.part,
        "status": finding.status,
        "required": finding.required,
        "detail": finding.detail,
        "fix": finding.fix,
    }


def _print(findings: Sequence[Finding]) -> None:
    width = max((len(finding.part) for finding in findings), default=0)
    for finding in findings:
        part = finding.part.ljust(width)
        print(f"{_painted(finding.status)}  {part}  {render.safe(finding.detail)}")
        if finding.fix and finding.status != "ok":
            print(f"{'':6}{'':{width}}  fix: {render.safe(finding.fix)}")
    bad = [finding.part for finding in findings if _stops_the_job(finding)]
    print()
    if bad:
        print(f"hostctl cannot do its job here: mend {', '.join(bad)}")
    else:
        print("hostctl can do its job here")


def _painted(status: str) -> str:
    """Colour the word on a terminal, where nobody forbade it (https://no-color.org)."""
    word = f"{status:4}"
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return word
    return f"\x1b[{_COLOURS.get(status, '0')}m{word}\x1b[0m"
