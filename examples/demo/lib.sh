# Shared functions of the demo's programs. Source this with the project as the working directory.
#
# A program of the `command` runtime needs none of this: its exit code is its outcome, and what it
# prints is its result. To report more, it has two directories and a pipe, named by the environment:
#   ROTA_CONTEXT   directory with task.json and previous_results.json
#   ROTA_OUTPUT    directory for result.json
#   ROTA_EVENTS    pipe for JSON lines: progress, messages, usage
# The programs also run by hand, without them.
set -eu
LC_ALL=C
export LC_ALL

# files EXTENSION...: the project's files with these extensions, one per line, without hidden files and build output.
files() {
    for extension; do
        find . -type d \( -name target -o -name node_modules -o -name '.?*' \) -prune \
            -o -type f -name "*.$extension" -print
    done | sort
}

# report DONE TOTAL STEP: reports progress. STEP contains no characters that need quoting.
report() {
    printf '{"progress":%d.%02d,"step":"%s"}\n' $(($1 / $2)) $(($1 % $2 * 100 / $2)) "$3" \
        >>"${ROTA_EVENTS:-/dev/null}"
}

# each COMMAND TOTAL STEP: runs COMMAND with each file of standard input; reports progress at most twenty times.
each() {
    number=0
    while IFS= read -r file; do
        number=$((number + 1))
        "$1" "$file"
        if [ $((number * 20 / $2)) -ne $(((number - 1) * 20 / $2)) ]; then
            report "$number" "$2" "$3: $number of $2 files"
        fi
    done
}

# quoted TEXT: as a JSON string.
quoted() {
    printf '%s\n' "$1" | sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/	/\\t/g' |
        awk 'BEGIN { printf "\"" } NR > 1 { printf "%s", "\\n" } { printf "%s", $0 } END { printf "\"" }'
}

# result SUMMARY DATA: the task's result: a text for people, and JSON for programs.
result() {
    if [ -n "${ROTA_OUTPUT:-}" ]; then
        printf '{"success":true,"summary":%s,"data":%s}\n' "$(quoted "$1")" "$2" >"$ROTA_OUTPUT/result.json"
    else
        printf '%s\n' "$1"
    fi
}
