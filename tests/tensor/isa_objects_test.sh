#!/bin/sh
# The library runs on any x86-64 processor until it chooses an instruction set: no function outside
# mf::cpu_kernels::{avx2,avx512} may use what only newer processors have. An inline function compiled
# for AVX in one file would be linked into all the others.
# Usage: isa_objects_test.sh LIBRARY SANITIZERS; exit code 77: not checked.
set -u
library=$1
sanitizers=$2
skip() {
  echo "SKIPPED: $*"
  exit 77
}
command -v objdump > /dev/null || skip "there is no objdump"
[ -z "$sanitizers" ] || skip "under sanitizers, which add functions of their own"
case $(uname -m) in x86_64 | amd64) ;; *) skip "not an x86-64 processor" ;; esac

list=$(mktemp)
trap 'rm -f "$list"' EXIT
# Per function: its name, and its first instruction with a VEX or EVEX prefix, if there is one. Those
# are the mnemonics that begin with v, and a few of BMI that do not.
objdump -d --no-show-raw-insn "$library" | awk '
  /^[0-9a-f]+ <.*>:$/ {
    if (name != "") print name, found
    name = $2
    gsub(/[<>:]/, "", name)
    found = ""
    next
  }
  found == "" && (/\t *v[a-z0-9]+( |$)/ || /%[yz]mm/ || /\t(andn|bextr|bls[ir]|blsmsk|bzhi|mulx|pdep|pext|rorx|sarx|shlx|shrx) /) {
    found = $0
    gsub(/[ \t]+/, " ", found)
  }
  END { print name, found }' > "$list"

failures=0
fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

functions=$(wc -l < "$list")
[ "$functions" -gt 1000 ] || fail "only $functions functions were found in $library"
outside=$(awk 'NF > 1 && $1 !~ /cpu_kernels(4avx2|6avx512)/' "$list")
[ -z "$outside" ] || fail "outside the two namespaces:
$outside"

# Controls: what is looked for is there, and would be seen.
for namespace in 4avx2 6avx512; do
  count=$(grep "cpu_kernels$namespace" "$list" | awk 'NF > 1' | wc -l)
  echo "$count functions of $namespace use VEX"
  [ "$count" -gt 100 ] || fail "only $count functions of $namespace use VEX"
done
portable=$(grep -c "cpu_kernels8portable" "$list")
[ "$portable" -gt 100 ] || fail "only $portable functions of the portable set were looked at"
echo "$functions functions looked at"
exit "$failures"
