"""The ``smtpclient`` subcommand of ``twistd`` and ``twist``."""

from twisted.application.service import ServiceMaker

smtpclient = ServiceMaker(
    "twisted_smtpclient",
    "twisted_smtpclient.tap",
    "Delivers mail over SMTP and LMTP, asked for in lines of JSON.",
    "smtpclient",
)
