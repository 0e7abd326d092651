#!/bin/sh
# Memformer.cpp against PyTorch: the same job in turn, each in its own process, and the ratios.
#   sh tests/benchmarks/against_torch.sh [OPTION...]
#     --python PATH    a Python with torch; may be given several times (default: python3, and those
#                      that peers.sh installed)
#     --program PATH   default: build/release/memformer/memformer
#     --case CASE      d256 (default), d512, tiny: training steps; generate; kernels; or all
#     --mode MODE      bptt, mrbp, checkpointed or all (default): of the training steps
#     --threads N      1 (default) or 2
#     --pairs N        default 5
#     --segments N, --steps N, --seconds S: other sizes than the case's; --others CORES, --patience S:
#     what others may use of the machine meanwhile, and how long to wait for them; --out FOLDER
# JSON files go to out/benchmarks. Exit code 77: there is no Python with torch here.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/../.."

program=build/release/memformer/memformer
pythons=
options=
# quoted WORD: so that eval gives it back as one word
quoted() {
  printf "'%s' " "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"
}
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "$0"
      exit 0
      ;;
    --python | --program | --case | --mode | --threads | --pairs | --segments | --steps | --seconds | \
      --others | --patience | --out)
      if [ $# -lt 2 ]; then
        echo "against_torch: $1 needs a value" >&2
        exit 2
      fi
      case $1 in
        --python) pythons="$pythons$(quoted "$2")" ;;
        --program) program=$2 ;;
        *) options="$options$1 $(quoted "$2")" ;;
      esac
      shift 2
      ;;
    *)
      echo "against_torch: unknown option $1; see --help" >&2
      exit 2
      ;;
  esac
done
if [ ! -x "$program" ]; then
  echo "against_torch: there is no $program; build it (cmake --preset release &&" \
    "cmake --build --preset release), or name it with --program" >&2
  exit 1
fi

asked=${pythons:+yes}
if [ -z "$asked" ]; then
  for python in python3 build/peers/debian build/peers/newest/bin/python; do
    [ "$python" = python3 ] || [ -x "$python" ] || continue
    pythons="$pythons$(quoted "$python")"
  done
fi
eval "set -- $pythons"
arguments=
first=
for python; do
  if "$python" -c 'import torch' 2>/dev/null; then
    first=${first:-$python}
    arguments="$arguments--python $(quoted "$python")"
  elif [ -n "$asked" ]; then
    echo "SKIPPED: $python has no torch; sh tests/benchmarks/peers.sh installs it" >&2
    exit 77
  fi
done
if [ -z "$first" ]; then
  echo "SKIPPED: there is no Python with torch; sh tests/benchmarks/peers.sh installs it" >&2
  exit 77
fi
eval "exec $(quoted "$first") tests/benchmarks/ratios.py --program $(quoted "$program") $arguments $options"
