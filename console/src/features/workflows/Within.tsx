import { Link } from "@tanstack/react-router";
import { visibleLine } from "../../api/plain";
import { State } from "../../components/State";
import { type Groups, isGroup, type Step } from "./groups";

/** Steps of a group that are listed. */
const MAX_STEPS = 200;

interface Props {
  /** Namespace of the workflow. */
  namespace: string;
  path: string;
  groups: Groups;
}

/** What a group has inside, in words: how much of it is done, and, when it is open, all of it. */
export function Within({ namespace, path, groups }: Props) {
  const isOpen = groups.open.includes(path);
  const inner = isOpen ? groups.inner.get(path) : undefined;
  const all = inner ? [...inner.steps, ...inner.last] : [];
  const leftOut = (inner?.leftOut ?? 0) + Math.max(0, all.length - MAX_STEPS);
  const count = groups.countOf(path);
  return (
    <>
      <button type="button" aria-expanded={isOpen} onClick={() => groups.toggle(path)}>
        <span className="hidden">What is inside of {path}: </span>
        <span aria-hidden="true">{isOpen ? "▾" : "▸"}</span> {count || "inside"}
      </button>
      {isOpen && !inner && <p className="quiet">{groups.isRead ? "It has not begun." : "Loading…"}</p>}
      {all.length > 0 && (
        <ul className="plain nested">
          {all.slice(0, MAX_STEPS).map((step) => (
            <Entry
              key={step.name}
              namespace={namespace}
              path={`${path}/${step.name}`}
              step={step}
              groups={groups}
            />
          ))}
        </ul>
      )}
      {leftOut > 0 && <p className="quiet">{leftOut} more</p>}
    </>
  );
}

function Entry({ step, ...place }: Props & { step: Step }) {
  const { namespace, path, groups } = place;
  const link = groups.linkOf(path);
  const name = visibleLine(step.name);
  return (
    <li>
      <State value={groups.stateOf(path)} prefix="" />{" "}
      {link?.workflow ? (
        <Link to="/workflows/$namespace/$id" params={{ namespace, id: link.workflow }}>
          {name}
        </Link>
      ) : link?.task ? (
        <Link to="/tasks/$namespace/$id" params={{ namespace, id: link.task }}>
          {name}
        </Link>
      ) : (
        name
      )}{" "}
      {isGroup(step) && <Within {...place} />}
    </li>
  );
}
