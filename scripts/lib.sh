# shellcheck shell=bash
# Shared by the scripts in this folder: where the repository is, which Blender there is, how to build. Sourced, not run.

# Folder of the repository, absolute.
REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Where scripts/setup puts a Python with bpy; the daemon looks there too.
SWARM_BPY_DIR=${SWARM_BPY_DIR:-$HOME/.local/share/swarm/bpy}
export SWARM_BPY_DIR

say() { printf '%s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# The head comment of a script is its help: everything from line 2 to the first line that is no comment.
usage() { sed -n '2,/^[^#]/{/^#/!d;s/^# \{0,1\}//;p}' "$0"; }

# Prints the renderers there are, one a line, in the order of preference: SWARM_BLENDER (a path list), `blender` on
# PATH, the bpy environment of scripts/setup. A Python with bpy is one whose file name starts with `python`.
renderers() {
    local candidate candidates=()
    IFS=: read -ra candidates <<<"${SWARM_BLENDER:-}"
    candidates+=("$(command -v blender || true)" "$SWARM_BPY_DIR/bin/python")
    for candidate in "${candidates[@]}"; do
        [ -n "$candidate" ] && [ -x "$candidate" ] && printf '%s\n' "$candidate"
    done
    return 0
}

# Prints the release of a renderer, as in 3.4.1; fails where it does not start.
renderer_version() {
    case ${1##*/} in
    python*) "$1" -c 'import bpy; print(bpy.app.version_string.split()[0])' 2>/dev/null ;;
    *) "$1" --version 2>/dev/null | sed -n 's/^Blender \([0-9][0-9.]*\).*/\1/p' | grep . ;;
    esac
}

# Makes `cargo` usable where rustup's shims are on PATH but HOME is a fresh one that knows no toolchain.
find_cargo() {
    # Before a distribution's older one; a shell from before rustup was installed does not have it on PATH yet.
    case :$PATH: in
    *:"$HOME/.cargo/bin":*) ;;
    *) [ ! -x "$HOME/.cargo/bin/cargo" ] || PATH=$HOME/.cargo/bin:$PATH ;;
    esac
    have cargo || return 1
    cargo --version >/dev/null 2>&1 && return 0
    local installed
    installed=$(dirname "$(command -v cargo)")/../../.rustup
    [ -d "$installed/toolchains" ] || return 1
    RUSTUP_HOME=$(cd "$installed" && pwd)
    export RUSTUP_HOME
    cargo --version >/dev/null 2>&1
}

# Builds the program with the given cargo arguments and sets SWARM_BIN to it, unless SWARM_BIN names one already.
build_swarm() {
    if [ -n "${SWARM_BIN:-}" ]; then
        [ -x "$SWARM_BIN" ] || die "SWARM_BIN names $SWARM_BIN, which is no program; build it or unset SWARM_BIN."
        SWARM_BIN=$(realpath "$SWARM_BIN")
    else
        find_cargo || die "cargo is missing; run scripts/setup, which says how to get it."
        (cd "$REPO" && cargo build --locked --bin swarm "$@") >&2 || die "the build failed; see above."
        local profile=debug
        case " $* " in *" --release "*) profile=release ;; esac
        SWARM_BIN=$(target_dir)/$profile/swarm
    fi
    export SWARM_BIN
}

# Builds the program with the feature `fail-points` and prints where it is: beside the ordinary one, which stays. A target
# folder of its own would build every dependency again.
build_fail_points() {
    local folder
    folder=$(target_dir)/debug
    (
        unset SWARM_BIN
        [ ! -e "$folder/swarm" ] || cp -p "$folder/swarm" "$folder/swarm-ordinary"
        build_swarm --features fail-points
        cp -p "$folder/swarm" "$folder/swarm-fail-points"
        # Renamed, not written over: cargo links the name to the file it built.
        [ ! -e "$folder/swarm-ordinary" ] || mv -f "$folder/swarm-ordinary" "$folder/swarm"
    ) || return 1
    printf '%s' "$folder/swarm-fail-points"
}

target_dir() {
    local folder=${CARGO_TARGET_DIR:-target}
    case $folder in /*) printf '%s' "$folder" ;; *) printf '%s' "$REPO/$folder" ;; esac
}
