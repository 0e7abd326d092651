#!/bin/sh
# Compiles every kernel for each architecture of the default build, with warnings as errors and
# neither spilled registers nor local memory, and compares registers and shared memory of each with
# registers.txt, which must not grow unnoticed.
#   sh tests/cuda/gate.sh            checks; exit 77 where there is no nvcc
#   sh tests/cuda/gate.sh --update   writes registers.txt
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/../.."

nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
if ! [ -x "$nvcc" ]; then
  echo "skipped: no nvcc; install the CUDA toolkit, or set NVCC"
  exit 77
fi
expected=tests/cuda/registers.txt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# One file; its name without the ending comes as $1.
cat >"$work/compile.sh" <<END
exec "$nvcc" -std=c++20 -O3 -I. --options-file=cuda/nvcc.options \\
  -Werror all-warnings,cross-execution-space-call,default-stream-launch,reorder \\
  -Xptxas -v,-warn-spills,-warn-lmem-usage,-Werror \\
  -gencode arch=compute_75,code=sm_75 -gencode arch=compute_80,code=sm_80 \\
  -gencode arch=compute_90,code=[sm_90,compute_90] \\
  -MD -MF "$work/\$1.d" -c "cuda/\$1.cu" -o "$work/\$1.o" >"$work/\$1.log" 2>&1
END
for file in cuda/*.cu; do basename "$file" .cu; done >"$work/names"
jobs=$(nproc 2>/dev/null || echo 2)
if ! xargs -n 1 -P "$jobs" sh "$work/compile.sh" <"$work/names"; then
  echo "failed: a kernel does not compile cleanly" >&2
  grep -hE 'error|warning|fatal' "$work"/*.log >&2 || tail -n 20 "$work"/*.log >&2
  exit 1
fi
if grep -il eigen "$work"/*.d; then
  echo "failed: Eigen's headers reach nvcc" >&2
  exit 1
fi

# "kernel: sm_75 registers, sm_80 .., sm_90 .., shared bytes", sorted by kernel.
awk '
  /Compiling entry function/ { split($0, part, "\047"); kernel = part[2]; chip = part[4] }
  /Used [0-9]+ registers/ {
    match($0, /Used [0-9]+/)
    registers[kernel, chip] = substr($0, RSTART + 5, RLENGTH - 5)
    bytes = match($0, /[0-9]+ bytes smem/) ? substr($0, RSTART, RLENGTH) + 0 : 0
    if (bytes > shared[kernel] + 0) shared[kernel] = bytes
    seen[kernel] = 1
  }
  END {
    for (kernel in seen)
      print kernel, registers[kernel, "sm_75"], registers[kernel, "sm_80"], \
            registers[kernel, "sm_90"], shared[kernel] + 0
  }' "$work"/*.log | c++filt |
  sed -E 's/^void //; s/\([^()]*\)( [0-9 ]+)$/:\1/' | LC_ALL=C sort >"$work/found"
if ! [ -s "$work/found" ] || grep -v '^mf::cuda::device::' "$work/found" >&2; then
  echo "failed: kernels belong into namespace mf::cuda::device" >&2
  exit 1
fi
sed -i 's/mf::cuda::device:://g; s/ >/>/g' "$work/found"
{
  echo "# kernel: registers on sm_75, sm_80, sm_90, then bytes of shared memory; written by"
  echo "# gate.sh --update with $("$nvcc" --version | grep -o 'release .*')"
  cat "$work/found"
} >"$work/table"

if [ "${1:-}" = --update ]; then
  cp "$work/table" "$expected"
  echo "$(wc -l <"$work/found") kernels written to $expected"
  exit 0
fi
awk -F ': ' '
  /^#/ { next }
  FNR == NR { old[$1] = $2; next }
  !($1 in old) { print "not in the table: " $0; bad = 1; next }
  {
    split(old[$1], was, " "); split($2, is, " ")
    grew = shrank = 0
    for (i = 1; i <= 4; i++) {
      if (is[i] + 0 > was[i] + 0) grew = bad = 1
      if (is[i] + 0 < was[i] + 0) shrank = 1
    }
    if (grew) print "grew: " $1 ": " old[$1] " -> " $2
    else if (shrank) print "shrank, update the table: " $1 ": " old[$1] " -> " $2
    delete old[$1]
  }
  END {
    for (kernel in old) { print "gone: " kernel; bad = 1 }
    exit bad
  }' "$expected" "$work/table" || {
  echo "failed: compare the above with $expected; gate.sh --update writes what is so now" >&2
  exit 1
}
echo "$(wc -l <"$work/found") kernels, 3 architectures: no warning, no spill, no local memory, none grew"
