"""
The standard library's ``smtplib``, a thread for each connection.
"""

from __future__ import annotations

import smtplib
from concurrent.futures import ThreadPoolExecutor

from benchmarks.senders.job import HELO, HOST, SENDER, Job, Meter, addresses, message


def send(job: Job, messages: int) -> None:
    """So many messages on one connection."""
    recipients = addresses(job.recipients)
    content = message(job.size)
    with smtplib.SMTP(HOST, job.port, local_hostname=HELO) as client:
        for _ in range(messages):
            if client.sendmail(SENDER, recipients, content):
                raise RuntimeError("not all accepted")


def main() -> None:
    """Send, and tell what it took."""
    job = Job.from_command_line()
    if job.warm:
        send(Job(job.port, 1, 1, 1, 1024, 1), 1)
    shares = [job.messages // job.connections] * job.connections
    shares[0] += job.messages % job.connections
    meter = Meter()
    meter.start()
    with ThreadPoolExecutor(job.connections) as threads:
        for _ in threads.map(lambda messages: send(job, messages), shares):
            pass
    meter.stop()


if __name__ == "__main__":
    main()
