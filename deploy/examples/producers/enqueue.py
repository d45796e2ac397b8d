#!/usr/bin/env python3
"""Puts one job on Genfleet's queue and waits for the event it ends in.

    enqueue.py KIND PAYLOAD

The job is published persistent, mandatory and with a publisher confirm, so that it is on the queue once the broker
has answered. The event comes to a queue of this connection's own (reply_to), told apart by its correlation id.

Exit code: 0 it succeeded, 2 it failed or expired, 1 no event came, or the job is not on the queue; 64 bad usage.
"""

import json
import os
import socket
import sys
import time
import uuid

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker, NackError, UnroutableError

URL = os.environ.get("GENFLEET_QUEUE_URL") or sys.exit("error: set GENFLEET_QUEUE_URL to amqp://user:password@host:5672/")
EXCHANGE = (os.environ.get("GENFLEET_QUEUE_PREFIX") or "genfleet") + ".jobs"
TIMEOUT = float(os.environ.get("GENFLEET_TIMEOUT_SECONDS") or 60)


class Trouble(Exception):
    """What a person has to know."""


def enqueue(channel, kind, payload, reply_to):
    """Publishes the job. Returns its id, which is also the correlation id, once the broker has it."""
    job_id, now = str(uuid.uuid4()), time.time()
    properties = pika.BasicProperties(
        content_type="application/json",
        delivery_mode=pika.DeliveryMode.Persistent,
        message_id=job_id,
        correlation_id=job_id,
        reply_to=reply_to,
        timestamp=int(now),
        headers={"genfleet-enqueued-ms": int(now * 1000)},  # waits are measured from here
    )
    body = json.dumps({"id": job_id, "kind": kind, "payload": payload})
    try:
        channel.basic_publish(EXCHANGE, kind, body.encode(), properties, mandatory=True)
    except UnroutableError:
        raise Trouble(f"the job came back: no queue takes {kind} jobs from exchange {EXCHANGE}") from None
    except NackError:
        raise Trouble("the broker refused the job: its queue may be full. Nothing was enqueued") from None
    return job_id


def wait_for_event(channel, queue, correlation_id):
    """The event that the job ended in."""
    until = time.monotonic() + TIMEOUT
    for method, properties, body in channel.consume(queue, auto_ack=True, inactivity_timeout=1):
        if method and properties.correlation_id == correlation_id:
            return json.loads(body)
        if time.monotonic() > until:
            raise Trouble(f"no event within {TIMEOUT:g} s: job {correlation_id} is enqueued, and may still be worked")
    raise Trouble(f"the queue for replies is gone: job {correlation_id} is enqueued, its event is on {EXCHANGE[:-5]}.events")


def run(kind, payload):
    parameters = pika.URLParameters(URL)
    # A broker that is short of memory or disk stops reading: without this, that would be waited for without end.
    parameters.blocked_connection_timeout = TIMEOUT
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        replies = channel.queue_declare("", exclusive=True).method.queue
        return wait_for_event(channel, replies, enqueue(channel, kind, payload, replies))


def main():
    try:
        kind, payload = sys.argv[1], json.loads(sys.argv[2])
    except (IndexError, ValueError) as error:
        print(f"usage: enqueue.py KIND PAYLOAD, e.g. cdn.purge '{{\"paths\": [\"/a.js\"]}}' ({error})", file=sys.stderr)
        return 64
    try:
        event = run(kind, payload)
    except Trouble as trouble:
        print(f"error: {trouble}", file=sys.stderr)
        return 1
    except ChannelClosedByBroker as error:
        print(f"error: the broker says {error.reply_text}. Have the workers declared their exchanges?", file=sys.stderr)
        return 1
    except (AMQPError, socket.gaierror) as error:
        print(f"error: no connection to the broker: {error!r}", file=sys.stderr)
        return 1
    print(json.dumps(event))
    return 0 if event["data"]["outcome"] == "succeeded" else 2


if __name__ == "__main__":
    sys.exit(main())
