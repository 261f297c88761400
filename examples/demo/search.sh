# search.sh NAME PATTERN EXTENSION...: prints the lines that match a pattern, and counts them.
. "${0%/*}/lib.sh"
name=$1 pattern=$2
shift 2

list=$(files "$@")
[ -n "$list" ] || { echo "no files to search" >&2; exit 1; }
total=$(printf '%s\n' "$list" | wc -l)
matches=0 with=0
search() {
    if found=$(grep -nE -e "$pattern" "$1"); then
        with=$((with + 1)) matches=$((matches + $(printf '%s\n' "$found" | wc -l)))
        printf '%s\n' "$found" | sed "s|^|$1:|"
    elif [ $? -gt 1 ]; then
        exit 2 # grep itself failed, which is not the same as finding nothing
    fi
}
each search "$total" "searching" <<END
$list
END
result "$name: $matches in $with of $((total)) files" \
    "{\"found\":\"$name\",\"matches\":$matches,\"files\":$with,\"searched\":$((total))}"
