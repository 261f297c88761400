import { Link } from "@tanstack/react-router";
import { memo } from "react";
import { dollars, placeOf } from "../../api/format";
import { visibleLine } from "../../api/plain";
import type { Task } from "../../api/types";
import { Acting } from "../../components/Acting";
import { Age } from "../../components/Age";
import { State } from "../../components/State";
import { NORMAL } from "./actions";
import { fateOf, isSettled } from "./settle";
import { titleOf } from "./title";

/** A task in the table. It is drawn again only if it has changed itself. */
export const TaskRow = memo(function TaskRow({
  task,
  snippet,
  isCurrent,
  isSelected,
  toggle,
}: {
  task: Task;
  snippet: string | undefined;
  isCurrent: boolean;
  isSelected: boolean;
  toggle: (task: Task) => void;
}) {
  return (
    <tr aria-current={isCurrent}>
      <Acting>
        <td>
          <input
            type="checkbox"
            checked={isSelected}
            onChange={() => toggle(task)}
            aria-label={`Select ${titleOf(task)}`}
          />
        </td>
      </Acting>
      <td>
        <State value={task.status?.state} prefix="TASK_STATE_" />{" "}
        {isSettled(task) && (
          <span className="quiet" title={fateOf(task)}>
            settled
          </span>
        )}
      </td>
      <td className="name">
        <Link to="/tasks/$namespace/$id" params={placeOf(task.name)}>
          {titleOf(task)}
        </Link>
        {snippet && <div className="quiet">{visibleLine(snippet)}</div>}
      </td>
      <td className="optional">{task.spec?.target?.agent}</td>
      <td className="optional">{task.priority ?? NORMAL}</td>
      <td>
        <Age from={task.createTime} />
      </td>
      <td className="optional">{dollars(task.status?.usage?.costMicroUsd)}</td>
    </tr>
  );
});
