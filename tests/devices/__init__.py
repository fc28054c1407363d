"""Tests of the devices, each driven through its ports or its page as a guest does."""
