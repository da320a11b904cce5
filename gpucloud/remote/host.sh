#!/bin/sh
# The on-host program of gpucloud: one POSIX sh file; needs no root, no Python and no service manager.
#
# shellcheck disable=SC2015,SC2016,SC2329  # meant: "a && b || fail", "$x" for inner scripts, calls by name
#
# It lives in a folder of its own, ROOT, and writes nowhere else unless told to:
#   ROOT/work          the pushed files; jobs start here
#   ROOT/jobs/ID/      setup, run, env   what to do; env goes once read, a setup that succeeded is renamed
#                      log               all that the job prints; only ever appended to
#                      times             "SECONDS BYTES" lines: how long the log was at what time
#                      supervisor, pid   who waits for the job, and who leads its processes
#                      cancelled, notice, expired     why it was told to end
#                      exit              "PHASE STATUS SECONDS", written once, when the job is over
#   ROOT/lease         when everything here must end, in the seconds of "clock"
#   ROOT/idle          "SECONDS SINCE PORT": the limit, since when it counts, and where sessions come in
#   ROOT/busy          "WHEN WHY": when it was last busy; what keeps it so now: job, ssh, gpu, start or none
#   ROOT/over          why it is to end: "lease", "idle SECONDS" or none
#   ROOT/notice        is there once the provider has announced that it takes the machine back
#   ROOT/warning       is there once the provider has advised to leave the machine
#   ROOT/claim         who uses the machine, where several may
#   ROOT/gpu.csv       GPU use over time, where nvidia-smi is there
#   ROOT/sent/         what was pushed last, as the client wrote it
set -u
umask 077

ROOT=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P) || exit 1
GRACE=30
# A GPU is in use from so many per cent on.
GPU_PERCENT=5

fail() {
  printf 'gpucloud: %s\n' "$1" >&2
  exit "${2:-1}"
}

nap() { sleep 0.2 2>/dev/null || sleep 1; }
now() { date +%s; }

# Seconds for deadlines: since boot where the system tells them, as somebody may set the time of day.
clock() { if { read -r uptime _ </proc/uptime; } 2>/dev/null; then echo "${uptime%.*}"; else now; fi; }

# put NAME: writes stdin to a file of ours, of which nobody ever sees a part.
put() {
  cat >"$ROOT/$1.$$" && mv "$ROOT/$1.$$" "$ROOT/$1" && return
  rm -f "$ROOT/$1.$$"
  fail "$ROOT/$1 cannot be written"
}

# drop FILE...: some rm complain of a file that somebody else has just removed, but not of one that is gone.
drop() { rm -f "$@" 2>/dev/null || rm -f "$@"; }

# -- processes --------------------------------------------------------------------------------------

# field N PID: the Nth word behind the name in Linux's /proc/PID/stat; nothing for a zombie, nor elsewhere.
field() {
  { read -r line <"/proc/$2/stat"; } 2>/dev/null || return 0
  n=$1
  # shellcheck disable=SC2086  # it is split on purpose
  set -- ${line##*) }
  [ "$1" != Z ] || return 0
  shift $((n - 1))
  echo "$1"
}

# This process as "NUMBER START": after a reboot the number alone may mean somebody else.
identity() { echo "$$ $(field 20 "$$")"; }

# Whether the process whose identity is in a file is alive; in many containers nobody collects the dead.
alive() {
  { read -r number begun <"$1"; } 2>/dev/null && [ -n "$number" ] && kill -0 "$number" 2>/dev/null &&
    [ "$(field 20 "$number")" = "$begun" ]
}

# Whether anything of a process group is alive.
populated() {
  [ -n "$1" ] && kill -0 "-$1" 2>/dev/null || return 1
  [ -e "/proc/$$/stat" ] || return 0
  for file in /proc/[0-9]*/stat; do
    { read -r line <"$file"; } 2>/dev/null || continue
    # shellcheck disable=SC2086
    set -- "$1" ${line##*) }
    [ "$4" != "$1" ] || [ "$2" = Z ] || return 0
  done
  return 1
}

# Becomes "$@" in a session of its own: no hang-up reaches it, and one signal reaches all it starts.
new_session() {
  if command -v setsid >/dev/null 2>&1; then
    exec setsid "$@"
  elif command -v perl >/dev/null 2>&1; then
    exec perl -e 'use POSIX; POSIX::setsid(); exec { $ARGV[0] } @ARGV or exit 127' -- "$@"
  elif command -v python3 >/dev/null 2>&1; then
    # Python ignores SIGPIPE, and so would all that it becomes.
    exec python3 -c 'import os, signal, sys; signal.signal(signal.SIGPIPE, signal.SIG_DFL); os.setsid()
os.execvp(sys.argv[1], sys.argv[1:])' "$@"
  fi
  fail "this host has neither setsid nor perl nor python3, so no job can be detached"
}

# detach COMMAND...: starts it in the background; returns once it has closed its output, safe from our end.
# What goes on without us is no SSH session any more.
detach() {
  : "$(
    unset SSH_CONNECTION SSH_CLIENT SSH_TTY
    (new_session sh "$ROOT/host.sh" "$@") </dev/null 2>/dev/null &
  )"
}

# -- the machine ------------------------------------------------------------------------------------

# init SLOTS CLAIM NOTICE_PROBE AT_END: takes the machine for us and says where we live on it.
init() {
  (new_session true) || exit 1
  command -v tar >/dev/null 2>&1 || fail "this host has no tar, so no files can be brought over"
  [ "$1" -eq 0 ] || claim "$1" "$2"
  mkdir -p "$ROOT/jobs" "$ROOT/work" "$ROOT/sent" || fail "$ROOT cannot be written"
  [ -z "$3" ] || printf '%s\n' "$3" | put notice-probe || exit
  [ -z "$4" ] || printf '%s\n' "$4" | put at-end || exit
  if ! alive "$ROOT/watch.pid"; then
    # These are from before a reboot; whoever takes the machine sets its limits next.
    drop "$ROOT/lease" "$ROOT/notice" "$ROOT/warning" "$ROOT/idle" "$ROOT/busy" "$ROOT/over"
    detach watch
    # One that sees that another has come after it goes, perhaps while we look at it.
    alive "$ROOT/watch.pid" || { nap && alive "$ROOT/watch.pid"; } ||
      fail "nothing can be started in the background, or $ROOT cannot be written"
  fi
  printf 'protocol=1\nroot=%s\n' "$ROOT"
}

# claim SLOTS TEXT: several gpucloud installations may know one machine, so who uses it is settled on the
# machine. Each says that it is claiming before it looks at the others; of two that come at once, one at least
# sees the other, so never too many get in. Whoever sees too many gives way, but for the first by name.
claim() {
  tries=0
  until [ -f "$ROOT/claim" ]; do
    alive "$ROOT/claiming" || identity | put claiming || exit
    taken=0 rivals=0 before=0 holders=
    for other in "$(dirname "$ROOT")"/*; do
      if [ "$other" = "$ROOT" ]; then
        before=$rivals
      elif alive "$other/claiming"; then
        rivals=$((rivals + 1))
      # Looked for last, as it is there before the other goes.
      elif [ -f "$other/claim" ]; then
        taken=$((taken + 1))
        holders="${holders:+$holders, }$(cat "$other/claim")"
      fi
    done
    if [ "$taken" -ge "$1" ] || [ "$tries" -ge 100 ]; then
      drop "$ROOT/claiming"
      [ -d "$ROOT/jobs" ] || rm -rf "$ROOT"
      fail "taken by ${holders:-others who came at the same time}" 75
    elif [ $((taken + rivals)) -lt "$1" ]; then
      printf '%s\n' "$2" | put claim || exit
    else
      [ $((taken + before)) -lt "$1" ] || drop "$ROOT/claiming"
      tries=$((tries + 1))
      nap
    fi
  done
  drop "$ROOT/claiming"
}

# lease SECONDS: everything here ends in so many seconds; "none" takes the limit away.
lease() {
  if [ "$1" = none ]; then drop "$ROOT/lease"; else echo "$(($(clock) + $1))" | put lease || exit; fi
  lift lease
}

due() { { read -r end <"$ROOT/lease"; } 2>/dev/null && [ "$(clock)" -ge "$end" ]; }

# idle SECONDS: the machine ends when it has been idle for so long from now on; "none" takes the limit away.
idle() {
  if [ "$1" = none ]; then drop "$ROOT/idle"; else echo "$1 $(clock) $(port)" | put idle || exit; fi
  lift idle
}

# vitals: what is known of the limits and of what keeps the machine busy, as key=value lines.
vitals() {
  alive "$ROOT/watch.pid" && read -r last busy <"$ROOT/busy" && read -r over _ <"$ROOT/over" ||
    fail "the watch over this machine has ended, as it does when the machine restarts"
  jobs=$(count_jobs)
  # The watch may not have seen yet what has just begun.
  [ "$jobs" -eq 0 ] || last=$(clock) busy=job
  ! { read -r end <"$ROOT/lease"; } 2>/dev/null && left=none || left=$((end > $(clock) ? end - $(clock) : 0))
  read_idle || { limit=none since=0 && port=$(port); }
  printf 'lease_left=%s\nidle_limit=%s\nidle_for=%s\n' "$left" "$limit" "$(idle_for)"
  [ "$port" = unknown ] || port=known
  printf 'busy=%s\nsessions=%s\nover=%s\njobs=%s\n' "$busy" "$port" "$over" "$jobs"
}

# Watches over limits, notice and GPUs for as long as our folder is there and no other watch has taken over.
# Each has a loop of its own: nvidia-smi hangs when the driver does, so may whoever looks at other processes,
# and the lease must end all the same.
watch() {
  trap '' HUP
  self=$(identity)
  # Without /proc it ends in a blank, which "read" leaves out.
  self=${self% }
  last=$(clock) noted=
  printf '%-32s\n' "$last start" | put busy && printf '%-32s\n' none | put over &&
    echo "$self" | put watch.pid || exit
  exec >/dev/null
  while on_watch; do sample; sleep 10; done &
  while on_watch; do heed_notice; sleep 1; done &
  while on_watch; do heed_idle; sleep 1; done &
  while on_watch; do heed_end; sleep 1; done
}

on_watch() { read -r owner <"$ROOT/watch.pid" && [ "$owner" = "$self" ]; }

# Ends what the lease or idleness is to end; only this does, so that it is done once.
heed_end() {
  if due; then
    says lease || tell over lease
    stop_jobs "$GRACE" expired
  else
    lift lease
    # A job that has begun since the machine was found idle goes on.
    says idle && [ "$(count_jobs)" -eq 0 ] || return 0
  fi
  [ -f "$ROOT/at-end" ] || return 0
  if sh "$ROOT/at-end"; then rm -f "$ROOT/at-end"; else sleep 10; fi
}

# Whether the machine is to end for that reason.
says() { { read -r over _ <"$ROOT/over"; } 2>/dev/null && [ "$over" = "$1" ]; }

# It is not to end for that reason any more.
lift() { ! says "$1" || tell over none; }

# tell NAME TEXT: for busy and over, which have room for 32 characters.
tell() { note "$ROOT/$1" "$(printf '%-32s' "$2")"; }

# The probe succeeds once the machine is taken back, and ends with 3 while its provider only advises to leave.
heed_notice() {
  [ -f "$ROOT/notice-probe" ] && [ ! -e "$ROOT/notice" ] || return 0
  sh "$ROOT/notice-probe"
  case $? in
    0) : >"$ROOT/notice" && signal_jobs TERM notice ;;
    3) [ -e "$ROOT/warning" ] || warn ;;
  esac
}

# Tells the jobs that are going, which go on.
warn() {
  : >"$ROOT/warning"
  for job in "$ROOT"/jobs/*; do
    ! going "${job##*/}" || echo "gpucloud: the provider may soon take this machine back" >>"$job/log"
  done
}

sample() {
  command -v nvidia-smi >/dev/null 2>&1 || return 0
  # What it prints when it fails is no sample.
  report=$(nvidia-smi --format=csv,noheader,nounits \
    --query-gpu=index,utilization.gpu,memory.used,memory.total,power.draw,temperature.gpu) || return 0
  printf '%s\n' "$report" | sed "s/^/$(now), /" >>"$ROOT/gpu.csv"
  # A sample is some 40 bytes: 8 MB are more than a fortnight of one GPU, and two such files are kept.
  [ "$(wc -c <"$ROOT/gpu.csv")" -lt 8000000 ] || mv "$ROOT/gpu.csv" "$ROOT/gpu.csv.1"
}

# -- idleness ---------------------------------------------------------------------------------------

# Notes when the machine was last busy, and whether it has been idle for the limit.
heed_idle() {
  ! in_use || last=$(clock)
  [ "$last $use" = "$noted" ] || { noted="$last $use" && tell busy "$noted"; }
  # Not to know of sessions must not end a machine that somebody uses.
  if [ "$use" = none ] && read_idle && [ "$port" != unknown ] && [ "$(idle_for)" -ge "$limit" ]; then
    ! says none || tell over "idle $limit"
  else
    lift idle
  fi
}

read_idle() { { read -r limit since port <"$ROOT/idle"; } 2>/dev/null; }

# Seconds since it was last busy or since its limit was set, whichever is later.
idle_for() {
  from=$last
  [ "$from" -ge "$since" ] || from=$since
  echo "$(($(clock) - from))"
}

in_use() {
  if [ "$(count_jobs)" -gt 0 ]; then
    use=job
  elif attended; then
    use=ssh
  elif computing; then
    use=gpu
  else
    use=none
    return 1
  fi
}

count_jobs() {
  count=0
  for job in "$ROOT"/jobs/*; do ! going "${job##*/}" || count=$((count + 1)); done
  echo "$count"
}

# At which port the client's own session comes in, if that can be seen: there is no /proc everywhere, and what
# comes in through a proxy may not look like a session. Those of another server here are not for this machine.
port() {
  { tr '\0' '\n' <"/proc/$$/environ" | sed -n 's/^SSH_CONNECTION=.* //p' | grep .; } 2>/dev/null ||
    echo unknown
}

# Whether this user has an SSH session, or anything goes on that was started in one.
attended() {
  for process in $(of_sessions); do asks "$process" || return 0; done
  return 1
}

# The numbers of all processes that have sshd's variable; tail puts their names above the contents.
of_sessions() {
  read_idle && [ "$port" != unknown ] && port=" $port" || port=
  printf '%s\0' /proc/[0-9]*/environ | xargs -0 tail -c +1 /dev/null 2>/dev/null | tr '\0' '\n' |
    sed -n -e '/^==> .*environ <==$/h' -e "/^SSH_CONNECTION=.*$port\$/{g;s/[^0-9]//g;p;}"
}

# Whether a process is part of a session that only asks for vitals, or has ended meanwhile: asking must not
# keep a machine busy. From its login shell on such a session names the command in arguments or environment.
asks() {
  ancestor=$1
  while [ "${ancestor:-0}" -gt 1 ]; do
    words=$(cat "/proc/$ancestor/cmdline" "/proc/$ancestor/environ" 2>/dev/null | tr '\0' ' ')
    case $words in *host.sh\ vitals*) return 0 ;; esac
    ancestor=$(field 2 "$ancestor")
  done
  [ -z "$(field 2 "$1")" ]
}

# Whether a GPU was in use at the last sample; how it is a minute later is not known.
computing() {
  tail -c 4096 "$ROOT/gpu.csv" | {
    sampled=0 high=
    while IFS=', ' read -r at _ percent _; do
      [ "$at" = "$sampled" ] || high=
      sampled=$at
      # It is no number where it cannot be measured.
      [ "$percent" -ge "$GPU_PERCENT" ] && high=yes
    done
    time=$(now)
    [ -n "$high" ] && [ "$sampled" -ge $((time - 60)) ] && [ "$sampled" -le "$time" ]
  }
} 2>/dev/null

# clean: ends every job and removes our folder.
clean() {
  stop_jobs 5 cancelled
  ! alive "$ROOT/watch.pid" || kill -KILL "-$number" 2>/dev/null
  cd / || exit 1
  # What was killed may have written until now.
  rm -rf "$ROOT" 2>/dev/null || { nap && rm -rf "$ROOT"; }
}

# -- jobs -------------------------------------------------------------------------------------------

# Whoever starts a job hands it to its supervisor, once, perhaps after we have read who has it.
going() {
  [ ! -e "$ROOT/jobs/$1/exit" ] &&
    { alive "$ROOT/jobs/$1/supervisor" || alive "$ROOT/jobs/$1/pid" || alive "$ROOT/jobs/$1/supervisor"; }
}

# Whether it was told to end.
marked() { [ -e "$1/cancelled" ] || [ -e "$1/notice" ] || [ -e "$1/expired" ]; }

phase() { if [ -e "$1/setup" ]; then echo setup; else echo run; fi; }

# start ID: reads a tar with run, env and maybe setup, and starts the job. A repeated start starts nothing.
start() {
  job=$ROOT/jobs/$1
  new=$ROOT/jobs/.$1.$$
  nested=$job/.$1.$$
  trap '' HUP
  trap 'rm -rf "$new" "$nested"' EXIT
  mkdir -p "$new" && cat >"$new/tar" && whole "$new/tar" && tar -xf "$new/tar" -C "$new" && rm "$new/tar" &&
    [ -f "$new/run" ] && [ -f "$new/env" ] && prepare "$new" || fail "the job could not be written to $new"
  # The whole job appears at once. Of two starts at the same time one fails, or lands inside the other's.
  if [ ! -d "$job" ] && mv "$new" "$job" 2>/dev/null && [ ! -d "$nested" ]; then
    detach supervise "$1"
  fi
  [ -d "$job" ] || fail "the job could not be written to $job"
  status "$1"
}

# Whether a tar has the zeros at its end: one that was cut off between two files would pass for a smaller one.
whole() { [ -s "$1" ] && [ -z "$(tail -c 1024 "$1" | tr -d '\0')" ]; }

# Makes the files that "note" will write to. Until there is a supervisor, whoever starts the job is named.
prepare() {
  printf '%-64s\n' "$(identity)" >"$1/supervisor" && printf '%64s\n' '' >"$1/pid" &&
    printf '%64s\n' '' >"$1/exit.new" && now >"$1/started" && : >"$1/log" && : >"$1/times"
}

# note FILE TEXT: writes into the room that a file has already, so that no full disk hinders it.
note() { printf '%s\n' "$2" 1<>"$1"; }

supervise() {
  job=$ROOT/jobs/$1
  trap '' HUP
  note "$job/supervisor" "$(identity)"
  exec >/dev/null
  noted=0 lines=0
  # It ends by itself when we are killed.
  while alive "$job/supervisor"; do note_time; sleep 1; done &
  clerk=$!
  (new_session sh "$ROOT/host.sh" perform "$1")
  code=$?
  read -r leader _ <"$job/pid"
  # Of a job that is told to end the script goes first, while what it has started may still save its work.
  while marked "$job" && populated "$leader"; do nap; done
  kill -KILL "$clerk" && wait "$clerk"
  note_time
  rm -f "$job/env"
  until note "$job/exit.new" "$(phase "$job") $code $(now)" && mv "$job/exit.new" "$job/exit"; do
    [ -d "$job" ] || exit
    nap
  done
  # As long as we are here, the number of the process group can only mean what the job has left running.
  while [ -d "$job" ] && populated "$leader"; do sleep 1; done
}

# Notes how long the log is now, if it has grown; without room for that its times stay unknown.
note_time() {
  size=$(wc -c <"$job/log") && [ "$size" -ne "$noted" ] || return 0
  noted=$size lines=$((lines + 1))
  echo "$(now) $size" >>"$job/times"
  [ "$lines" -lt 16384 ] || thin
} 2>/dev/null

# Keeps of the times those that are a second apart, or a thousandth of how long ago they were if that is more:
# some 9,000 of a month, and 11,000 of a year. The file never has more than 16,384 lines.
thin() {
  time=$(now) kept=0 lines=0
  while read -r at size; do
    # So many milliseconds after the one before would be near enough.
    [ $(((at - kept) * 1000)) -ge $((time - at)) ] || continue
    kept=$at lines=$((lines + 1))
    echo "$at $size"
  done <"$job/times" >"$job/times.new" && mv "$job/times.new" "$job/times"
}

# perform ID: leads the job's processes. It runs the scripts one after the other and ends with their status.
perform() {
  job=$ROOT/jobs/$1
  # Signals to the whole group are for the scripts; here they would hide how those end.
  trap : HUP INT QUIT USR1 USR2 ALRM TERM
  note "$job/pid" "$(identity)"
  for script in setup run; do
    [ -f "$job/$script" ] || continue
    (become "$job" "$script") </dev/null >>"$job/log" 2>&1 || exit
    [ "$script" = run ] || mv "$job/setup" "$job/setup.done"
  done
}

# Becomes one script of the job, which stops at the first command that fails.
become() {
  # Whoever tells a job to end leaves a mark first and then signals: we cannot miss both.
  [ ! -e "$ROOT/notice" ] || : >"$1/notice"
  ! due || : >"$1/expired"
  ! marked "$1" || exit 143
  umask 022
  cd "$ROOT/work" || exit 125
  environment=$(cat "$1/env") || exit 125
  [ "$2" = setup ] || rm -f "$1/env"
  shell=$(command -v bash) && set -- "$shell" -e -o pipefail "$1/$2" || set -- "$(command -v sh)" -e "$1/$2"
  # What sh starts in the background ignores these for good, and so would all of the job.
  ! env --default-signal=INT true 2>/dev/null || set -- "$(command -v env)" --default-signal=HUP,INT,QUIT "$@"
  GPUCLOUD_WARNING=$ROOT/warning && export GPUCLOUD_WARNING
  # From here on a variable of ours may be one of the job.
  eval "$environment"
  exec "$@"
}

# status ID: what is known of a job, as key=value lines.
status() {
  job=$ROOT/jobs/$1
  [ -d "$job" ] || { echo state=unknown && return; }
  # The exit comes second, as the job may end while we look.
  if going "$1"; then
    printf 'state=going\nphase=%s\n' "$(phase "$job")"
  elif [ -f "$job/exit" ]; then
    read -r phase code ended <"$job/exit"
    printf 'state=ended\nphase=%s\nexit=%s\nended=%s\n' "$phase" "$code" "$ended"
  else
    echo state=lost
  fi
  for mark in cancelled notice expired; do
    [ ! -e "$job/$mark" ] || echo "$mark=yes"
  done
  printf 'started=%s\nbytes=%s\n' "$(cat "$job/started")" "$(($(wc -c <"$job/log")))"
}

# Names the log of a job.
log_of() {
  [ -f "$ROOT/jobs/$1/log" ] || fail "there is no job $1 on this host" 3
  log=$ROOT/jobs/$1/log
}

length() { echo $(($(wc -c <"$log"))); }

# follow ID OFFSET: the log from that byte on, until the job is over; the client reads what is left.
follow() {
  log_of "$1"
  # tail counts from the end when there is less than it should skip.
  while going "$1" && connected && [ "$(length)" -lt "$2" ]; do nap; done
  going "$1" || exec tail -c "+$(($2 + 1))" "$log"
  # GNU's is told by the kernel, or else looks as often as it is asked to. Others may look but once a second.
  if tail --version 2>/dev/null | grep -q GNU; then
    tail -s 0.02 -c "+$(($2 + 1))" -f "$log" &
  else
    pour "$2" &
  fi
  tail=$!
  trap 'kill "$tail" 2>/dev/null' EXIT
  trap 'exit 0' HUP INT TERM PIPE
  while going "$1" && connected && kill -0 "$tail" 2>/dev/null; do nap; done
}

# pour OFFSET: the log from that byte on, for ever, where tail is too slow.
pour() {
  exec <"$log"
  dd bs=1 skip="$1" count=0 2>/dev/null
  while cat; do sleep 0.02 2>/dev/null || sleep 1; done
}

# Whether our parent is the first one still. No signal to that would tell, as it may be another user's.
connected() { [ ! -e "/proc/$$/stat" ] || [ "$(field 2 "$$")" = "$PPID" ]; }

# read ID OFFSET: the log from that byte on, as far as it goes now.
read_log() {
  log_of "$1"
  tail -c "+$(($2 + 1))" "$log"
}

# times ID: at what times the log had which length, and last what both are now. What has come since the last
# note was written just now, but only while somebody takes notes.
log_times() {
  log_of "$1"
  latest="$(now) $(length)"
  cat "$ROOT/jobs/$1/times" || return
  ! alive "$ROOT/jobs/$1/supervisor" || echo "$latest"
  echo "$latest"
}

# last ID LINES: where the last lines begin, and how many these are, as there may be fewer.
last() {
  log_of "$1"
  size=$(length) window=65536
  # What has no newline at its end yet is a line as well.
  [ "$size" -eq 0 ] && open=0 || open=$((1 - $(piece $((size - 1)) 1 | wc -l)))
  while :; do
    [ "$window" -lt "$size" ] || window=$size
    lines=$(($(piece $((size - window)) "$window" | wc -l) + open))
    # Of the first one there may be the end only.
    [ "$lines" -le "$2" ] && [ "$window" -lt "$size" ] || break
    window=$((window * 16))
  done
  [ "$lines" -gt "$2" ] && skipped=$((lines - $2)) || skipped=0
  left=$(piece $((size - window)) "$window" | tail -n "+$((skipped + 1))" | wc -c)
  echo "$((size - left)) $((lines - skipped))"
}

# since ID SECONDS: where the line begins that was the first to be written within the last so many seconds.
since() {
  log_of "$1"
  from=0 begin=$(($(now) - $2))
  while read -r at size && [ "$at" -lt "$begin" ]; do from=$size; done <"$ROOT/jobs/$1/times"
  # A line is not searched for any further back.
  window=$((from < 65536 ? from : 65536))
  part=$({ piece $((from - window)) "$window" && echo x; } | tail -n 1 | wc -c)
  echo $((from - part + 2))
}

# piece OFFSET BYTES: a part of the log.
piece() { tail -c "+$(($1 + 1))" "$log" | head -c "$2"; }

# To all processes of a job, if their number surely still means them.
signal_job() {
  { read -r leader _ <"$ROOT/jobs/$1/pid"; } 2>/dev/null && [ -n "$leader" ] || return 0
  if alive "$ROOT/jobs/$1/pid" || alive "$ROOT/jobs/$1/supervisor"; then
    kill "-$2" "-$leader" 2>/dev/null
  fi
}

# signal_jobs SIGNAL WHY: to every job that is going, marked with the reason, and to what others left running.
signal_jobs() {
  for job in "$ROOT"/jobs/*; do
    ! going "${job##*/}" || mark "$job" "$2"
    signal_job "${job##*/}" "$1"
  done
}

# mark JOB WHY: notes that a job is told to end, unless it has ended by itself; a mark that is there already
# may be why it has.
mark() {
  (set -C && : >"$1/$2") 2>/dev/null || return 0
  [ ! -e "$1/exit" ] || drop "$1/$2"
}

# stop_jobs SECONDS WHY: ends all jobs.
stop_jobs() {
  signal_jobs TERM "$2"
  deadline=$(($(clock) + $1))
  for job in "$ROOT"/jobs/*; do finish "${job##*/}"; done
}

# Waits for a job that was told to end until the deadline, then kills all that is left of it.
finish() {
  while going "$1" && [ "$(clock)" -lt "$deadline" ]; do nap; done
  signal_job "$1" KILL
  while going "$1" && [ "$(clock)" -lt $((deadline + 5)) ]; do nap; done
}

# cancel ID SECONDS: SIGTERM to the whole job, SIGKILL to what has not ended within SECONDS.
cancel() {
  if going "$1"; then
    mark "$ROOT/jobs/$1" cancelled
    signal_job "$1" TERM
    deadline=$(($(clock) + $2))
    finish "$1"
  fi
  status "$1"
}

# -- files; lists of names are separated by NUL -----------------------------------------------------

# find_target TARGET: the folder that files are pushed to, below ROOT or where the person said.
find_target() {
  case $1 in \~/*) into=$HOME/${1#??} ;; /*) into=$1 ;; *) into=$ROOT/$1 ;; esac
}

# enter TARGET: goes there, and makes it first.
enter() {
  find_target "$1"
  umask 022
  mkdir -p "$into" && cd "$into" || fail "$into cannot be made"
}

# sent KEY: what was pushed under that key last time.
sent() { [ ! -f "$ROOT/sent/$1" ] || cat "$ROOT/sent/$1"; }

# remove TARGET: deletes, in this order, the files named on stdin, and folders (names that end in /) when
# empty; nothing behind a symbolic link, which a job may have put in the place of a folder.
remove() {
  enter "$1"
  xargs -0 sh -c 'for name; do
    above=${name%/}
    until [ "$above" = "${above%/*}" ]; do above=${above%/*}; [ ! -h "$above" ] || continue 2; done
    case $name in
      */) rmdir -- "$name" 2>/dev/null ;;
      *) [ -d "$name" ] && [ ! -h "$name" ] || rm -f -- "$name" || failed=1 ;;
    esac
  done; exit "${failed:-0}"' sh
}

# receive TARGET plain|gzip|folders: unpacks the tar on stdin. No file is under its name before it is whole:
# all is unpacked elsewhere on the same file system and moved, what is new as a whole. "folders" are only
# given their permissions.
receive() {
  enter "$1"
  [ "$2" != folders ] || { tar -xpof - && return; }
  case $1 in \~/* | /*) beside=$into ;; *) beside=$ROOT ;; esac
  for old in "$beside"/.unpacked-*; do
    [ ! -d "$old" ] || kill -0 "${old##*-}" 2>/dev/null || rm -rf "$old"
  done
  stage=$beside/.unpacked-$$
  trap 'rm -rf "$stage"' EXIT
  trap 'exit 1' HUP INT TERM PIPE
  mkdir -m 700 "$stage" "$stage/tree" || fail "$into cannot be written"
  if [ "$2" = gzip ]; then gzip -dc; else cat; fi | tar -xpof - -C "$stage/tree" ||
    fail "$into cannot be written$(room)"
  cd "$stage/tree" && find . -type d -print0 >"$stage/names" || fail "$into cannot be written$(room)"
  # Of two at once one would move a folder into the one that the other has just moved there.
  alone "$beside/.unpacking"
  INTO=$into xargs -0 sh -c 'failed=0
    for folder; do
      if [ ! -d "$folder" ]; then
        # It went with the one that it is in.
        continue
      elif [ -d "$INTO/$folder" ] && [ ! -h "$INTO/$folder" ]; then
        find "$folder/." ! -name . -prune ! -type d \
          -exec sh -c '\''to=$1 && shift && mv -f -- "$@" "$to"'\'' sh "$INTO/$folder/" {} + || failed=1
      else
        rm -f -- "$INTO/$folder" && mv -- "$folder" "$INTO/$folder" || failed=1
      fi
    done
    exit "$failed"' sh <"$stage/names" || fail "not everything could be put into its place in $into"
}

# alone LOCK: waits until no other process holds the lock, a link that names it, and takes it until we end.
alone() {
  lock=$1 tries=0
  # A link needs no room on a full disk.
  until ln -s "$$" "$lock" 2>/dev/null; do
    if ! holder=$(readlink "$lock"); then
      # It has just gone, or there can be none.
      tries=$((tries + 1))
      [ "$tries" -lt 50 ] || fail "$lock cannot be written$(room)"
    elif kill -0 "$holder" 2>/dev/null; then
      nap
    elif mv "$lock" "$lock.$$" 2>/dev/null; then
      # Of the dead, unless another was faster; then it is that one's.
      [ "$(readlink "$lock.$$")" = "$holder" ] || mv "$lock.$$" "$lock"
      rm -f "$lock.$$"
    fi
  done
  trap 'rm -rf "$stage" "$lock"' EXIT
}

# Says that the disk is full, if it is; what a tar says does not always tell.
room() {
  for what in "" -i; do
    # shellcheck disable=SC2086
    left=$(df -P $what "$into" 2>/dev/null | sed -n '2p' | tr -s ' ' | cut -d ' ' -f 4)
    case $left in '' | *[!0-9]*) continue ;; esac
    [ "$left" -gt 64 ] || [ -n "$what" ] || echo ": No space left on device"
    [ "$left" -gt 0 ] || [ -z "$what" ] || echo ": No space left for further files"
  done
}

# files NAME...: every regular file and symbolic link at or below these names of the working directory.
files() {
  cd "$ROOT/work" || exit 1
  failed=0
  for name; do
    # What find would take for words of its own.
    case $name in [-\(\)!,]*) name=./$name ;; esac
    [ ! -e "$name" ] && [ ! -h "$name" ] || find "$name" \( -type f -o -type l \) -print0 || failed=1
  done
  return "$failed"
}

# digest TARGET: for each name on stdin a line: the file's sha256, "unreadable", "gone", or "link:" and where
# it leads.
digest() {
  find_target "$1"
  cd "$into" || exit 1
  if command -v sha256sum >/dev/null 2>&1; then sum=sha256sum; else sum='shasum -a 256'; fi
  # Names are kept from the checksum tool, which would escape them; a newline would break the line.
  SUM=$sum xargs -0 sh -c 'for name; do
    if [ -h "$name" ]; then printf link:; readlink -n -- "$name" | tr "\n" "?"; echo
    elif [ ! -f "$name" ]; then echo gone
    elif digest=$($SUM <"$name"); then echo "${digest%% *}"
    else echo unreadable; fi
  done' sh
}

# pack: the names on stdin as one tar or several in a row. A hard link is packed as the file it is: GNU tar
# can be told so, and any other never sees two names at once.
pack() {
  cd "$ROOT/work" || exit 1
  if tar --version 2>/dev/null | grep -q GNU; then
    xargs -0 tar -cf - --hard-dereference --
  else
    xargs -0 -n 1 tar -cf - --
  fi
}

command=${1:-}
[ "$#" -eq 0 ] || shift
case $command in
  read) read_log "$@" ;;
  times) log_times "$@" ;;
  init | lease | idle | vitals | clean | watch | supervise | perform) "$command" "$@" ;;
  start | status | follow | last | since | cancel) "$command" "$@" ;;
  sent | remove | receive | files | digest | pack) "$command" "$@" ;;
  # keep KEY: stdin is what the client will compare with next time. Tells what could make that faster.
  keep)
    put "sent/$1"
    ! command -v gzip >/dev/null 2>&1 || echo gzip
    ! python3 -ISc 'import sys, zlib; sys.exit(sys.version_info < (3, 7))' 2>/dev/null || echo python
    ;;
  *) fail "host.sh knows no command '$command'" 64 ;;
esac
exit
