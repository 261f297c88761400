import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { Command } from "cmdk";
import { useEffect, useState } from "react";
import { get } from "../api/client";
import { isName, placeOf, query } from "../api/format";
import type { Task, Workflow } from "../api/types";
import { titleOf } from "../features/tasks/title";
import { nameOf } from "../features/workflows/name";
import { namespace, setNamespace } from "../namespace";
import { PAGES } from "./pages";

/** Tasks and workflows that are offered at a time. */
const MAX_FOUND = 50;
/** Time without a key after which the server is asked, in milliseconds. */
const PAUSE = 200;

interface Pages {
  pages?: { tasks?: Task[]; workflows?: Workflow[] }[];
}

/** Returns the things with a part of a text, once each, up to a bound. */
function matching<T extends { name?: string }>(all: T[], text: (one: T) => string, part: string): T[] {
  const wanted = part.toLowerCase();
  const found = all.filter((one) => text(one).toLowerCase().includes(wanted));
  return [...new Map(found.map((one) => [one.name, one])).values()].slice(0, MAX_FOUND);
}

/** Returns a value once it has stayed the same for a while. */
function useDeferred(value: string, pause: number): string {
  const [deferred, setDeferred] = useState("");
  useEffect(() => {
    const timer = setTimeout(() => setDeferred(value), pause);
    return () => clearTimeout(timer);
  }, [value, pause]);
  return deferred;
}

/** Finds pages, known tasks and workflows, and actions by their names. */
export default function Palette({ onClose, onHelp }: { onClose: () => void; onHelp: () => void }) {
  const navigate = useNavigate();
  const cache = useQueryClient();
  const [text, setText] = useState("");
  const name = text.trim();
  const known = (kind: string) =>
    cache.getQueriesData<Pages>({ queryKey: [kind] }).flatMap(([, data]) => data?.pages ?? []);
  const asked = useDeferred(name, PAUSE);
  const named = useQuery({
    queryKey: ["named", namespace(), asked],
    enabled: isName(asked),
    // Titles cannot be searched there, names can.
    queryFn: async ({ signal }) => {
      const list = (kind: string) =>
        get<{ tasks?: Task[]; workflows?: Workflow[] }>(
          `namespaces/${namespace()}/${kind}${query({ pageSize: MAX_FOUND, "filter.alias": asked })}`,
          signal,
        );
      const [tasks, workflows] = await Promise.all([list("tasks"), list("workflows")]);
      return { tasks: tasks.tasks ?? [], workflows: workflows.workflows ?? [] };
    },
  });
  const { tasks: namedTasks = [], workflows: namedWorkflows = [] } = named.data ?? {};
  const tasks = matching(
    [...namedTasks, ...known("tasks").flatMap((page) => page.tasks ?? [])],
    (task) => `${titleOf(task)} ${task.alias} ${task.name}`,
    name,
  );
  const workflows = matching(
    [...namedWorkflows, ...known("workflows").flatMap((page) => page.workflows ?? [])],
    (workflow) => `${nameOf(workflow)} ${workflow.alias} ${workflow.name}`,
    name,
  );
  const go = (act: () => unknown) => {
    onClose();
    void act();
  };
  const openTask = (params: { namespace: string; id: string }) =>
    go(() => navigate({ to: "/tasks/$namespace/$id", params }));
  return (
    <Command label="Commands" loop>
      <Command.Input
        autoFocus
        value={text}
        onValueChange={setText}
        placeholder="Page, task, workflow or command"
      />
      <Command.List label="Commands">
        <Command.Empty>Nothing has this name.</Command.Empty>
        <Command.Group heading="Pages">
          {PAGES.map((page) => (
            <Command.Item
              key={page.to}
              value={`page ${page.name}`}
              onSelect={() => go(() => navigate({ to: page.to }))}
            >
              {page.name} <kbd>{page.key}</kbd>
            </Command.Item>
          ))}
          <Command.Item
            value="page Board of tasks"
            onSelect={() => go(() => navigate({ to: "/tasks", search: { view: "board" } }))}
          >
            Board of tasks
          </Command.Item>
        </Command.Group>
        <Command.Group heading="Commands">
          <Command.Item value="Keyboard shortcuts help" onSelect={() => go(onHelp)}>
            Keyboard shortcuts <kbd>?</kbd>
          </Command.Item>
          {isName(name) && (
            <Command.Item
              value={`open task ${name}`}
              keywords={[name]}
              onSelect={() => openTask({ namespace: namespace(), id: name })}
            >
              Open the task with the id or name {name}
            </Command.Item>
          )}
          {/^[a-z0-9-]+$/.test(name) && (
            <Command.Item
              value={`namespace ${name}`}
              keywords={[name]}
              onSelect={() => go(() => setNamespace(name))}
            >
              Go to the namespace {name}
            </Command.Item>
          )}
        </Command.Group>
        {tasks.length > 0 && (
          <Command.Group heading="Tasks">
            {tasks.map((task) => (
              <Command.Item
                key={task.name}
                value={`${titleOf(task)} ${task.alias} ${task.name}`}
                onSelect={() => openTask(placeOf(task.name))}
              >
                {titleOf(task)}
              </Command.Item>
            ))}
          </Command.Group>
        )}
        {workflows.length > 0 && (
          <Command.Group heading="Workflows">
            {workflows.map((workflow) => (
              <Command.Item
                key={workflow.name}
                value={`${nameOf(workflow)} ${workflow.alias} ${workflow.name}`}
                onSelect={() =>
                  go(() =>
                    navigate({
                      to: "/workflows/$namespace/$id",
                      params: placeOf(workflow.name),
                    }),
                  )
                }
              >
                {nameOf(workflow)}
              </Command.Item>
            ))}
          </Command.Group>
        )}
      </Command.List>
    </Command>
  );
}
