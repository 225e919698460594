#!/bin/sh
# Prefect reads its settings from the environment alone. Where NAME_FILE names a file, such as a Compose secret, this
# makes NAME of what is in it, for the command and its children only: no secret stands in a compose file or an image.
set -eu
for name in PREFECT_SERVER_DATABASE_PASSWORD PREFECT_SERVER_API_AUTH_STRING PREFECT_API_AUTH_STRING PREFECT_API_KEY; do
  eval "file=\${${name}_FILE:-}"
  if [ -n "$file" ]; then
    value=$(cat "$file")
    export "$name=$value"
  fi
done
exec "$@"
