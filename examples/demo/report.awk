# Reads previous_results.json, which Rota writes with one field per line. Prints a report; fails
# without results.

function value(line) {
    sub(/^[^:]*: /, "", line)
    sub(/,$/, "", line)
    if (line ~ /^"/) line = substr(line, 2, length(line) - 2)
    return line
}

# Decodes a JSON string.
function plain(text,    out, at, char) {
    out = ""
    for (at = 1; at <= length(text); at++) {
        char = substr(text, at, 1)
        if (char == "\\") {
            char = substr(text, ++at, 1)
            if (char == "n") char = "\n"
            else if (char == "t") char = "\t"
        }
        out = out char
    }
    return out
}

/^    "alias":/      { results++; alias = value($0); state[results] = ""; text[results] = "" ; name[results] = alias }
/^    "state":/      { state[results] = value($0); sub(/^TASK_STATE_/, "", state[results]) }
/^      "text":/     { text[results] = plain(value($0)) }
/^        "lines":/  { lines += value($0) }
/^        "files":/  { files[results] = value($0) }
/^        "language":/ { languages++; of_language[results] = 1 }

END {
    if (results == 0) {
        print "no results to report" > "/dev/stderr"
        exit 1
    }
    for (n = 1; n <= results; n++) if (of_language[n]) counted += files[n]
    printf "%d lines in %d files of %d kinds\n", lines, counted, languages
    for (n = 1; n <= results; n++) {
        if (state[n] != "SUCCEEDED") printf "\n%s: no result, it is %s\n", name[n], state[n]
        else if (text[n] ~ /\n/) printf "\n%s\n", text[n]
        else printf "%s%s\n", (n == 1 || text[n - 1] ~ /\n/ ? "\n" : ""), text[n]
    }
}
