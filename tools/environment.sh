#!/bin/sh
# Make the environment of the project, or do nothing if it is there: sh tools/environment.sh [FOLDER]
#
# FOLDER (.venv) is ready when FOLDER/.ready holds the checksums of the lock and of pyproject.toml. That file is written
# last; FOLDER/.unfinished is written first, so that what was cut off in the middle is thrown away and made anew.
# Where only pyproject.toml has changed, the package itself is installed again and nothing else.
set -eu
cd "$(dirname "$0")/.."
folder=${1:-.venv}
python=$folder/bin/python
lock=$(cksum < requirements.lock)
key="$lock, $(cksum < pyproject.toml)"

works() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }

if [ -f "$folder/.ready" ] && [ "$(cat "$folder/.ready")" = "$key" ] && works "$python"; then
    exit 0
fi
if [ -f "$folder/.unfinished" ] || { [ -d "$folder" ] && ! works "$python"; }; then
    echo "The environment in $folder is not whole; it is made anew."
    rm -rf "$folder"
fi

uv=$(command -v uv || true)
if ! works "$python"; then
    base=
    for name in ${PYTHON:-} python3.12 python3.11 python3.13 python3 python; do
        if works "$name"; then base=$name; break; fi
    done
    if [ -n "$base" ] && "$base" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        echo "Making $folder with $("$base" --version)."
        "$base" -m venv "$folder"
    elif [ -n "$uv" ]; then
        echo "Making $folder with uv."
        uv venv --quiet --seed --python "${base:->=3.11,<3.14}" "$folder"
    elif [ -n "$base" ]; then
        echo "$("$base" --version) cannot make environments: install its venv module (Debian: apt-get install python3-venv), or uv." >&2
        exit 1
    else
        echo "No Python 3.11, 3.12 or 3.13 was found: install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2
        exit 1
    fi
fi
touch "$folder/.unfinished"

log=$folder/install.log
install() {  # what installers print is noise while all goes well, and worth reading when not
    if [ -f "$folder/.ready" ] && [ "$(cut -d, -f1 "$folder/.ready")" = "$lock" ]; then
        echo "The lock is as it was."
    elif [ -n "$uv" ] && uv pip install --python "$python" --require-hashes --no-deps -r requirements.lock; then
        echo "Installed with uv."
    else
        "$python" -m pip install --disable-pip-version-check --require-hashes --no-deps -r requirements.lock || return 1
    fi
    # Editable, with the build tools of the lock: nothing more is fetched.
    "$python" -m pip install --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
}
echo "Installing what requirements.lock lists (at first about 7 GB, 2 to 5 minutes; progress in $log)."
if ! install >"$log" 2>&1; then
    rm "$folder/.unfinished"  # an installer that ends by itself leaves whole packages
    tail -n 30 "$log" >&2
    echo "The environment was not installed (see above, and $log); the same command tries again." >&2
    exit 1
fi
# What runs a published model in a page; without it such a page has stored answers, and says so.
"$python" -m crossexplain_book.publish.runtime >>"$log" 2>&1 || echo "onnxruntime-web was not fetched (see the end of $log): published pages will have stored answers only."
rm "$folder/.unfinished"
echo "$key" > "$folder/.ready"
echo "The environment in $folder is ready."
