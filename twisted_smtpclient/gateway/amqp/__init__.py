"""
The requests of the JSON protocol from RabbitMQ, beside those over TCP.

A request is a message's body.  Its outcome is published and confirmed before
the request is acknowledged, so a broker that keeps its messages keeps the
request until somebody has its outcome.  Needs the extra ``amqp`` (pika).
"""
