"""
``aiosmtplib``, a client and a task for each connection.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

from benchmarks.senders.job import HELO, HOST, SENDER, Job, Meter, addresses, message

# By name: an extra that need not be there.
aiosmtplib: Any = importlib.import_module("aiosmtplib")


async def send(job: Job, numbers: Any) -> None:
    """Messages on one connection, as long as there are any left to begin."""
    recipients = addresses(job.recipients)
    content = message(job.size)
    client = aiosmtplib.SMTP(hostname=HOST, port=job.port, local_hostname=HELO, start_tls=False)
    async with client:
        for _ in numbers:
            errors, _reply = await client.sendmail(SENDER, recipients, content)
            if errors:
                raise RuntimeError(errors)


async def measure() -> None:
    """Send, and tell what it took."""
    job = Job.from_command_line()
    if job.warm:
        await send(Job(job.port, 1, 1, 1, 1024, 1), iter(range(1)))
    meter = Meter()
    meter.start()
    numbers = iter(range(job.messages))
    await asyncio.gather(*(send(job, numbers) for _ in range(job.connections)))
    meter.stop()


if __name__ == "__main__":
    asyncio.run(measure())
