#!/bin/sh
# What a machine has and how it is: one POSIX sh file; needs no root, no Python and no GPU tools.
#
# It is run from its stdin: sh -s -- [load=SECONDS] [download=URL] [limit=SECONDS]. It prints sections: a line
# "#NAME STATUS", then what a tool printed, each line behind a blank. The status is that of the tool, 127 when
# it is not there, and 124 when it was given up. A tool that is missing, fails or hangs ends only its section.
#
# shellcheck disable=SC2016  # meant: these are for inner shells
set -u
umask 077
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin:/usr/local/nvidia/bin:/usr/lib/wsl/lib:/usr/local/cuda/bin:/opt/rocm/bin

# Those that some version of nvidia-smi does not know are left out; the name is last, as it may hold a comma.
FIELDS=index,uuid,pci.bus_id,driver_version,memory.total,pcie.link.width.current,pcie.link.width.max
FIELDS=$FIELDS,pcie.link.gen.max,clocks.sm,clocks.max.sm,ecc.errors.uncorrected.volatile.total
FIELDS=$FIELDS,ecc.errors.uncorrected.aggregate.total,temperature.gpu,utilization.gpu,name
# The reasons have one name in old drivers and another in new ones.
SAMPLE=index,clocks.sm,clocks_throttle_reasons.active,clocks_event_reasons.active

# Multiplies matrices on every GPU for so many seconds, and says when it has begun.
LOAD='
import sys, time
import torch
fields = [torch.rand(4096, 4096, device=f"cuda:{n}").half() for n in range(torch.cuda.device_count())]
open(sys.argv[2], "w").close()
end = time.monotonic() + float(sys.argv[1])
while fields and time.monotonic() < end:
    for field in fields:
        for _ in range(10):
            field @ field
    for n in range(len(fields)):
        torch.cuda.synchronize(n)
'

# Passes on at most a GiB of what "$@" fetches within 15 seconds, counts it, and writes its status to "$0".
FETCH='
{
  "$@" &
  fetcher=$!
  (
    n=0
    while kill -0 "$fetcher" && [ "$n" -lt 150 ]; do sleep 0.1 || exit; n=$((n + 1)); done
    kill "$fetcher"
  ) >/dev/null 2>&1 &
  wait "$fetcher"
  echo $? >&3
} 3>"$0" | head -c 1073741824 | wc -c'

nap() { sleep 0.05 2>/dev/null || sleep 1; }

# Hundredths of a second since boot where the system tells them.
ticks() {
  if { read -r uptime _ </proc/uptime; } 2>/dev/null; then
    echo "${uptime%.*}${uptime#*.}"
  else
    echo "$(date +%s)00"
  fi
}

# begin COMMAND...: starts it; what it prints and its status go to files. A pipe would hold us up for as long
# as a tool that hangs in its driver, and which no signal ends.
begin() {
  started=$((started + 1))
  out=$dir/$started
  # shellcheck disable=SC2086  # it may be no word at all
  $session sh -c '"$@" >"$0" 2>&1; echo $? >"$0.status"' "$out" "$@" </dev/null >/dev/null 2>&1 &
  pid=$!
}

# finish SECONDS: waits so long at most for what was begun last, sets "status", and kills what is left.
finish() {
  end=$(($(ticks) + $1 * 100))
  [ "$end" -le "$deadline" ] || end=$deadline
  while [ ! -s "$out.status" ] && [ "$(ticks)" -lt "$end" ]; do nap; done
  { read -r status <"$out.status"; } 2>/dev/null && return
  status=124
  kill -KILL "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null
}

# attempt SECONDS COMMAND...: runs it to its end, for so long at most.
attempt() {
  if command -v "$2" >/dev/null 2>&1; then
    most=$1
    shift
    begin "$@"
    finish "$most"
  else
    out=$dir/nothing
    status=127
  fi
}

# tell NAME: the section of what was attempted last.
tell() {
  echo "#$1 $status"
  [ ! -s "$out" ] || { head -c 200000 "$out" | sed 's/^/ /' && echo; }
}

# ask NAME FIELDS: what nvidia-smi says to these fields, without those that it does not know.
ask() {
  fields=$2
  while :; do
    attempt "$limit" nvidia-smi "--query-gpu=$fields" --format=csv,noheader,nounits
    [ "$status" -ne 0 ] && [ "$status" -ne 124 ] || break
    unknown=$(sed -n 's/^Field "\([a-z_.]*\)" is not a valid field to query.*/\1/p' "$out" | head -n 1)
    known=$(echo ",$fields," | sed "s/,$unknown,/,/; s/^,//; s/,\$//")
    [ -n "$unknown" ] && [ -n "$known" ] && [ "$known" != "$fields" ] || break
    fields=$known
  done
  printf '#%s.fields 0\n %s\n' "$1" "$fields"
  tell "$1"
}

machine() {
  echo "kernel=$(uname -srm)"
  echo "cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || nproc)"
  sed -n 's/^MemTotal: *\([0-9]*\) kB/memory_kib=\1/p' /proc/meminfo
}

# The CUDA that the image was made with. What a container was started with is known to its first process.
image_cuda() {
  echo "CUDA_VERSION=${CUDA_VERSION:-}"
  { tr '\0' '\n' </proc/1/environ | grep '^CUDA_VERSION='; } 2>/dev/null
  head -n 8 /usr/local/cuda/version.json /usr/local/cuda/version.txt 2>/dev/null
}

# load SECONDS: how fast the GPUs' clocks run while all are at work, if anything here can make them work.
load() {
  command -v python3 >/dev/null 2>&1 || { echo "#load 127" && return; }
  begin python3 -c "$LOAD" "$1" "$dir/loaded"
  work=$out worker=$pid
  # To import torch takes a while.
  last=$(($(ticks) + 3000))
  while [ ! -e "$dir/loaded" ] && [ ! -s "$work.status" ] && [ "$(ticks)" -lt "$last" ]; do nap; done
  last=$(($(ticks) + $1 * 100))
  [ ! -e "$dir/loaded" ] || sleep 1
  while [ -e "$dir/loaded" ] && [ ! -s "$work.status" ] && [ "$(ticks)" -lt "$last" ]; do
    ask load.sample "$SAMPLE"
    SAMPLE=$fields
    nap
  done
  out=$work pid=$worker
  finish 5
  tell load
}

# download URL: how much comes within a few seconds.
download() {
  if command -v curl >/dev/null 2>&1; then
    set -- curl -fsSL -- "$1"
  elif command -v wget >/dev/null 2>&1; then
    set -- wget -q -O - -- "$1"
  else
    echo "#download 127"
    return
  fi
  before=$(ticks)
  attempt 20 sh -c "$FETCH" "$dir/fetched" "$@"
  { [ "$status" -ne 0 ] || read -r status <"$dir/fetched"; } 2>/dev/null
  echo "hundredths=$(($(ticks) - before))" >>"$out"
  tell download
}

seconds='' url='' limit=20
for argument; do
  case $argument in
    load=*) seconds=${argument#*=} ;;
    download=*) url=${argument#*=} ;;
    limit=*) limit=${argument#*=} ;;
    *) echo "check.sh knows no '$argument'" >&2 && exit 64 ;;
  esac
done

brief=$limit
[ "$brief" -le 5 ] || brief=5

for place in "${TMPDIR:-/tmp}" /dev/shm "${HOME:-.}"; do
  dir=$place/gpucloud-check.$$
  ! mkdir "$dir" 2>/dev/null || break
  dir=
done
[ -n "$dir" ] || { echo "no file can be written on this machine" >&2 && exit 1; }
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM PIPE
: >"$dir/nothing"
session=$(command -v setsid) || session=
started=0
deadline=$(($(ticks) + 5000))

echo "#gpucloud-check 1"
out=$dir/machine status=0
machine >"$out" 2>/dev/null
tell machine
attempt "$brief" df -Pk "${HOME:-.}"
tell disk
out=$dir/cuda status=0
image_cuda >"$out"
tell cuda
attempt "$brief" nvcc --version
tell nvcc

ask nvidia-smi "$FIELDS"
smi=$status
# One that hangs or is not there does so again.
case $smi in
  124 | 127) ;;
  *)
    attempt "$limit" nvidia-smi
    tell nvidia-smi.table
    ;;
esac
attempt "$limit" rocm-smi --showproductname --showmeminfo vram --showdriverversion --json
tell rocm-smi
if [ "$status" -ne 0 ]; then
  attempt "$limit" amd-smi static --asic --vram --driver --json
  tell amd-smi
fi
attempt "$brief" dmesg
if [ "$status" -eq 0 ]; then
  grep 'NVRM: Xid' "$out" | tail -n 100 >"$dir/xid"
  out=$dir/xid
fi
tell dmesg

if [ -n "$seconds" ]; then
  deadline=$((deadline + 3500 + seconds * 100))
  if [ "$smi" -eq 0 ]; then load "$seconds"; else echo "#load 127"; fi
fi
if [ -n "$url" ]; then
  deadline=$(($(ticks) + 2500))
  download "$url"
fi
echo "#end 0"
