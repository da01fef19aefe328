#!/usr/bin/env python3
"""
One mail to each recipient, by the daemon; the standard library is all it needs.

    python3 client.py mx.example 25 sender@bar.de message.eml < recipients

A line for each as soon as it is decided: recipient, verdict, the reply as JSON.
"""

import asyncio
import base64
import json
import os
import sys
import uuid
from collections import deque
from pathlib import Path

# Mails under way.  Fewer than the daemon's --max-in-flight, at which it would
# stop reading; and it is all that is held here, however long the list.
WINDOW = 100
# Seconds for a mail, its waiting in the daemon included.  There is a reply by
# then, so a connection that is silent for longer is dead.  Less than --key-ttl,
# for which the daemon keeps a reply that was lost on the way.
DEADLINE = 300

host, port, sender, file = sys.argv[1:]
daemon, _, daemon_port = os.environ.get("DAEMON", "localhost:7025").rpartition(":")
tokens = Path(os.environ["TOKEN_FILE"]).read_text().splitlines() if "TOKEN_FILE" in os.environ else []
message = base64.b64encode(Path(file).read_bytes()).decode()

# A name for this run.  Where a second run is not to send twice either, keep it
# with the list.
run = uuid.uuid4()
todo = deque(enumerate(filter(None, sys.stdin.read().splitlines())))
waiting = {}  # Sent and not answered: recipients by their number.
window = asyncio.Semaphore(WINDOW)


def request(number, recipient):
    return {
        "id": number, "key": f"{run}-{number}", "deadline": DEADLINE, "host": host, "port": int(port),
        "sender": sender, "recipients": [recipient], "message": message,
    }  # fmt: skip


async def write(writer):
    async def say(fields):
        writer.write(json.dumps(fields).encode() + b"\n")
        await writer.drain()  # While the daemon does not read; replies are read meanwhile.

    if tokens:
        await say({"token": tokens[0]})
    # What the last connection left unanswered, by the keys that it had.  Whether
    # it was sent, is being sent or never came: it is sent once.
    for number, recipient in list(waiting.items()):
        await say(request(number, recipient))
    while todo:
        await window.acquire()
        number, recipient = todo.popleft()
        waiting[number] = recipient
        await say(request(number, recipient))


def hear(reply):
    if "id" not in reply:  # The token's.
        if reply["status"] != "ok":
            sys.exit(reply["message"])
        return
    recipient = waiting.pop(reply["id"])
    window.release()
    if reply["status"] == "ok":
        verdict, text = reply["deliveryStatus"][0]["status"], reply["deliveryStatus"][0]["response"]
    else:
        # What is in doubt may have been delivered.  What is temporary and not in
        # doubt may be sent again without a second thought.
        doubt = " (in doubt)" if reply.get("indoubt") else " (temporary)" if reply["temporary"] else ""
        verdict, text = reply["error"] + doubt, reply["message"]
    # As JSON, for a server may have put anything into it, line ends included.
    print(recipient, verdict, json.dumps(text), sep="\t", flush=True)


async def converse():
    # A reply with many recipients is longer than the 64 KiB that asyncio reads.
    reader, writer = await asyncio.open_connection(daemon, daemon_port, limit=2**24)
    writing = asyncio.create_task(write(writer))
    try:
        while waiting or todo:
            line = await asyncio.wait_for(reader.readline(), DEADLINE + 30)
            if not line.endswith(b"\n"):  # The start of a reply is none.
                raise ConnectionError("the connection was lost")
            hear(json.loads(line))
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        writer.close()


async def main():
    failures = 0
    while waiting or todo:
        left = len(waiting) + len(todo)
        try:
            await converse()
        except (OSError, asyncio.TimeoutError) as error:
            # At once, then ever more slowly: a minute and a half in all.
            failures = failures + 1 if len(waiting) + len(todo) == left else 1
            if failures > 20:
                sys.exit(f"{error}: who is not in the output has no verdict")
            await asyncio.sleep(min(failures - 1, 5))


asyncio.run(main())
