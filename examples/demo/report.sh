# report.sh: writes one report from the results of the task's dependencies.
. "${0%/*}/lib.sh"

report 1 4 "reading the results"
awk -f "${0%/*}/report.awk" "${ROTA_CONTEXT:?run me as a task}/previous_results.json"
