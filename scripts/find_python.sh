# Sourced by the scripts here: sets PYTHON to an interpreter that can make and fill `.venv`, or explains what is missing.
# Candidates are run, not only looked up: version managers leave names on the PATH that lead nowhere.

wanted='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
without_venv=''
found=''
for candidate in "${PYTHON:-}" .venv/bin/python python3 python3.13 python3.12 python3.11; do
    [ -n "$candidate" ] || continue
    "$candidate" -c "$wanted" 2>/dev/null || continue
    if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
        found=$candidate
        break
    fi
    without_venv=$candidate
done
if [ -z "$found" ]; then
    if [ -n "$without_venv" ]; then
        version=$("$without_venv" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        echo "❌ $without_venv cannot make virtual environments: its venv or ensurepip module is missing." >&2
        echo "💡 On Debian and Ubuntu: sudo apt-get install python$version-venv" >&2
    else
        echo "❌ Python 3.11, 3.12 or 3.13 is needed; python3 here is $(python3 --version 2>/dev/null || echo missing)." >&2
        echo "💡 Install one, or name it: PYTHON=/path/to/python3.12 $0" >&2
    fi
    exit 1
fi
PYTHON=$found
