#!/bin/sh
# Prefect reads settings only from the environment. If NAME_FILE names a file, such as a Compose secret, export NAME
# with the file's content to the command and its children, so that no compose file or image contains a secret.
set -eu
for name in PREFECT_SERVER_DATABASE_PASSWORD PREFECT_SERVER_API_AUTH_STRING PREFECT_API_AUTH_STRING PREFECT_API_KEY; do
  eval "file=\${${name}_FILE:-}"
  if [ -n "$file" ]; then
    value=$(cat "$file")
    export "$name=$value"
  fi
done
exec "$@"
