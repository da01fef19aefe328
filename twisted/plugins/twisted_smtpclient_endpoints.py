"""The endpoint string ``mtls:``, TLS where clients show a certificate."""

from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(IPlugin, IStreamServerEndpointStringParser)
class _MutualTLS:
    prefix = "mtls"

    def parseStreamServer(self, reactor, *args, **kwargs):  # type: ignore[no-untyped-def]  # as the interface has it
        # Whoever looks for any endpoint's plugin imports this file, and shall not wait for ours.
        from twisted_smtpclient.gateway.tls import mutual_tls

        return mutual_tls(reactor, *args, **kwargs)


mtls = _MutualTLS()
