"""What reaches the guest from outside."""

from pyemu.outside import Outside


def test_a_seed_repeats_the_random_numbers():
    first, second, other = Outside(7), Outside(7), Outside(8)
    numbers = [first.random_bytes(8) for _ in range(3)]
    assert numbers == [second.random_bytes(8) for _ in range(3)]
    assert len(set(numbers)) == 3
    assert other.random_bytes(8) != numbers[0]


def test_the_host_gives_other_numbers_each_time():
    assert Outside().random_bytes(8) != Outside().random_bytes(8)
