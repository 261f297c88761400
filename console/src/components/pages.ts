/** The pages with a place in the navigation, and the key of each. */
export const PAGES = [
  { to: "/inbox", name: "Inbox", key: "i" },
  { to: "/tasks", name: "Tasks", key: "t" },
  { to: "/workflows", name: "Workflows", key: "w" },
  { to: "/agents", name: "Agents", key: "a" },
  { to: "/schedules", name: "Schedules", key: "s" },
  { to: "/costs", name: "Costs", key: "c" },
  { to: "/alerts", name: "Alerts", key: "l" },
  { to: "/metrics", name: "Metrics", key: "m" },
  { to: "/system", name: "System", key: "y" },
  { to: "/api-docs", name: "API", key: "d" },
] as const;
