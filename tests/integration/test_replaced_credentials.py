"""Somebody who once knew the password gets no more pushes: what a new one means for the mailbox's other phones."""

from pathlib import Path

import sqlalchemy as sa

from relay.domain.model import Mark, RegistrationId, RegistrationState
from relay.process.clock import now
from relay.store.tables import outbox, registration
from tests.integration.watch_role import ANN, PASSWORD, WatchRole, open_watch_role
from tests.waiting import until

NEW = "a new one"


async def phones(role: WatchRole, *names: str) -> list[RegistrationId]:
    """Register phones with the first password."""
    ids = []
    for name in names:
        ids.append(await role.register(name))
        assert (await role.judged(ids[-1])).registration.state is RegistrationState.ACTIVE
    return ids


async def states(role: WatchRole, *ids: RegistrationId) -> list[str]:
    return [(await role.view(id_)).registration.state.value for id_ in ids]


async def marks(role: WatchRole) -> int:
    count = sa.select(sa.func.count()).select_from(outbox)
    return await role.database.run(lambda connection: connection.execute(count).scalar_one())


async def test_the_other_phones_fall_back_when_the_password_was_changed_and_return_with_the_new_one(
    tmp_path: Path,
) -> None:
    async with open_watch_role(tmp_path) as role:
        ann, thief, tablet = await phones(role, "ann", "thief", "tablet")
        await until(lambda: role.eas.held == 1)
        await role.registrations.mark(thief, Mark.TEST, now())
        role.eas.add_mailbox(ANN, NEW)  # the Ping that is held shows nothing of it

        await role.change_password(ann, NEW)
        await role.judged(ann)

        assert await states(role, ann, thief, tablet) == ["active", "verifying", "verifying"]
        assert await marks(role) == 0
        assert role.eas.records.refusals[ANN] == 1  # the old password, once
        await until(lambda: role.eas.held == 1)
        role.eas.deliver(ANN)

        async def marked() -> bool:
            return await marks(role) > 0

        await until(marked)
        assert await marks(role) == 1  # Ann's alone

        await role.change_password(tablet, NEW)
        assert (await role.judged(tablet)).registration.state is RegistrationState.ACTIVE
        await role.change_password(thief, PASSWORD)  # who does not know the new one stays out
        assert (await role.judged(thief)).registration.state is RegistrationState.REFUSED


async def test_the_same_password_again_is_asked_for_and_changes_nothing_for_the_other_phones(tmp_path: Path) -> None:
    async with open_watch_role(tmp_path) as role:
        ann, tablet = await phones(role, "ann", "tablet")
        await until(lambda: role.eas.held == 1)
        asked = role.requests("OPTIONS")

        await role.change_password(ann, PASSWORD)
        await role.judged(ann)

        assert await states(role, ann, tablet) == ["active", "active"]
        assert role.requests("OPTIONS") == asked + 1


async def test_a_phone_whose_app_is_gone_falls_back_too(tmp_path: Path) -> None:
    async with open_watch_role(tmp_path) as role:
        ann, gone = await phones(role, "ann", "gone")
        gone_now = sa.update(registration).where(registration.c.id == gone)
        gone_now = gone_now.values(state=RegistrationState.TOKEN_GONE.value)
        await role.database.run(lambda connection: connection.execute(gone_now))
        role.eas.add_mailbox(ANN, NEW)

        await role.change_password(ann, NEW)
        await role.judged(ann)

        assert await states(role, ann, gone) == ["active", "verifying"]
