"""Fuzz the wire: python -m tests.fuzz CORPUS -max_total_time=60."""

import sys

import atheris

with atheris.instrument_imports(include=["hostctl_channels"]):
    from .fuzz_wire import one_input

atheris.Setup(sys.argv, one_input)
atheris.Fuzz()
