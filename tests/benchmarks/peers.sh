#!/bin/sh
# Installs what Memformer.cpp is compared with, into build/peers:
#   newest   a virtual environment with the newest PyTorch from the package index: several GB
#   debian   Debian's PyTorch (python3-torch) with the OpenBLAS that shares its threads, through apt
# Usage: sh tests/benchmarks/peers.sh [newest] [debian]   (default: both)
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/../.."
[ $# -gt 0 ] || set -- newest debian

version_of() {
  "$1" -c 'import torch; print("torch", torch.__version__)'
}

for peer; do
  case $peer in
    newest)
      echo "installing the newest PyTorch into build/peers/newest; this takes several GB of disk"
      mkdir -p build/peers
      [ -x build/peers/newest/bin/python ] || python3 -m venv build/peers/newest
      build/peers/newest/bin/pip install --quiet --no-cache-dir torch numpy
      echo "$(version_of build/peers/newest/bin/python), $(du -sh build/peers/newest | cut -f 1)"
      ;;
    debian)
      if ! command -v apt-get >/dev/null || [ ! -x /usr/bin/python3 ]; then
        echo "peers: no apt-get here; going on without Debian's PyTorch" >&2
        continue
      fi
      echo "installing python3-torch and libopenblas0-openmp through apt, about 1 GB"
      as_root=
      [ "$(id -u)" -eq 0 ] || as_root=sudo
      $as_root apt-get -qq update
      $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -y --no-install-recommends install python3-torch libopenblas0-openmp >/dev/null
      mkdir -p build/peers
      ln -sf /usr/bin/python3 build/peers/debian
      version_of build/peers/debian
      ;;
    *)
      echo "usage: sh tests/benchmarks/peers.sh [newest] [debian]" >&2
      exit 2
      ;;
  esac
done
