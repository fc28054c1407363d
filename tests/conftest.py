"""Fixtures and options that tests of several folders share."""

import gc
import signal

import pytest
from hypothesis import HealthCheck, settings

from tests import judges
from tests.linux_guests import images, machines

# What an example takes depends on the host, and CI says the same each time about the same sources: random search is the
# business of tests/fuzz and of what is marked `long`.
settings.register_profile("pyemu", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pyemu")

EMULATORS = {"pyemu": machines.PYEMU, "qemu": machines.QEMU}


# A shell that starts the tests in the background has them ignore Ctrl-C, and so do the processes that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--emulator qemu` runs the boot tests against QEMU: that judges the tests, and the guests, rather than pyemu."""
    parser.addoption("--emulator", choices=sorted(EMULATORS), default="pyemu", help="what the boot tests boot with")
    parser.addoption("--regenerate", action="store_true", help="write golden files anew instead of comparing with them")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first, so that no worker is left alone with it at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish(session: pytest.Session) -> None:
    """What has been imported and collected stays: without this, each of the many collections of garbage that machines
    leave looks at thousands of tests too, which takes longer than most of them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def emulator(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The start of the command line of what the boot tests boot with."""
    command = EMULATORS[request.config.getoption("--emulator")]
    if command is machines.QEMU:
        judges.require(machines.QEMU[0])
    return command


@pytest.fixture(scope="session")
def guests() -> images.Guests:
    """The Linux guests; a test that needs them fails, with an explanation, where they can't be had."""
    try:
        return images.obtain()
    except images.GuestsMissing as error:
        pytest.fail(str(error), pytrace=False)
