"""
Requests as JSON: what a line means, in which order replies go, what is bounded.

Knows no verb of SMTP and nothing of :mod:`twisted_smtpclient.client`: it is
handed something with ``deliver()``, ``begin()`` and ``probe()``
(:class:`twisted_smtpclient.gateway.delivery.Deliverer`).
"""
