"""Tests of the infrastructure that every program uses."""
