"""Tests of how guests start."""
