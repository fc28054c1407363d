"""Finds the lines of a Linux log that tell of trouble."""

import re

_TROUBLE = re.compile(
    r"\bWARNING\b|\bBUG\b|\bOops\b|\bstall(s|ed)?\b|unchecked MSR|TSC unstable|Kernel panic|Call Trace|"
    r"general protection fault|segfault|invalid opcode|lockup"
)
_TIME_STAMP = re.compile(r"^(<\d+>)?\[ *\d+\.\d+\] ?")
_NUMBER = re.compile(r"0x[0-9a-f]+|\d+(\.\d+)?")


def trouble(log: str) -> list[str]:
    """Lines with words that a healthy boot doesn't print, as they are."""
    return [line.strip() for line in log.splitlines() if _TROUBLE.search(line)]


def without_expected(lines: list[str], expected: list[str]) -> list[str]:
    """Those lines that have no counterpart in `expected`, time stamps and numbers aside."""
    known = {_normal(line) for line in expected}
    return [line for line in lines if _normal(line) not in known]


def _normal(line: str) -> str:
    return _NUMBER.sub("#", _TIME_STAMP.sub("", line.strip()))
