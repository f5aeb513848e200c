#!/bin/sh
# Makes FOLDER the root file system of an image that runs BINARY: used by the Dockerfile, and by the test that starts the daemon in it.
set -eu
if [ $# != 2 ]; then
  echo "usage: deploy/rootfs.sh BINARY FOLDER" >&2
  exit 2
fi
binary=$1
root=$2

# The loader and the libraries, at the paths where the binary looks for them.
linked=$(ldd "$binary")
case $linked in
  *"not found"*) echo "deploy/rootfs.sh: a library is missing: $linked" >&2; exit 1 ;;
esac
libraries=$(printf '%s\n' "$linked" | awk '$2 == "=>" { print $3 } $1 ~ "^/" { print $1 }')
install -D -m 0755 "$binary" "$root/usr/local/bin/keywright"
for library in $libraries; do
  install -D -m 0755 "$library" "$root$library"
done

# Whom providers' and stores' certificates are checked by.
install -D -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
# The pod's own list of hosts comes before the name server.
printf 'hosts: files dns\n' > "$root/etc/nsswitch.conf"
chmod 0644 "$root/etc/nsswitch.conf"

# Where volumes are mounted: the root itself is read-only.
for mounted in etc/keywright/config etc/keywright/policies etc/keywright/tls etc/keywright/key var/lib/keywright run/keywright; do
  install -d -m 0755 "$root/$mounted"
done
