"""
What an operator sees of the daemon and tells it: pages over HTTP, the log's
form, signals, the service manager.  Knows neither SMTP nor JSON requests.
"""
