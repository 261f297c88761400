# count.sh LANGUAGE EXTENSION...: counts files, lines, words and bytes.
. "${0%/*}/lib.sh"
language=$1
shift

list=$(files "$@")
[ -n "$list" ] || { echo "no files of $language" >&2; exit 1; }
total=$(printf '%s\n' "$list" | wc -l)
lines=0 words=0 bytes=0
count() {
    # `set --` takes the three numbers apart.
    set -- $(wc <"$1")
    lines=$((lines + $1)) words=$((words + $2)) bytes=$((bytes + $3))
}
each count "$total" "counting" <<END
$list
END
result "$language: $lines lines in $((total)) files" \
    "{\"language\":\"$language\",\"files\":$((total)),\"lines\":$lines,\"words\":$words,\"bytes\":$bytes}"
