"""Which driver: VirtualBox's API where it can be had, else VBoxManage."""

from __future__ import annotations

import logging

from ...errors import ToolMissing
from .api import ApiDriver
from .driver import Driver
from .manage import ManageDriver
from .place import Place
from .target import way_of

__all__ = ["open_driver"]

logger = logging.getLogger(__name__)


async def open_driver(place: Place) -> Driver:
    """Return a driver that answers.

    Raises:
        ToolMissing: neither the API nor VBoxManage is installed, or not the one that was told.
        Unsupported: it is a VirtualBox that we do not know.
    """
    way = way_of()
    if way == "manage":
        return ManageDriver(place)
    api = ApiDriver(place)
    try:
        await api.version()
    except ToolMissing as err:
        await api.close()
        if way == "api":
            raise
        manage = ManageDriver(place)
        try:
            await manage.version()
        except ToolMissing:
            raise err from None
        logger.info("VBoxManage is used, for %s: %s", err, err.hint)
        return manage
    except BaseException:
        await api.close()
        raise
    return api
