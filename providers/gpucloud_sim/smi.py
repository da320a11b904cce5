"""The ``nvidia-smi`` of simulated instances: a POSIX sh script that answers as the real one does.

It knows what a host check asks for: ``--query-gpu`` with ``--format=csv``, ``-L``, and the table that it
prints without arguments. Its GPUs are as busy as ``$HOME/.gpu-utilization`` says in percent, a file that any
session can write.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import NAMESPACE_URL, uuid5

NAME: Final = "nvidia-smi"
DRIVER: Final = "550.54.15"
CUDA: Final = "12.4"


@dataclass(frozen=True, slots=True)
class Chip:
    """A GPU as the tool tells of it: memory in MiB, clocks in MHz, power in W; ``ecc`` is its errors."""

    name: str
    memory_mib: int
    link_gen: int
    idle_mhz: int
    max_mhz: int
    max_watt: int
    ecc: str


CHIPS: Final = {
    "H100-SXM-80": Chip("NVIDIA H100 80GB HBM3", 81559, 5, 345, 1980, 700, "0"),
    "RTX4090-24": Chip("NVIDIA GeForce RTX 4090", 24564, 4, 210, 3105, 450, "[N/A]"),
}
"""By the GPU that is sold."""

WRONG: Final = Chip("NVIDIA A10", 23028, 4, 210, 1695, 150, "0")
"""What a host has that is not what was sold."""

SCRIPT: Final = r"""#!/bin/sh
# The nvidia-smi of a simulated instance.
gpus='@UUIDS@'
busy=0
if [ -r "$HOME/.gpu-utilization" ]; then
  read -r busy <"$HOME/.gpu-utilization"
  case $busy in '' | *[!0-9]*) busy=0 ;; esac
fi
if [ "$busy" -gt 0 ]; then
  clock=@MAX_MHZ@ power=@MAX_WATT@.00 used=$((@MEMORY@ / 2)) heat=65
else
  clock=@IDLE_MHZ@ power=$((@MAX_WATT@ / 10)).00 used=4 heat=31
fi

# field NAME INDEX UUID: sets what a GPU has for a field, and the unit of that.
field() {
  unit=
  case $1 in
    index) value=$2 ;;
    uuid | gpu_uuid) value=$3 ;;
    name | gpu_name) value='@NAME@' ;;
    pci.bus_id) value=$(printf '00000000:%02X:00.0' "$(($2 + 1))") ;;
    driver_version) value=@DRIVER@ ;;
    memory.total) value=@MEMORY@ unit=MiB ;;
    memory.used) value=$used unit=MiB ;;
    pcie.link.width.current | pcie.link.width.max) value=16 ;;
    pcie.link.gen.max) value=@LINK_GEN@ ;;
    clocks.sm) value=$clock unit=MHz ;;
    clocks.max.sm) value=@MAX_MHZ@ unit=MHz ;;
    ecc.errors.uncorrected.volatile.total | ecc.errors.uncorrected.aggregate.total) value='@ECC@' ;;
    clocks_throttle_reasons.active | clocks_event_reasons.active) value=0x0000000000000000 ;;
    temperature.gpu) value=$heat ;;
    utilization.gpu) value=$busy unit=% ;;
    power.draw) value=$power unit=W ;;
    *)
      printf 'Field "%s" is not a valid field to query.\n\n' "$1"
      exit 2
      ;;
  esac
}

# line WHAT INDEX UUID: one line of the answer: its heads, or the values of one GPU.
line() {
  text=
  for name in $fields; do
    field "$name" "$2" "$3"
    case $1 in
      head) value=$name${unit:+ [$unit]} ;;
      *) [ -z "$units" ] || value=$value${unit:+ $unit} ;;
    esac
    text="$text${text:+, }$value"
  done
  printf '%s\n' "$text"
}

query() {
  case ,$format, in
    *,csv,*) ;;
    *) echo 'No format specified. Try --format=csv' && exit 2 ;;
  esac
  head=yes units=yes index=0
  case ,$format, in *,noheader,*) head= ;; esac
  case ,$format, in *,nounits,*) units= ;; esac
  # A field that is not known ends it before it has said anything else.
  for name in $fields; do field "$name" 0 ''; done
  [ -z "$head" ] || line head 0 ''
  for uuid in $gpus; do
    line gpu "$index" "$uuid"
    index=$((index + 1))
  done
}

list() {
  index=0
  for uuid in $gpus; do
    echo "GPU $index: @NAME@ (UUID: $uuid)"
    index=$((index + 1))
  done
}

table() {
  rule='+-----------------------------------------------------------------------------------------+'
  echo "$rule"
  printf '| NVIDIA-SMI %-22s Driver Version: %-14s CUDA Version: %-8s |\n' @DRIVER@ @DRIVER@ @CUDA@
  echo "$rule"
  index=0
  for uuid in $gpus; do
    printf '| %3s  %-26s %22sC %8s / @MEMORY@MiB %10s%% |\n' "$index" '@NAME@' "$heat" "$used" "$busy"
    index=$((index + 1))
  done
  echo "$rule"
}

fields='' format='' action=table
for argument; do
  case $argument in
    --query-gpu=*) action=query fields=$(echo "${argument#*=}" | tr , ' ') ;;
    --format=*) format=${argument#*=} ;;
    -L | --list-gpus) action=list ;;
    *)
      echo "Invalid combination of input arguments. Please run 'nvidia-smi -h' for help."
      exit 1
      ;;
  esac
done
"$action"
"""

WITHOUT_GPU: Final = """\
#!/bin/sh
# Hides the GPUs of the machine that simulates one without any.
echo 'No devices were found'
exit 6
"""


def script(chip: Chip | None, count: int, seed: str) -> str:
    """The text of the program for so many of a chip; GPUs are named after the ``seed``."""
    if chip is None:
        return WITHOUT_GPU
    text = SCRIPT
    for word, value in {
        "UUIDS": " ".join(f"GPU-{uuid5(NAMESPACE_URL, f'{seed}/{index}')}" for index in range(count)),
        "NAME": chip.name,
        "MEMORY": chip.memory_mib,
        "LINK_GEN": chip.link_gen,
        "IDLE_MHZ": chip.idle_mhz,
        "MAX_MHZ": chip.max_mhz,
        "MAX_WATT": chip.max_watt,
        "ECC": chip.ecc,
        "DRIVER": DRIVER,
        "CUDA": CUDA,
    }.items():
        text = text.replace(f"@{word}@", str(value))
    return text
