"""The guests that tests and benchmarks boot and that aren't ours: where they come from and how to talk to them.

`apt` downloads Debian's packages, `cpio` and `initramfs` pack busybox into an initramfs, `images` ties
that together into one cached set of files, `console` types at a guest and reads what it says. `sources` obtains source
packages, `suites` builds programs of them, and `programs` runs those in a guest.
`python -m tests.linux_guests` obtains the files and prints their paths. What is asserted about a boot is in
tests/guests_boot/, what is measured in benchmarks/.
"""
