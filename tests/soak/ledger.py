"""
What was asked, what servers recorded, what clients were told: and whether that agrees.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from twisted_smtpclient.gateway.reply import WIRE_NAMES
from twisted_smtpclient.testing import Mail

#: Errors that a client may be told; a fault of the daemon's own is none of them.
_NAMES: Final = {*WIRE_NAMES.values()} - {"InternalError"}

#: Broken rules that are kept; the first is what matters.
_MOST: Final = 100


class Asked:
    """
    One mail.

    :ivar number: what its sender and its recipients are made of.
    :ivar truthful: whether what its server says of it can be believed.
    :ivar times: how often it was asked for; more than once by its key alone.
    :ivar replies: what was told of it.
    :ivar awaited: whether its client stays until it has its reply.
    """

    def __init__(self, number: int, recipients: int, *, truthful: bool, awaited: bool) -> None:
        self.number = number
        self.sender = f"s{number}@soak.example"
        self.recipients = [f"r{number}.{position}@soak.example" for position in range(recipients)]
        self.truthful = truthful
        self.awaited = awaited
        self.times = 1
        self.replies: list[Mapping[str, Any]] = []

    def told(self, recipient: str) -> list[Mapping[str, Any]]:
        """What was told of one recipient."""
        entries = [entry for reply in self.replies for entry in reply.get("deliveryStatus", ())]
        return [entry for entry in entries if entry["recipient"] == recipient]


class Ledger:
    """
    All of them.

    :ivar broken: the rules that were broken, each as a sentence.
    :ivar counts: how often what was told.
    """

    def __init__(self) -> None:
        self.asked: dict[int, Asked] = {}
        self.recorded: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.broken: list[str] = []

    def breach(self, what: str) -> None:
        """A rule was broken."""
        if len(self.broken) < _MOST:
            self.broken.append(what)

    def ask(self, recipients: int, *, truthful: bool, awaited: bool) -> Asked:
        """One more mail."""
        asked = Asked(len(self.asked) + 1, recipients, truthful=truthful, awaited=awaited)
        self.asked[asked.number] = asked
        return asked

    def record(self, mail: Mail) -> None:
        """A server took a mail; or it said nothing, and may have."""
        if mail.accepted or not mail.replies:
            number = int(mail.sender[1:].partition("@")[0])
            for address in mail.addresses:
                self.recorded[address] += 1
                asked = self.asked[number]
                if asked.truthful and address not in asked.recipients:
                    self.breach(f"mail {number} went to {address}")

    def tell(self, asked: Asked, reply: Mapping[str, Any]) -> None:
        """A client has a reply."""
        asked.replies.append(reply)
        if len(asked.replies) > asked.times:
            self.breach(f"mail {asked.number} was answered {len(asked.replies)} times, asked {asked.times}")
        status = reply.get("status")
        if status == "error":
            self.counts[reply["error"]] += 1
            if reply["error"] not in _NAMES:
                self.breach(f"mail {asked.number}: {reply}")
        elif status != "ok" or reply.get("sender") != asked.sender:
            self.breach(f"mail {asked.number}: {reply}")
        entries = reply.get("deliveryStatus")
        if entries is None:
            if status == "ok":
                self.breach(f"mail {asked.number} is ok for nobody: {reply}")
            return
        if [entry["recipient"] for entry in entries] != asked.recipients:
            self.breach(f"mail {asked.number} was told of others: {reply}")
        for entry in entries:
            self.counts[f"{entry['status']}{' in doubt' if entry.get('indoubt') else ''}"] += 1

    def check(self) -> None:
        """Whether all of it agrees, now that nothing more will come."""
        for asked in self.asked.values():
            if asked.awaited and len(asked.replies) != asked.times:
                self.breach(
                    f"mail {asked.number} was answered {len(asked.replies)} times, asked {asked.times}"
                )
            if asked.truthful:
                for recipient in asked.recipients:
                    self._check_recipient(asked, recipient)

    def _check_recipient(self, asked: Asked, recipient: str) -> None:
        times, told = self.recorded[recipient], asked.told(recipient)
        if any(entry["status"] == "Ok" for entry in told):
            if times != 1:
                self.breach(f"{recipient} is Ok, and was recorded {times} times: {told}")
        elif len(asked.replies) < asked.times or any(entry.get("indoubt") for entry in told):
            if times > 1:
                self.breach(f"{recipient} was recorded {times} times")
        elif times:
            self.breach(f"{recipient} was recorded {times} times, and told: {told or asked.replies}")
