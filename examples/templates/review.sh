# review.sh: reviews a branch, or decides from reviews, as the template review-by-three asks for in the prompt.
#
# A review looks for the words of the last line of the prompt in the lines that the branch adds. What must be returned is written to
# $ROTA_OUTPUT/result.json.
set -eu
prompt=$(cat)
result=${ROTA_OUTPUT:?run me as a task}/result.json

# Prints each line of the input as a JSON text, with commas between them.
texts() {
    awk '{ gsub(/\\/, "\\\\"); gsub(/"/, "\\\""); gsub(/[[:cntrl:]]/, " "); printf "%s\"%s\"", (NR > 1 ? ", " : ""), $0 }'
}

case $prompt in
    "Decide whether"*)
        verdict=approve
        case $prompt in *'"approve":false'*) verdict=reject ;; esac
        # One line of the prompt has the reviews, as JSON.
        reasons=$(printf '%s\n' "$prompt" | grep -o '"findings":\[[^]]*\]' | sed 's/.*:\[//; s/\]$//' | grep . | paste -sd , -) || true
        printf '{"data": {"verdict": "%s", "reasons": [%s]}}' "$verdict" "${reasons:-\"nothing was found\"}" >"$result"
        ;;
    *)
        since=$(printf '%s\n' "$prompt" | sed -n 's/.*`git diff \([^ `]*\)`.*/\1/p' | head -n 1)
        words=$(printf '%s\n' "$prompt" | tail -n 1 | sed 's/.*: //')
        findings=$(git diff "$since" | grep '^+[^+]' | grep -E "$words" | sed 's/^+//' | texts) || true
        approve=true
        [ -z "$findings" ] || approve=false
        printf '{"data": {"approve": %s, "findings": [%s]}}' "$approve" "$findings" >"$result"
        ;;
esac
