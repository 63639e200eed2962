#!/bin/sh
# The image without a container engine and without a registry: buildah in a chroot, on a base of Debian's own packages.
# As root, on Debian: apt-get install buildah debootstrap; then: make image
set -eu
cd "$(dirname "$0")/.."
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER="${STORAGE_DRIVER:-vfs}"
base=docker.io/library/python:3.11-slim
if ! buildah inspect --type image "$base" >/dev/null 2>&1; then
	folder=$(mktemp -d)
	trap 'rm -rf "$folder"' EXIT
	debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates bookworm "$folder/root"
	tar -C "$folder/root" -cf "$folder/root.tar" .
	made=$(buildah from scratch)
	buildah add --quiet "$made" "$folder/root.tar" /
	# Whose network has an authority of its own.
	buildah copy --quiet "$made" /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
	if [ -f "${PIP_CONFIG_FILE:-/etc/pip.conf}" ]; then buildah copy --quiet "$made" "${PIP_CONFIG_FILE:-/etc/pip.conf}" /etc/pip.conf; fi
	# What the official image has beside Debian's: `python`, and a pip that may install.
	buildah run "$made" -- sh -c 'rm -f /usr/lib/python3*/EXTERNALLY-MANAGED && ln -s /usr/bin/python3 /usr/local/bin/python'
	buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$made"
	buildah commit --quiet "$made" "$base"
	buildah rm "$made" >/dev/null
fi
buildah bud --pull-never --file deploy/Dockerfile --tag headwater .
