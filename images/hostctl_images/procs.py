"""The only door to other programs in this package: argv lists, never a shell; stderr kept."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .errors import BuildFailed

__all__ = ["run"]

logger = logging.getLogger(__name__)

PACKAGES = {"apt-get": "apt", "apt-cache": "apt", "dpkg": "dpkg", "dpkg-deb": "dpkg"}
TEXT_LIMIT = 2000  # characters of stderr kept in an error


def run(argv: Sequence[str | Path], *, cwd: Path | None = None, timeout_s: float = 120) -> str:
    """Run a program to its end and return what it printed.

    Raises:
        BuildFailed: there is no such program, it failed, or it did not end in time.
    """
    words = [str(word) for word in argv]
    logger.debug("running %s", words)
    try:
        done = subprocess.run(
            words, cwd=cwd, timeout=timeout_s, capture_output=True, text=True, check=True
        )
    except FileNotFoundError as err:
        package = PACKAGES.get(words[0])
        hint = f"install {package}" if package else None
        raise BuildFailed(f"program {words[0]} is missing", hint=hint) from err
    except subprocess.CalledProcessError as err:
        text = " ".join(err.stderr.split())[-TEXT_LIMIT:]
        raise BuildFailed(f"{words[0]} failed with status {err.returncode}: {text}") from err
    except subprocess.TimeoutExpired as err:
        raise BuildFailed(f"{words[0]} did not end within {timeout_s:g} s") from err
    return done.stdout
