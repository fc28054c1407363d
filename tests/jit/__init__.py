"""Tests of how native code is made, kept and loaded."""
