#!/bin/sh
# What the scripts share: installing what is missing, building, headers with the elapsed time.
#   sh examples/setup.sh [PACKAGE...]   installs what building and testing need and is not there yet
#                                       (and these packages), through apt; elsewhere says what to install
#   . examples/setup.sh                 defines the functions below; the folder must be the project's root

started=$(date +%s)

# step TITLE: a header with the seconds since the start.
step() {
  printf '\n== %s  [%s s]\n' "$1" "$(($(date +%s) - started))"
}

# quietly LOG COMMAND...: output goes to LOG, and to the screen only if the command fails.
quietly() {
  quiet_log=$1
  shift
  "$@" </dev/null >"$quiet_log" 2>&1 && return 0
  echo "failed: $*" >&2
  echo "the end of $quiet_log:" >&2
  tail -n 60 "$quiet_log" >&2
  return 1
}

processors() {
  nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2
}

# build PRESET LOG-FOLDER [TARGET...]: into build/PRESET; all targets if none is named.
build() {
  build_preset=$1 build_logs=$2
  shift 2
  mkdir -p "$build_logs"
  # Only for a fresh build folder: CMake keeps the generator of one that it knows.
  if [ -z "${CMAKE_GENERATOR:-}" ] && command -v ninja >/dev/null; then
    export CMAKE_GENERATOR=Ninja
  fi
  quietly "$build_logs/configure.log" cmake --preset "$build_preset" || return 1
  quietly "$build_logs/build.log" cmake --build --preset "$build_preset" \
    --parallel "$(processors)" ${1:+--target "$@"}
}

bible_is_there() {
  PATH="$PATH:/usr/games" command -v bible >/dev/null
}

is_installed() {
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

has_header() {
  printf '#if !__has_include(<%s>)\n#error\n#endif\n' "$1" |
    "${CXX:-c++}" -x c++ -E - >/dev/null 2>&1
}

# Prints the Debian names of what is missing; PACKAGE... are looked for too.
missing_packages() {
  command -v "${CXX:-c++}" >/dev/null || echo g++
  command -v cmake >/dev/null || echo cmake
  command -v ninja >/dev/null || command -v make >/dev/null || echo ninja-build
  while read -r package header; do
    is_installed "$package" || has_header "$header" || echo "$package"
  done <<END
libeigen3-dev eigen3/Eigen/Core
libfmt-dev fmt/core.h
nlohmann-json3-dev nlohmann/json.hpp
libcli11-dev CLI/CLI.hpp
zlib1g-dev zlib.h
doctest-dev doctest/doctest.h
END
}

# What makes more possible but is not needed: the text kjv, and the packages asked for.
missing_extras() {
  bible_is_there || echo "bible-kjv bible-kjv-text"
  for package in "$@"; do
    is_installed "$package" || command -v "$package" >/dev/null || echo "$package"
  done
}

apt_get() {
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0 "$@"
}

# Installs what is missing; fails with the list of what is needed and could not be installed.
set_up() {
  needed=$(missing_packages | tr '\n' ' ')
  extras=$(missing_extras "$@" | tr '\n' ' ')
  as_root=
  [ "$(id -u)" -eq 0 ] || as_root=sudo
  if [ -n "$needed$extras" ] && command -v apt-get >/dev/null &&
    { [ -z "$as_root" ] || command -v sudo >/dev/null; }; then
    echo "installing $needed$extras"
    set_up_log=$(mktemp)
    if ! { apt_get update && apt_get install --no-install-recommends $needed $extras; } \
      </dev/null >"$set_up_log" 2>&1; then
      # One that cannot be had must not keep the others away.
      for package in $needed $extras; do
        apt_get install --no-install-recommends "$package" </dev/null >"$set_up_log" 2>&1 ||
          tail -n 5 "$set_up_log" >&2
      done
    fi
    rm -f "$set_up_log"
    needed=$(missing_packages | tr '\n' ' ')
    extras=$(missing_extras "$@" | tr '\n' ' ')
  fi
  if [ -n "$needed" ]; then
    echo "missing, please install (names of the Debian packages): $needed" >&2
    return 1
  fi
  if ! cmake --version | awk 'NR == 1 { split($3, v, "."); exit !(v[1] > 3 || v[2] >= 25) }'; then
    echo "missing: CMake 3.25 or newer; this is $(cmake --version | head -n 1)" >&2
    return 1
  fi
  [ -z "$extras" ] || echo "not installed, going on without: $extras"
}

case $0 in
  *setup.sh)
    set -eu
    set_up "$@"
    ;;
esac
