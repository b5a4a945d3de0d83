#!/usr/bin/env bash
# Print the secrets that agents, gateway and bridge need, made on the spot: certificates of an authority whose key is thrown
# away (for ten years: run it again before), and tokens. Where there is cert-manager, let that make the certificates.
#
#   deploy/kubernetes/secrets.sh | kubectl apply -f -          # again: all pods must be started anew
#   deploy/kubernetes/secrets.sh NAMESPACE | kubectl apply -f -
set -euo pipefail
namespace=${1:-otel-train}
umask 077
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }
secret() { # NAME TYPE KEY=FILE...
    printf -- '---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: %s\n  namespace: %s\n' "$1" "$namespace"
    printf '  labels:\n    app.kubernetes.io/name: otel-train\ntype: %s\ndata:\n' "$2"
    for item in "${@:3}"; do printf '  %s: %s\n' "${item%%=*}" "$(base64 <"${item#*=}" | tr -d '\n')"; done
}

key ca.key
openssl req -x509 -new -key ca.key -days 3650 -subj "/CN=otel-train" -out ca.crt \
    -addext "keyUsage=critical,keyCertSign,cRLSign"
for component in gateway bridge; do
    name=otel-train-$component
    key "$component.key"
    openssl req -new -key "$component.key" -subj "/CN=$name" -out "$component.csr"
    printf 'subjectAltName=DNS:%s,DNS:%s.%s,DNS:%s.%s.svc\nextendedKeyUsage=serverAuth\n' \
        "$name" "$name" "$namespace" "$name" "$namespace" >"$component.ext"
    openssl x509 -req -in "$component.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 \
        -extfile "$component.ext" -out "$component.crt" 2>/dev/null
    secret "$name-tls" kubernetes.io/tls "tls.crt=$component.crt" "tls.key=$component.key" ca.crt=ca.crt
done
openssl rand -hex 32 | tr -d '\n' >gateway
openssl rand -hex 32 | tr -d '\n' >bridge
secret otel-train-tokens Opaque gateway=gateway bridge=bridge
