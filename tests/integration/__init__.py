"""
Tests against real mail servers: Postfix, Exim, Dovecot.

``servers.sh`` fetches them.  Without them the tests are skipped, and with
``REQUIRE_INTEGRATION=1`` in the environment they fail.
"""
