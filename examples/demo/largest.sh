# largest.sh NUMBER EXTENSION...: lists the files with the most lines.
. "${0%/*}/lib.sh"
number=$1
shift

list=$(files "$@")
[ -n "$list" ] || { echo "no files" >&2; exit 1; }
total=$(printf '%s\n' "$list" | wc -l)
measure() { printf '%7d  %s\n' "$(wc -l <"$1")" "$1"; }
top=$(each measure "$total" "measuring" <<END | sort -rn | head -n "$number"
$list
END
)
first=$(printf '%s\n' "$top" | awk 'NR == 1 { print $2 " has " $1 " lines" }')
result "The largest: $first
$top" "{\"measured\":$((total))}"
