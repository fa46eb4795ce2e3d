"""What the driver does about faults of VirtualBox's own."""

import pytest

from hostctl.backends.virtualbox.api import ApiDriver
from hostctl.backends.virtualbox.faults import ACCESS_DENIED, VirtualBoxError
from hostctl.backends.virtualbox.place import Place

TRIPPED = VirtualBoxError("assertion failed. COM RC=E_ACCESSDENIED (0x80070005)", ACCESS_DENIED)
REFUSED = VirtualBoxError("the machine is not running", 0x80BB0002)


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([None], None),
        ([TRIPPED, None], None),
        ([TRIPPED, REFUSED], REFUSED),
        ([REFUSED, None], REFUSED),
    ],
)
async def test_a_save_that_virtualbox_trips_over_is_tried_once_more(
    answers: list[VirtualBoxError | None],
    told: VirtualBoxError | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def call(driver: ApiDriver, op: str, machine: str, **how: object) -> None:
        assert op == "machine.save_state"
        if (answer := answers.pop(0)) is not None:
            raise answer

    monkeypatch.setattr(ApiDriver, "_call", call)
    driver = ApiDriver(Place(()))
    if told is None:
        await driver.save_state("web")
        assert answers == []
    else:
        with pytest.raises(VirtualBoxError) as caught:
            await driver.save_state("web")
        assert caught.value is told
