import { createRootRoute, createRoute, createRouter, Navigate } from "@tanstack/react-router";
import { BASE, movedBelow } from "./base";
import { Heading } from "./components/Heading";
import { lazyPage } from "./components/lazy";
import { Shell } from "./components/Shell";
import { AgentsPage } from "./features/agents/AgentsPage";
import { InboxPage } from "./features/inbox/InboxPage";
import type { MetricsSearch } from "./features/metrics/MetricsPage";
import { HOURS } from "./features/metrics/series";
import { searchOf } from "./features/tasks/filters";
import { TaskPage } from "./features/tasks/TaskPage";
import { TasksPage } from "./features/tasks/TasksPage";
import { WorkflowPage } from "./features/workflows/WorkflowPage";
import { WorkflowsPage } from "./features/workflows/WorkflowsPage";

const root = createRootRoute({
  component: Shell,
  notFoundComponent: () => <Heading what="No such page">There is no such page.</Heading>,
});

const text = (value: unknown) => (typeof value === "string" ? value : undefined);

const home = createRoute({
  getParentRoute: () => root,
  path: "/",
  component: () => <Navigate to="/tasks" />,
});
const inbox = createRoute({ getParentRoute: () => root, path: "/inbox", component: InboxPage });
const tasks = createRoute({
  getParentRoute: () => root,
  path: "/tasks",
  component: TasksPage,
  // Filters are in the address, so that they can be shared and survive the way back.
  validateSearch: searchOf,
});
const task = createRoute({
  getParentRoute: () => root,
  path: "/tasks/$namespace/$id",
  component: TaskPage,
  // Position of an entry of the log.
  validateSearch: ({ line }: Record<string, unknown>): { line?: number } =>
    Number.isSafeInteger(line) && Number(line) > 0 ? { line: Number(line) } : {},
});
const agents = createRoute({ getParentRoute: () => root, path: "/agents", component: AgentsPage });
const workflows = createRoute({ getParentRoute: () => root, path: "/workflows", component: WorkflowsPage });
const workflow = createRoute({
  getParentRoute: () => root,
  path: "/workflows/$namespace/$id",
  component: WorkflowPage,
  // Groups of the graph that are open.
  validateSearch: ({ open }: Record<string, unknown>): { open?: string | undefined } =>
    typeof open === "string" && open ? { open } : {},
});

const edit = createRoute({
  getParentRoute: () => root,
  path: "/workflows/new",
  component: lazyPage(async () => (await import("./features/workflows/EditPage")).EditPage),
  // Name of the workflow to begin with.
  validateSearch: ({ from }: Record<string, unknown>): { from?: string } =>
    typeof from === "string" && /^namespaces\/[^/]+\/workflows\/[^/]+$/.test(from) ? { from } : {},
});

// Pages that few visits need are loaded when they are opened.
const schedules = createRoute({
  getParentRoute: () => root,
  path: "/schedules",
  component: lazyPage(async () => (await import("./features/schedules/SchedulesPage")).SchedulesPage),
});
const costs = createRoute({
  getParentRoute: () => root,
  path: "/costs",
  component: lazyPage(async () => (await import("./features/costs/CostsPage")).CostsPage),
  validateSearch: (search: Record<string, unknown>): { days?: number } =>
    [1, 7, 30].includes(Number(search.days)) ? { days: Number(search.days) } : {},
});
const metrics = createRoute({
  getParentRoute: () => root,
  path: "/metrics",
  component: lazyPage(async () => (await import("./features/metrics/MetricsPage")).MetricsPage),
  validateSearch: (search: Record<string, unknown>): MetricsSearch => ({
    hours: HOURS.includes(Number(search.hours)) ? Number(search.hours) : undefined,
    agent: text(search.agent),
    all: search.all === true ? true : undefined,
    view: search.view === "table" ? "table" : undefined,
  }),
});
const alerts = createRoute({
  getParentRoute: () => root,
  path: "/alerts",
  component: lazyPage(async () => (await import("./features/alerts/AlertsPage")).AlertsPage),
});
const system = createRoute({
  getParentRoute: () => root,
  path: "/system",
  component: lazyPage(async () => (await import("./features/system/SystemPage")).SystemPage),
});
const api = createRoute({
  getParentRoute: () => root,
  path: "/api-docs",
  component: lazyPage(async () => (await import("./features/api/ApiPage")).ApiPage),
});

const moved = movedBelow(BASE, location.pathname);
if (moved !== undefined) {
  history.replaceState(null, "", moved + location.search + location.hash);
}

export const router = createRouter({
  basepath: BASE,
  routeTree: root.addChildren([
    home,
    inbox,
    tasks,
    task,
    agents,
    workflows,
    workflow,
    edit,
    schedules,
    costs,
    alerts,
    metrics,
    system,
    api,
  ]),
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
