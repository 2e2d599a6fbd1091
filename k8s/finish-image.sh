#!/bin/sh
# The last step of an image: the user, a home it may write to, and the HAProxy that Serve starts.
set -eu
useradd --uid 10001 --home-dir /var/lib/orrery --create-home --shell /usr/sbin/nologin orrery
mkdir -p /opt/orrery/bin
python -c 'from pathlib import Path; from cluster.ingress.haproxy import write_haproxy
write_haproxy(Path("/opt/orrery/bin"))'
