"""Every topic guest passes on pyemu; on QEMU and Bochs, what fails is in the reviewed lists."""

import fnmatch

import pytest

from tests.guests.topics import TOPICS, image, program
from tests.guests.topics.known import KNOWN, KNOWN_ON_BOCHS, NOT_ON_BOCHS, NOT_ON_QEMU, reason
from tests.guests.topics.run import PASS, available, on_bochs, on_pyemu, on_qemu
from tests.judges import require

LARGE = ("paging", "paging32")  # cross products of 10^5 combinations: minutes in the reference interpreter
ON_BOCHS = [topic for topic in TOPICS if topic not in NOT_ON_BOCHS]
ON_REFERENCE = [topic for topic in TOPICS if topic not in LARGE]


def failures(report: dict[str, str], topic: str) -> dict[str, str]:
    """The checks of a topic that a report doesn't call passed."""
    return {name: report.get(name, "missing") for name in program(topic).names if report.get(name) != PASS}


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("accelerator", ["jit", "interp"])
def test_pyemu_does_what_the_manual_says(topic: str, accelerator: str) -> None:
    assert not failures(on_pyemu(image(topic), topic, accelerator), topic)


@pytest.mark.long
@pytest.mark.parametrize("topic", ON_REFERENCE)
def test_reference_does_what_the_manual_says(topic: str) -> None:
    assert not failures(on_pyemu(image(topic), topic, "reference"), topic)


if available("qemu"):

    @pytest.mark.long
    @pytest.mark.parametrize("topic", [topic for topic in TOPICS if topic not in NOT_ON_QEMU])
    def test_qemu_fails_only_where_it_is_known_to(topic: str) -> None:
        wrong = failures(on_qemu(image(topic), topic), topic)
        assert not {name: got for name, got in wrong.items() if not reason(name)}


@pytest.mark.parametrize("topic", ON_BOCHS)
def test_bochs_says_the_same(topic: str) -> None:
    """Bochs has most of what QEMU's TCG lacks or gets wrong."""
    require("bochs")
    wrong = failures(on_bochs(image(topic), topic), topic)
    assert not {name: got for name, got in wrong.items() if not reason(name, KNOWN_ON_BOCHS)}


def test_known_failures_are_checks() -> None:
    """The list names no check that doesn't exist."""
    names = [name for topic in TOPICS for name in program(topic).names]
    assert not [pattern for pattern in (*KNOWN, *KNOWN_ON_BOCHS) if not fnmatch.filter(names, pattern)]
