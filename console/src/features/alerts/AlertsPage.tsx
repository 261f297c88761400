import { Link } from "@tanstack/react-router";
import { visible, visibleLine } from "../../api/plain";
import { Age, Moment } from "../../components/Age";
import { Heading } from "../../components/Heading";
import { Problem } from "../../components/Problem";
import { State } from "../../components/State";
import { subjectOf } from "./subject";
import { useAlerts } from "./useAlerts";

/** Everything that is wrong now, the most severe first, with what to do about it. */
export function AlertsPage() {
  const found = useAlerts();
  return (
    <>
      <Heading what="Alerts" />
      <div className="bar">
        <button type="button" disabled={found.isFetching} onClick={() => void found.refetch()}>
          Read again
        </button>
        {found.data && (
          <span className="quiet">
            read <Age from={new Date(found.dataUpdatedAt).toISOString()} /> ago
          </span>
        )}
      </div>
      <Problem error={found.error} />
      {found.isPending && <p role="status">Loading…</p>}
      {found.data?.length === 0 && <p>Nothing is wrong.</p>}
      {found.data?.map((alert) => {
        const { page, name } = subjectOf(alert.subject);
        return (
          <article key={`${alert.code} ${alert.subject}`} className="card" aria-label={alert.code}>
            <h2>
              <State value={alert.severity} prefix="SYSTEM_STATE_" /> {alert.code?.replaceAll("_", " ")}
              {name && (
                <>
                  {": "}
                  <Link to={page}>{visibleLine(name)}</Link>
                </>
              )}
            </h2>
            <p className="problem">{visible(alert.message)}</p>
            {alert.hint && <p className="quiet">{visible(alert.hint)}</p>}
            <p className="quiet">
              since <Moment at={alert.sinceTime} /> (<Age from={alert.sinceTime} />)
            </p>
          </article>
        );
      })}
    </>
  );
}
