#!/bin/bash
# Whether the broker of `--bootstrap-server HOST:PORT` accepts connections, which it does once it serves.
exec 3<>"/dev/tcp/${2%:*}/${2##*:}"
