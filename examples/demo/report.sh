# report.sh: makes one report from the results of the tasks that this one depends on.
. "${0%/*}/lib.sh"

tell 1 4 "reading the results"
awk -f "${0%/*}/report.awk" "${ROTA_CONTEXT:?run me as a task}/previous_results.json"
