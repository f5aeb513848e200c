#!/usr/bin/env bash
# Makes what no manifest holds, in the cluster that kubectl reaches; the namespaces must be there.
#
# - The daemon's TLS pair: Secret `keywright-tls`, for keywright.keywright.svc, signed by itself, for a year.
# - The key that opens its store: Secret `keywright-key`. Keep a copy of it outside of the cluster.
# - What the certificate is trusted by: ConfigMap `keywright-ca`, for the daemon's own namespace and those of applications, which may be
#   named as arguments [payments].
#
# What is there already is left as it is, so it may be run again.
set -euo pipefail

# Private files are the caller's alone, and gone at the end.
umask 077
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

# is_there NAMESPACE KIND NAME. A cluster that doesn't answer has nothing; `create` then says so, and never overwrites.
is_there() {
  [ -n "$(kubectl -n "$1" get "$2" "$3" --ignore-not-found -o name)" ]
}
stays() {
  echo "$1 is there already, and stays"
}

if is_there keywright secret keywright-tls; then
  stays "secret/keywright-tls"
else
  # Applications that trust another certificate would refuse this one.
  for namespace in keywright "${@:-payments}"; do
    if is_there "$namespace" configmap keywright-ca; then
      echo "deploy/keys.sh: the ConfigMap keywright-ca in $namespace belongs to a certificate that isn't there: bring back the Secret" \
        "keywright-tls, or delete the ConfigMap" >&2
      exit 1
    fi
  done
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj /CN=keywright \
    -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:keywright.keywright.svc -keyout tls.key -out tls.crt
  kubectl -n keywright create secret tls keywright-tls --cert=tls.crt --key=tls.key
fi

if is_there keywright secret keywright-key; then
  stays "secret/keywright-key"
else
  head -c 32 /dev/urandom > keywright.key
  kubectl -n keywright create secret generic keywright-key --from-file=keywright.key
fi

# The authority, where somebody else made the pair with one; else the certificate itself.
kubectl -n keywright get secret keywright-tls \
  -o go-template='{{or (index .data "ca.crt") (index .data "tls.crt") | base64decode}}' > ca.crt
for namespace in keywright "${@:-payments}"; do
  if is_there "$namespace" configmap keywright-ca; then
    stays "configmap/keywright-ca in $namespace"
  else
    kubectl -n "$namespace" create configmap keywright-ca --from-file=ca.crt
  fi
done
